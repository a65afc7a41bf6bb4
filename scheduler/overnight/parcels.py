"""An outcome on its way between processes of this machine: a small one as bytes, a large one in a nameless file.

A large result is pickled straight into the file: that is the one time that it is copied on its way out, and mapping it
is free. Buffers that a type gives apart (pickle protocol 5; arrays do) lie behind the message, and are not copied by
those who load it either: their objects stand on the mapping, which is private, so each may change its own.
"""

from __future__ import annotations

import mmap
import os
import pickle
from dataclasses import replace
from typing import NamedTuple

from overnight.errors import ResultNotPicklable
from overnight.invoke import Outcome
from overnight.nameless_files import content, finished, new_file, write_whole
from overnight.outcome_message import head_of, pack_outcome, unpack_outcome
from overnight.pickling import dump_result_into

#: What is larger goes into a file.
LARGEST_INLINE_BYTES = 64 * 1024
_ALIGNMENT = 64


class Layout(NamedTuple):
    """What lies in a file from `begin` on: a message of `size` bytes, buffers as (distance from `begin`, size)."""

    begin: int
    size: int
    buffers: tuple[tuple[int, int], ...] = ()

    @property
    def total(self) -> int:
        """How many bytes it is in all."""
        return sum(self.buffers[-1]) if self.buffers else self.size

    def moved(self, begin: int) -> Layout:
        """Return the same at another place."""
        return self._replace(begin=begin)


class Parcel(NamedTuple):
    """An outcome: its message, or a descriptor, which belongs to whoever holds the parcel, and what lies there."""

    message: bytes
    descriptor: int | None = None
    layout: Layout | None = None


def pack_parcel(outcome: Outcome, task_id: str) -> Parcel:
    """Pack an outcome as `outcome_message` does; a large result goes into a file, if one can be written."""
    if not outcome.ok:
        return Parcel(pack_outcome(outcome, task_id))
    sink = _Sink()
    try:
        sink.write(head_of(outcome))
        dump_result_into(outcome.value, task_id, sink, sink.keep_apart)
        return sink.parcel() or Parcel(pack_outcome(outcome, task_id))
    except ResultNotPicklable as error:
        return Parcel(pack_outcome(replace(outcome, ok=False, value=error.with_traceback(None)), task_id))
    finally:
        sink.close()


def parcel_of(message: bytes) -> Parcel:
    """Put a packed outcome into a file if it is large and a file can be written."""
    if len(message) <= LARGEST_INLINE_BYTES:
        return Parcel(message)
    sink = _Sink()
    try:
        sink.write(message)
        return sink.parcel() or Parcel(message)
    finally:
        sink.close()


def open_parcel(descriptor: int, layout: Layout) -> Outcome:
    """Return the outcome that lies in a file, loaded anew, as `unpack_outcome` does. Raises OSError, EOFError."""
    return open_content(content_in(descriptor, layout), layout)


def content_in(descriptor: int, layout: Layout) -> memoryview:
    """Return what lies in a file as it is described. Raises OSError, EOFError."""
    return content(descriptor, layout.begin, layout.total)


def open_content(view: memoryview, layout: Layout) -> Outcome:
    """Return the outcome that is packed in a view; nobody else may change what it shows."""
    return unpack_outcome(view[: layout.size], [view[begin : begin + size] for begin, size in layout.buffers])


class _Sink:
    """What a pickler writes to: memory at first, a file once that is more than `LARGEST_INLINE_BYTES`."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._apart: list[memoryview] = []
        self._file: int | None = None
        self._has_failed = False

    def write(self, data: bytes | memoryview) -> int:
        """Take in a piece. What cannot be written to the file makes `parcel` None."""
        view = memoryview(data).cast("B")
        if self._file is None and self._size + len(view) <= LARGEST_INLINE_BYTES:
            self._pieces.append(bytes(view))
            self._size += len(view)
        else:
            self._put(view)
        return len(view)

    def keep_apart(self, buffer: pickle.PickleBuffer) -> bool:
        """Tell a pickler whether a buffer is to be part of the message: a large one is not."""
        try:
            raw = buffer.raw()
        except BufferError:  # it is not in one piece
            return True
        if raw.nbytes <= LARGEST_INLINE_BYTES:
            return True
        self._apart.append(raw)
        return False

    def parcel(self) -> Parcel | None:
        """Return what was written; None if that has failed."""
        size, buffers = self._size, []
        for raw in self._apart:
            self._put(memoryview(bytes(-self._size % _ALIGNMENT)))
            buffers.append((self._size, raw.nbytes))
            self._put(raw)
        if self._has_failed:
            return None
        if self._file is None:
            return Parcel(b"".join(self._pieces))
        try:
            descriptor = finished(self._file)
        except OSError:
            return None
        finally:
            self._file = None
        return Parcel(b"", descriptor, Layout(0, size, tuple(buffers)))

    def close(self) -> None:
        """Drop what was written."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _put(self, view: memoryview) -> None:
        if self._has_failed:
            return
        try:
            if self._file is None:
                self._file = new_file()
                write_whole(self._file, b"".join(self._pieces), 0)
                self._pieces.clear()
            self._size = write_whole(self._file, view, self._size)
        except OSError:
            self._has_failed = True


#: Where a part of a file may begin that is to be mapped.
PAGE = max(mmap.PAGESIZE, mmap.ALLOCATIONGRANULARITY)
