"""The shared page through which supervisor and child see each other without a message.

The child writes which task of the batch it runs and since when, so that its death charges exactly that task and the
supervisor knows how long it has run, whatever the child is doing; how far in the batch it has come, so that nobody
takes a task back of which the outcome is on its way; and that it is up. The supervisor writes that nothing more is to
be started. The page is an unnamed file that both map.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import time
from typing import Self

_PAGE_BYTES = 4096
_RUNNING = struct.Struct("=QQ")
_STOP_AT, _UP_AT = 16, 17
_BEGUN = struct.Struct("=Q")
_BEGUN_AT = 24


class Progress:
    """The page. Times are seconds of the monotonic clock, which all processes of a machine share."""

    def __init__(self, descriptor: int) -> None:
        self._page = mmap.mmap(descriptor, _PAGE_BYTES)

    @classmethod
    def create(cls) -> tuple[Self, int]:
        """Return a fresh page and its descriptor, to be handed to the child and then closed."""
        with tempfile.TemporaryFile() as file:
            file.truncate(_PAGE_BYTES)
            descriptor = os.dup(file.fileno())
        return cls(descriptor), descriptor

    def start(self, position: int) -> None:
        """The child starts the task at `position` of its batch."""
        _RUNNING.pack_into(self._page, 0, position + 1, time.monotonic_ns())

    def begin(self, position: int) -> None:
        """The child runs the task at `position`, which was not stopped: it has an outcome, or dies with the child."""
        _BEGUN.pack_into(self._page, _BEGUN_AT, position + 1)

    @property
    def begun(self) -> int:
        """How many positions of the batch, from the first on, the child has come past or runs."""
        return int(_BEGUN.unpack_from(self._page, _BEGUN_AT)[0])

    def clear(self) -> None:
        """The child runs no task."""
        _RUNNING.pack_into(self._page, 0, 0, 0)

    def running(self) -> tuple[int, float] | None:
        """Return which position runs and since when, or None."""
        while True:
            position, since = _RUNNING.unpack_from(self._page)
            if _RUNNING.unpack_from(self._page) == (position, since):
                return (position - 1, since / 1e9) if position else None

    @property
    def is_up(self) -> bool:
        """Tell whether the child has started and takes orders."""
        return self._page[_UP_AT] != 0

    def be_up(self) -> None:
        """The child takes orders from now on."""
        self._page[_UP_AT] = 1

    @property
    def is_stopped(self) -> bool:
        """Tell whether nothing more is to be started."""
        return self._page[_STOP_AT] != 0

    def stop(self) -> None:
        """The supervisor wants nothing more to be started."""
        self._page[_STOP_AT] = 1

    def go_on(self) -> None:
        """The supervisor takes `stop` back, before the next batch, of which nothing has begun."""
        self._page[_STOP_AT] = 0
        _BEGUN.pack_into(self._page, _BEGUN_AT, 0)

    def close(self) -> None:
        """Unmap the page."""
        self._page.close()
