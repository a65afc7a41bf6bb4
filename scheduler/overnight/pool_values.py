"""The large results of one run on the pool: the driver keeps where they lie, and hands that on, never the values.

A result stays until its run ends, as tasks may be added that take it (Y2). It begins in a file of its own, as the
process that made it has written it. Beyond `most_files` of these, or `most_bytes` in them, the oldest moves to one file
on disk that all such results share: so neither descriptors nor memory grow with the number of results.

Among the arguments of a later task a `SharedValue` stands for its value (`StandIn`). Pickled, it becomes a call of
`pool_arrivals.arrived`, which gives the value in the process where the file has come with the task.
"""

from __future__ import annotations

import logging
import os
import resource
import weakref
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any, NamedTuple

import psutil

from overnight.invoke import Outcome, StandIn
from overnight.nameless_files import OwnedFile, for_reading, new_file_on_disk, write_whole
from overnight.outcome_message import unpack_outcome
from overnight.parcels import LARGEST_INLINE_BYTES, PAGE, Layout, open_parcel, parcel_of
from overnight.pickling import loads
from overnight.pool_arrivals import arrived
from overnight.pool_frames import Frame, close_all

#: One message carries at most 253 descriptors (Linux, `SCM_MAX_FD`).
MOST_FILES = 200
MOST_BYTES = 1 << 30
_COPY_BYTES = 1 << 24

_logger = logging.getLogger(__name__)


class Place(NamedTuple):
    """A file, which is closed when no place in it is referred to any more, and what lies in it."""

    file: OwnedFile
    layout: Layout


class SharedValue(StandIn):
    """One large result. Called, it gives the value, loaded anew."""

    def __init__(self, key: int, place: Place) -> None:
        self.key = key
        self.place = place

    def __call__(self) -> Any:
        """Return the value."""
        return self.outcome().value

    def outcome(self) -> Outcome:
        """Return the outcome with the value, loaded anew."""
        return open_parcel(self.place.file.descriptor, self.place.layout)

    def __reduce__(self) -> tuple[Callable[[int], Any], tuple[int]]:
        return arrived, (self.key,)


class SharedValues:
    """All large results of a run."""

    def __init__(self, most_files: int | None = None, most_bytes: int | None = None) -> None:
        self._most_files = _affordable_files() if most_files is None else most_files
        self._most_bytes = _affordable_bytes() if most_bytes is None else most_bytes
        self._keys = count(1)
        #: Those in files of their own. What nobody refers to any more leaves by itself.
        self._single: weakref.WeakValueDictionary[int, SharedValue] = weakref.WeakValueDictionary()
        self._common: OwnedFile | None = None
        self._end = 0

    def opened(self, frame: Frame) -> Outcome:
        """Return the outcome of a frame; a large result can be loaded once more. Raises whatever is wrong with it."""
        if not frame.descriptors:
            outcome = unpack_outcome(frame.body)
            if not outcome.ok or len(frame.body) <= LARGEST_INLINE_BYTES:
                return outcome
            return replace(outcome, load=self.keep(frame.body))
        close_all(frame.descriptors[1:])
        value = self.take(frame.descriptors[0], Layout(*loads(frame.body)))
        outcome = value.outcome()
        return replace(outcome, load=value) if outcome.ok else outcome

    def take(self, descriptor: int, layout: Layout) -> SharedValue:
        """Take over a result that lies in a file of its own. Raises EOFError if it is not all there."""
        file = OwnedFile(descriptor)
        if os.fstat(descriptor).st_size < layout.begin + layout.total:
            raise EOFError("A result came in a file that does not hold all of it.")
        value = SharedValue(next(self._keys), Place(file, layout))
        self._single[value.key] = value
        self._make_room()
        return value

    def keep(self, message: bytes) -> SharedValue | None:
        """Put a packed outcome that came as bytes into a file; None if that cannot be."""
        parcel = parcel_of(message)
        if parcel.descriptor is None or parcel.layout is None:
            _logger.warning("A large result stays in memory, no temporary file can be written.")
            return None
        return self.take(parcel.descriptor, parcel.layout)

    def _make_room(self) -> None:
        """Move the oldest results out of files of their own, as long as there are too many, or too much in them."""
        while len(self._single) > self._most_files or self._bytes_apart() > self._most_bytes:
            value = self._single[min(self._single)]
            try:
                value.place = self._moved(value.place)
            except OSError as error:
                _logger.warning("A large result stays where it is, the temporary file cannot be written: %s", error)
                return
            del self._single[value.key]

    def _bytes_apart(self) -> int:
        return sum(value.place.layout.total for value in self._single.values())

    def _moved(self, place: Place) -> Place:
        """Copy what lies at a place to the end of the common file."""
        if self._common is None:
            self._writing = OwnedFile(new_file_on_disk())
            self._common = OwnedFile(for_reading(self._writing.descriptor))
        size = place.layout.total
        begin = position = self._end
        for start in range(0, size, _COPY_BYTES):
            piece = os.pread(place.file.descriptor, min(_COPY_BYTES, size - start), place.layout.begin + start)
            position = write_whole(self._writing.descriptor, piece, position)
        self._end = position + -position % PAGE
        return Place(self._common, place.layout.moved(begin))


def _affordable_files() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_FILES if soft == resource.RLIM_INFINITY else min(MOST_FILES, max(8, soft // 5))


def _affordable_bytes() -> int:
    return min(MOST_BYTES, psutil.virtual_memory().total // 8)
