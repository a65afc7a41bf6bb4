"""Which workers there are, as this scheduler last saw them.

Of ten thousand workers the list takes a good part of a second to read. So it is read no more often than leaves most of
the time for runs, and what events and queues ask of it costs the same however many there are.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence

from overnight.service.losses import Loss
from overnight.store.ports import SchedulingStore
from overnight.store.records import WorkerRecord

WORKERS_SECONDS = 2.0
#: Of the scheduler's time, the list may take one part in so many.
LEAST_SHARE = 20
MOST_SEEN = 1000
#: A worker that has given no sign of life for so long may be lost.
SILENT_SECONDS = 7.5
_logger = logging.getLogger("overnight.scheduler")


class Attendance:
    """The workers by instance, and how many serve each queue."""

    def __init__(self, store: SchedulingStore, silent_seconds: float = SILENT_SECONDS) -> None:
        self._store = store
        self._silent_seconds = silent_seconds
        #: The sealed last lines of tasks whose workers are silent or gone, and when these were seen last.
        self._tails: dict[str, tuple[float, bytes]] = {}
        self._known: dict[str, WorkerRecord] = {}
        #: Those that were ever seen, the latest: who has vanished is to be named too.
        self._seen: dict[str, WorkerRecord] = {}
        self._serving: Counter[str] = Counter()
        self._next_at = 0.0
        self._soonest = 0.0

    @property
    def workers(self) -> Sequence[WorkerRecord]:
        """The workers as they were last seen."""
        return list(self._known.values())

    def look_when_due(self, now: float) -> None:
        """Read the list if it is time to; `now` is of the server's clock."""
        if time.monotonic() >= self._next_at:
            self.look()
            self._keep_tails(now)

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
        self._seen |= found
        for instance in list(self._seen)[: -max(MOST_SEEN, len(found))]:
            del self._seen[instance]
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

    def loss_of(self, instance: str | None, batch: str | None) -> Loss:
        """Return what is known of a worker that may be gone, and was to run this batch."""
        worker = self._seen.get(instance or "")
        if worker is None:
            return Loss(batch or "", None)
        return Loss(batch or "", worker, self._tail_of(worker))

    def _keep_tails(self, now: float) -> None:
        """Keep the last lines of tasks whose worker has fallen silent: they go with its registration."""
        silent_since = now - self._silent_seconds
        silent = [one for one in self._known.values() if one.task is not None and one.seen_at < silent_since]
        gone = [(instance, kept) for instance, kept in self._tails.items() if instance not in self._known]
        self._tails = dict(gone[-MOST_SEEN:]) | {one.instance: (one.seen_at, self._tail_of(one)) for one in silent}

    def _tail_of(self, worker: WorkerRecord) -> bytes:
        """Return the last lines that a worker had told when it was seen last."""
        seen_at, tail = self._tails.get(worker.instance, (None, b""))
        return tail if seen_at == worker.seen_at else self._store.read_tail(worker.instance)
