"""Standard output and error of a process, captured at the level of file descriptors.

Descriptors 1 and 2 point to a file that only this process (and whoever handed it over) can see, so that output of
native code and of child programs is captured too. After each attempt the file is drained into the task's log and
emptied; it is in append mode, because whoever writes next would otherwise leave a hole where the former output was.
A supervisor that hands over the file reads from it the last words of a process that died.
"""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Self, TextIO

STDOUT = 1
STDERR = 2
_CHUNK_BYTES = 1 << 20


class OutputCapture:
    """A context in which descriptors 1 and 2 write to a file; `drain` yields and removes what it holds.

    `descriptor` is an open file, for reading and writing, to use in place of an unnamed new one.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._given = descriptor

    def __enter__(self) -> Self:
        _flush_python_streams()
        self._file = self._given if self._given is not None else _unnamed_file()
        fcntl.fcntl(self._file, fcntl.F_SETFL, fcntl.fcntl(self._file, fcntl.F_GETFL) | os.O_APPEND)
        self._former = (os.dup(STDOUT), os.dup(STDERR))
        self._streams = (sys.stdout, sys.stderr)
        self._redirect()
        return self

    def restore(self) -> None:
        """Undo what a task did to descriptors 1 and 2 and to Python's streams over them: closed, replaced, dropped."""
        self._redirect()
        sys.stdout, sys.stderr = self._streams = (_usable(self._streams[0], STDOUT), _usable(self._streams[1], STDERR))

    def _redirect(self) -> None:
        os.dup2(self._file, STDOUT)
        os.dup2(self._file, STDERR)

    def __exit__(self, *_: object) -> None:
        _flush_python_streams()
        for former, number in zip(self._former, (STDOUT, STDERR), strict=True):
            os.dup2(former, number)
            os.close(former)
        if self._given is None:
            os.close(self._file)

    def drain(self, most: int | None = None) -> Iterator[bytes]:
        """Yield what was written since the last drain, in pieces of at most 1 MiB, then empty the file.

        `most` is how many bytes are wanted: what comes after them is dropped.
        """
        _flush_python_streams()
        size = os.fstat(self._file).st_size
        if not size:
            return
        end = size if most is None else min(size, most)
        position = 0
        while position < end and (piece := os.pread(self._file, min(_CHUNK_BYTES, end - position), position)):
            position += len(piece)
            yield piece
        os.ftruncate(self._file, 0)

    def pass_on(self, most: int | None = None) -> bytes:
        """Drain to the standard error that this capture replaced: the output of what has no log. Return its end."""
        piece = b""
        for piece in self.drain(most):
            os.write(self._former[1], piece)
        return piece


def _usable(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is not None and not stream.closed:
        return stream
    return open(descriptor, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _unnamed_file() -> int:
    with tempfile.TemporaryFile("a+b", buffering=0) as file:
        return os.dup(file.fileno())


def _flush_python_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except (OSError, ValueError):
            # A task may have closed or broken the stream: then there is nothing left in it to capture.
            continue
