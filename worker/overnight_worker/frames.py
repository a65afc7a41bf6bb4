"""What a supervisor and its child say to each other: frames over a socket pair.

A frame is ``kind | header length | body length | header | body``. Headers are JSON (that of a success is packed, as
it is the frequent one), bodies are bytes that only the child ever unpickles. Each side reads what has arrived in one
go, so many small outcomes cost one wake-up.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, NamedTuple

from overnight.json_text import decoded, encoded

_FIXED = struct.Struct(">BIQ")
_SUCCESS = struct.Struct(">IddQ")
_READ_BYTES = 1 << 18


class Kind(IntEnum):
    """What a frame is for; the first four go to the child."""

    CONTEXT = 1
    """The surroundings of a run. Header: `RunContext` and the run's id."""
    BLOB = 2
    """A function or shared argument. Header: its digest."""
    FORGET = 3
    """All blobs are to be forgotten."""
    BATCH = 4
    """Tasks to run, in order. Header: rows of `attempts.Order`; body: payloads and dependency results."""
    READY = 5
    """The child runs; header: its process id."""
    SUCCESS = 6
    """A task's result. Header: packed `Success`; body: the serialised result."""
    FAILURE = 7
    """A task's failure. Header: position, texts, times; body: the pickled exception, or nothing."""
    ENDED = 8
    """The batch is through. Header: number of tasks run, threads left over, resident memory in bytes."""
    STALE = 9
    """The child cannot serve this run: modules that it has loaded have changed since."""


class Frame(NamedTuple):
    """A frame as it was received."""

    kind: Kind
    header: bytes
    body: bytes

    def fields(self) -> dict[str, Any]:
        """Return the header's fields."""
        fields: dict[str, Any] = decoded(self.header)
        return fields


class Success(NamedTuple):
    """The header of a success: position in the batch, start (s since the epoch), seconds, peak memory in bytes."""

    position: int
    started: float
    seconds: float
    peak_memory: int


def pack(kind: Kind, fields: object = None, body: bytes = b"") -> bytes:
    """Return a frame with a JSON header."""
    header = encoded(fields)
    return b"".join((_FIXED.pack(kind, len(header), len(body)), header, body))


def pack_success(success: Success, body: bytes) -> bytes:
    """Return the frame of a success."""
    return b"".join((_FIXED.pack(Kind.SUCCESS, _SUCCESS.size, len(body)), _SUCCESS.pack(*success), body))


def success_of(frame: Frame) -> Success:
    """Return the header of a success."""
    return Success(*_SUCCESS.unpack(frame.header))


class FrameReader:
    """Frames from a socket. A frame may arrive in any number of pieces."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._buffer = bytearray()

    def receive(self) -> list[Frame] | None:
        """Read once and return the frames that are complete; None if the other side is gone."""
        try:
            data = self._channel.recv(max(_READ_BYTES, self._lacking()))
        except ConnectionResetError:
            return None
        if not data:
            return None
        self._buffer += data
        return list(self._complete())

    def _lacking(self) -> int:
        if len(self._buffer) < _FIXED.size:
            return 0
        _, header, body = _FIXED.unpack_from(self._buffer)
        return min(int(_FIXED.size + header + body - len(self._buffer)), 1 << 26)

    def _complete(self) -> Iterator[Frame]:
        position = 0
        buffer = self._buffer
        while len(buffer) - position >= _FIXED.size:
            kind, header_length, body_length = _FIXED.unpack_from(buffer, position)
            start = position + _FIXED.size
            middle, end = start + header_length, start + header_length + body_length
            if len(buffer) < end:
                break
            yield Frame(Kind(kind), bytes(buffer[start:middle]), bytes(buffer[middle:end]))
            position = end
        if position:
            del buffer[:position]
