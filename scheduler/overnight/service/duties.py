"""The scheduler's periodic duties: keep the epoch, reap leases, know the workers, push lost entries, wake runs.

Each duty has its own interval and remembers when it is due next; the loop waits no longer than until the first.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from overnight import failpoints
from overnight.config import Settings
from overnight.errors import Fenced
from overnight.service.active_run import ActiveRun
from overnight.service.attendance import Attendance
from overnight.service.learned import LearnedDurations
from overnight.service.perform import Performer
from overnight.service.suspects import Suspects
from overnight.store.ports import SchedulingStore
from overnight.store.records import EpochHeld, Happening, RunEvent

_logger = logging.getLogger("overnight.scheduler")

#: How long a batch may be queued before its queue entry is looked for.
ENTRY_PATIENCE = 2.0
#: A batch whose entry was lost so often in a row may not be what the store holds: the run is read again.
PUSHES_UNTIL_READ = 2
DURATIONS_SECONDS = 30.0
#: How often an observer looks at how everything stands.
LOOK_SECONDS = 2.0


@dataclass(slots=True)
class _Due:
    """When a duty was done last, and its interval in seconds."""

    every: float
    next_at: float = 0.0

    def passed(self, now: float) -> bool:
        if now < self.next_at:
            return False
        self.next_at = now + self.every
        return True


class Duties:
    """What must be done from time to time while this scheduler holds the epoch."""

    def __init__(
        self, store: SchedulingStore, performer: Performer, settings: Settings, learned: LearnedDurations
    ) -> None:
        self._store = store
        self._performer = performer
        self._settings = settings
        self._learned = learned
        self._renew = _Due(settings.lease_seconds / 3)
        self._reap = _Due(min(1.0, settings.lease_seconds / 5))
        self._look_for_entries = _Due(ENTRY_PATIENCE / 2)
        self._save_durations = _Due(DURATIONS_SECONDS)
        self._look_around = _Due(LOOK_SECONDS)
        self._attendance = Attendance(store, settings.lease_seconds / 2)
        self._suspects = Suspects(store, settings.quarantine_seconds, self._attendance.host_of)
        self._wakes: list[tuple[float, str]] = []
        self._held_until = 0.0

    def due(self, runs: Mapping[str, ActiveRun], now: float) -> list[str]:
        """Do what is due; return the runs that are to be read again: they, or a batch of theirs, stood still."""
        if self._renew.passed(now):
            self._keep_epoch()
        if runs and self._reap.passed(now):
            self._reap_leases()
        if runs:
            self._attendance.look_when_due(now)
        if self._performer.observer.looks and self._look_around.passed(now):
            self._let_look(runs, now)
        stuck = self._push_lost_entries(runs, now) if runs and self._look_for_entries.passed(now) else []
        if runs and self._save_durations.passed(now):
            self._save(runs)
        return list(dict.fromkeys(stuck + self._still(runs, now)))

    def seconds_to_wait(self, now: float, most: float) -> float:
        """Return how long the loop may wait for events."""
        times = [self._renew.next_at]
        if self._wakes:
            times.append(self._wakes[0][0])
        if self._held_until > now:
            times.append(self._held_until)
        return max(0.0, min(most, min(times) - now))

    def workers_on(self, queue: str) -> int:
        """Return how many workers serve a queue."""
        return self._attendance.on(queue)

    def saw(self, run: ActiveRun, entry: RunEvent, now: float) -> None:
        """A worker did something: one that is not known yet makes the list of workers due."""
        self._performer.observer.heard(run, entry, now)
        if entry.worker:
            self._attendance.saw(entry.worker)
        self._suspects.hear(run, entry)
        if entry.what is Happening.REAPED:
            run.lost_with.update(dict.fromkeys(entry.tasks, self._attendance.loss_of(entry.worker, entry.batch)))

    def wake(self, run_id: str, at: float | None) -> None:
        """Remember that a run wants to be woken at a time."""
        if at is not None:
            heapq.heappush(self._wakes, (at, run_id))

    def woken(self, now: float) -> list[str]:
        """Return the runs whose time has come."""
        due = []
        while self._wakes and self._wakes[0][0] <= now:
            due.append(heapq.heappop(self._wakes)[1])
        return due

    def hold(self, until: float) -> None:
        """Dispatch nothing until then: there is no room."""
        self._held_until = until

    def is_held(self, now: float) -> bool:
        """Tell whether dispatching is held back."""
        return now < self._held_until

    def _keep_epoch(self) -> None:
        epoch = self._performer.epoch
        renewed = self._store.take_epoch(epoch.holder, "", self._settings.lease_seconds)
        if isinstance(renewed, EpochHeld) or renewed.number != epoch.number:
            raise Fenced(f"Epoch {epoch.number} is no longer this scheduler's.")

    def _reap_leases(self) -> None:
        for reaped in self._store.reap(self._performer.epoch):
            _logger.warning(
                "run %s: the worker of batch %s vanished; %d tasks run again",
                reaped.run_id,
                reaped.batch,
                len(reaped.tasks),
            )
            failpoints.reach("scheduler.after_reap")

    def _let_look(self, runs: Mapping[str, ActiveRun], now: float) -> None:
        performer = self._performer
        self._attendance.look_when_due(now)
        performer.observer.look(performer.epoch, runs, self._attendance.workers, performer.depth, self._store.now)

    def _push_lost_entries(self, runs: Mapping[str, ActiveRun], now: float) -> list[str]:
        """Push entries again that are on no queue; return the runs with a batch that is taken and never claimed."""
        for run_id, pushed in self._performer.push_again(runs.values(), now, ENTRY_PATIENCE).items():
            _logger.info("run %s: %d queue entries were lost and pushed again", run_id, pushed)
        stuck = [
            run.run_id
            for run in runs.values()
            if any(waiting.pushes >= PUSHES_UNTIL_READ for waiting in run.waiting.values())
        ]
        for run_id in stuck:
            _logger.info("run %s: a batch is taken from its queue and never claimed, reading again", run_id)
        return stuck

    def _save(self, runs: Mapping[str, ActiveRun]) -> None:
        for run in runs.values():
            self._learned.learn(run.core.durations.export())
        self._store.write_durations(self._learned.given())

    def _still(self, runs: Mapping[str, ActiveRun], now: float) -> list[str]:
        """Return runs of which nothing was heard for a while: hints may have been lost."""
        return [run_id for run_id, run in runs.items() if run.stands_still(now, self._settings.lease_seconds)]
