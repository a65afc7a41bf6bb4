"""Which workers there are, as this scheduler last saw them.

Of ten thousand workers the list takes a good part of a second to read. So it is read no more often than leaves most of
the time for runs, and what events and queues ask of it costs the same however many there are.
"""

from __future__ import annotations

import logging
import time
from collections import Counter

from overnight.store.ports import SchedulingStore
from overnight.store.records import WorkerRecord

WORKERS_SECONDS = 2.0
#: Of the scheduler's time, the list may take one part in so many.
LEAST_SHARE = 20
_logger = logging.getLogger("overnight.scheduler")


class Attendance:
    """The workers by instance, and how many serve each queue."""

    def __init__(self, store: SchedulingStore) -> None:
        self._store = store
        self._known: dict[str, WorkerRecord] = {}
        self._serving: Counter[str] = Counter()
        self._next_at = 0.0
        self._soonest = 0.0

    def look_when_due(self) -> None:
        """Read the list if it is time to."""
        if time.monotonic() >= self._next_at:
            self.look()

    def look(self) -> None:
        """Read the list."""
        began = time.monotonic()
        found = {worker.instance: worker for worker in self._store.workers()}
        now = time.monotonic()
        self._soonest = now + LEAST_SHARE * (now - began)
        self._next_at = max(began + WORKERS_SECONDS, self._soonest)
        if found.keys() != self._known.keys():
            new, gone = len(found.keys() - self._known.keys()), len(self._known.keys() - found.keys())
            _logger.info("workers: %d (%d new, %d gone)", len(found), new, gone)
        self._known = found
        self._serving = Counter(
            queue for worker in found.values() if not worker.draining for queue in dict.fromkeys(worker.queues)
        )

    def saw(self, instance: str) -> None:
        """A worker did something: one that is not known yet makes the list due."""
        if instance not in self._known:
            self._next_at = min(self._next_at, self._soonest)

    def on(self, queue: str) -> int:
        """Return how many workers serve a queue."""
        return self._serving[queue]

    def host_of(self, instance: str) -> str | None:
        """Return the host of a worker, looking again for one that is not known."""
        if instance not in self._known:
            self.look()
        worker = self._known.get(instance)
        return None if worker is None else worker.host
