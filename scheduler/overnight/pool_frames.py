"""Frames between a driver and the processes of its pool, over one socket pair for each process.

A frame is a mark, its kind, a ticket, how many descriptors it brings, the length of its body, and the body. The mark
tells frames from whatever else a task may have written to, or put in the place of, a descriptor that is not its own.
Descriptors travel with the first byte of what is sent at once, so those of a frame have come when its body has.

    driver -> process    ENTER (once per run, before the first RUN), RUN, LEAVE (at the end of a run)
    process -> driver    READY (once), BEGINS (before a task with a time limit), OUTCOME (after each task)

With each RUN the driver puts its ticket, one byte, into a pipe of which it keeps the reading end too. The process runs
only what it finds the ticket of. Whoever reads a ticket has it: so the driver takes back a task that has not begun.
What has begun is on the process's board (`pool_board`). An answer bears the ticket of its task: where a task has read
away the RUN of the next one, what answers is the one after that.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from overnight.errors import OvernightError
from overnight.nameless_files import OwnedFile
from overnight.parcels import Layout

_MARK = b"\x00ovpool"
_HEAD = struct.Struct(">7sBBBQ")
_READ_BYTES = 65536
_ANCILLARY_BYTES = socket.CMSG_SPACE(253 * struct.calcsize("i"))
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def take_ticket(pipe: int) -> int | None:
    """Take the next ticket out of the pipe; None if there is none. Never waits, even if a task made it blocking."""
    look = select.poll()
    look.register(pipe, select.POLLIN)
    if not look.poll(0):
        return None
    try:
        return os.read(pipe, 1)[0]
    except (BlockingIOError, IndexError):  # the other side took it first, or closed the pipe
        return None


class Kind(IntEnum):
    """What a frame says."""

    ENTER = 1
    RUN = 2
    READY = 3
    BEGINS = 4
    OUTCOME = 5
    LEAVE = 6


@dataclass(frozen=True, slots=True)
class RunContext:
    """The body of ENTER: the run, its logs, and the surroundings of its driver at its first task (B21)."""

    run_id: str
    log_dir: str | None
    verbosity: int
    fork_tasks: bool
    directory: str
    umask: int
    environment: Mapping[str, str]
    import_paths: Sequence[str]


#: The body of RUN, pickled: id, attempt, timeout, the function's number (0: not shared), the pickled function (None if
#: the process has it under that number), the pickled arguments, and the large results among them: key, which of the
#: frame's descriptors, what lies there.
RunFields = tuple[str, int, float | None, int, bytes | None, bytes, Sequence[tuple[int, int, Layout]]]


class Frame(NamedTuple):
    """What was said; `ticket` is that of the task, 1 to 255, or 0 where it is about none.

    The descriptors belong to whoever takes the frame.
    """

    kind: Kind
    ticket: int
    body: bytes
    descriptors: Sequence[int] = ()


class BrokenChannel(OvernightError):
    """What came through a channel is no frame."""


def packed_frame(kind: Kind, body: bytes = b"", *, ticket: int = 0, descriptors: int = 0) -> bytes:
    """Return a frame, ready to be sent together with so many descriptors."""
    return _HEAD.pack(_MARK, kind, ticket, descriptors, len(body)) + body


def ancillary(descriptors: Sequence[int]) -> list[tuple[int, int, bytes]]:
    """Return what makes `sendmsg` pass descriptors on."""
    if not descriptors:
        return []
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(descriptors)}i", *descriptors))]


class Outgoing:
    """What is still to be sent of a message, and the files that go with its first byte."""

    def __init__(self, data: bytes, files: Sequence[OwnedFile] = ()) -> None:
        self._data = memoryview(data)
        self._files = files

    def __len__(self) -> int:
        return len(self._data)

    def send(self, channel: socket.socket) -> None:
        """Send as much as the channel takes now. Raises OSError as the socket does."""
        if self._files:
            sent = channel.sendmsg([self._data], ancillary([file.descriptor for file in self._files]))
            self._files = ()
        else:
            sent = channel.send(self._data)
        self._data = self._data[sent:]


class FrameReader:
    """Puts frames together from what a socket gives. Usable on blocking and on non-blocking sockets."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._data = bytearray()
        self._descriptors: deque[int] = deque()
        self._is_broken = False
        #: Whether the last read took all that it could, so that there may be more, or found a break.
        self.has_more = False

    def receive(self) -> list[Frame] | None:
        """Return the frames that are complete after one read, perhaps none; None at the end of the stream.

        Raises BlockingIOError if there is nothing to read, BrokenChannel once all frames before the break were
        returned, or OSError as the socket does.
        """
        frames: list[Frame] = []
        if not self._is_broken:
            data, control, _, _ = self._channel.recvmsg(_READ_BYTES, _ANCILLARY_BYTES, _CLOSE_ON_EXEC)
            if control:
                self._take_descriptors(control)
            if not data:
                return None
            self._data += data
            while (complete := self._next()) is not None:
                frames.append(complete)
            # A read ends where other descriptors begin.
            self.has_more = self._is_broken or len(data) == _READ_BYTES or bool(control)
        if self._is_broken and not frames:
            raise BrokenChannel("Something else than a frame was written to the channel of a process.")
        return frames

    def close(self) -> None:
        """Close the descriptors that came and belong to no frame."""
        close_all(self._descriptors)
        self._descriptors.clear()

    def _take_descriptors(self, control: Sequence[tuple[int, int, bytes]]) -> None:
        for level, kind, data in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._descriptors.extend(number for (number,) in struct.iter_unpack("i", data[: len(data) // 4 * 4]))
        if not _CLOSE_ON_EXEC:
            for number in self._descriptors:
                os.set_inheritable(number, False)  # noqa: FBT003 - the function takes no keyword

    def _next(self) -> Frame | None:
        data = self._data
        if len(data) < _HEAD.size:
            return None
        mark, kind, ticket, descriptors, length = _HEAD.unpack_from(data)
        if mark != _MARK:
            self._is_broken = True
            return None
        end = _HEAD.size + length
        if len(data) < end:
            return None
        if descriptors > len(self._descriptors):
            self._is_broken = True
            return None
        body = bytes(memoryview(data)[_HEAD.size : end])
        del data[:end]
        return Frame(Kind(kind), ticket, body, [self._descriptors.popleft() for _ in range(descriptors)])


def close_all(descriptors: Iterable[int]) -> None:
    """Close descriptors."""
    for descriptor in descriptors:
        with suppress(OSError):  # a task may have closed it
            os.close(descriptor)
