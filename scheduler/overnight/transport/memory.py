"""Queues in this process's memory: the transport of simulations, and the plainest statement of its contract."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from overnight.transport.port import Entry


class MemoryTransport:
    """Queues as lists; `pop` is what a worker does."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Entry]] = {}

    def push(self, entries: Sequence[Entry]) -> None:
        """Add the entries to their queues, in order, urgent ones in front."""
        for entry in dict.fromkeys(entries):
            queue = self._queues.setdefault(entry.queue, deque())
            if entry.urgent:
                queue.appendleft(entry)
            else:
                queue.append(entry)

    def missing(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return those entries that wait on no queue."""
        return [entry for entry in entries if entry not in self._queues.get(entry.queue, ())]

    def remove(self, entries: Sequence[Entry]) -> None:
        """Take the entries off their queues, doubled ones too."""
        gone = set(entries)
        for queue in {entry.queue for entry in entries}:
            self._queues[queue] = deque(entry for entry in self._queues.get(queue, ()) if entry not in gone)

    def depth(self, queue: str) -> int:
        """Return the number of entries that wait on the queue."""
        return len(self._queues.get(queue, ()))

    def pop(self, queue: str) -> Entry | None:
        """Take the oldest entry off a queue; None if it is empty."""
        waiting = self._queues.get(queue)
        return waiting.popleft() if waiting else None
