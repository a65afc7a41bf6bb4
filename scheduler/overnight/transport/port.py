"""The port of the transport. A queue entry names a batch and its run; it carries nothing of a user's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Entry:
    """A queue entry: which batch of which run waits on which queue. An urgent one goes to the front of it."""

    queue: str
    run_id: str
    batch: str
    urgent: bool = field(default=False, compare=False)


class Transport(Protocol):
    """What the scheduler needs of the queues. Raises `errors.Unreachable` like the store."""

    def push(self, entries: Sequence[Entry]) -> None:
        """Add the entries to their queues, in order, urgent ones in front; one that waits already may be doubled."""

    def missing(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return those entries that wait on no queue."""

    def remove(self, entries: Sequence[Entry]) -> None:
        """Take the entries off their queues if they are there."""

    def depth(self, queue: str) -> int:
        """Return the number of entries that wait on the queue."""
