"""The next queue entry, taken while the last task of a batch runs, so that its claim alone is left to do after that.

It is not claimed: whoever dies with it holds no lease, and the scheduler pushes it again. Should the last task turn out
to take far longer than its batch was made for, the entry goes back, for another worker.
"""

from __future__ import annotations

from typing import Protocol

from overnight_worker.batch import ClaimedBatch
from overnight_worker.child_process import ChildProcess
from overnight_worker.tail import NEVER, TAIL_SECONDS


class Desk(Protocol):
    """Where entries come from, as whoever runs a batch sees it."""

    def clear(self) -> None:
        """The entry at hand is needed no more: its batch runs, or it is put back."""

    def take_ahead(self) -> None:
        """Take another entry, if there is one, and keep it for after this batch."""

    def put_back(self) -> None:
        """Give that one back, if there is one."""


class EmptyDesk:
    """A desk on which nothing lies."""

    def clear(self) -> None:
        """Do nothing."""

    def take_ahead(self) -> None:
        """Do nothing."""

    def put_back(self) -> None:
        """Do nothing."""


class Ahead:
    """Watches over the last task of one batch. A task that goes alone may take any time: nothing is taken for it."""

    def __init__(self, batch: ClaimedBatch, desk: Desk) -> None:
        self._last = len(batch.members) - 1
        self._desk = desk
        self._taken = False
        self._put_back_at = NEVER

    @property
    def due_at(self) -> float:
        """When to call `look` whatever the child does, by the monotonic clock."""
        return self._put_back_at

    def look(self, child: ChildProcess, now: float) -> None:
        """Take the next entry once the last task runs, and put it back if that runs for too long."""
        if now >= self._put_back_at:
            self._put_back_at = NEVER
            self._desk.put_back()
        running = child.progress.running()
        if self._last and not self._taken and running is not None and running[0] == self._last:
            self._taken = True
            self._put_back_at = running[1] + TAIL_SECONDS
            self._desk.take_ahead()
