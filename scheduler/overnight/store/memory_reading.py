"""The memory store as people's commands and followers use it; and the base of its other roles."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from overnight.config import HEARTBEAT_SECONDS, LEASE_SECONDS
from overnight.errors import Fenced, Refused, UnknownRun
from overnight.store.codec import NO_CHARGE, NO_DIGEST
from overnight.store.keys import UNTOUCHED_SECONDS
from overnight.store.memory_data import MemoryData, MemoryRun
from overnight.store.records import Epoch, EpochHeld, RunEvent, RunRecord, TaskView, WorkerRecord


class MemoryReading:
    """The `ReadingStore` in memory. `now` is the clock by which leases and lifetimes run out; where it moves against
    `monotonic` by more than a heartbeat, leases get a fresh term. Without `monotonic` it never does.

    Any number of threads may use one store; each method is one atomic step.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] | None = None,
        *,
        lease_seconds: float = LEASE_SECONDS,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self.data = MemoryData()
        self._clock = now
        self._monotonic = monotonic
        self._lease_seconds = lease_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._changed = threading.Condition(threading.RLock())

    @contextmanager
    def _step(self) -> Iterator[float]:
        """Do one atomic step at one time of the clock, then let those who wait look again."""
        with self._changed:
            now = self._clock()
            self.data.expire(now)
            yield now
            self._changed.notify_all()

    def _known(self, run_id: str) -> MemoryRun:
        run = self.data.runs.get(run_id)
        if run is None:
            raise UnknownRun(f"The server knows no run {run_id}.")
        return run

    def _touched(self, run_id: str, now: float) -> MemoryRun:
        """Return a run that is about to change, its lifetime renewed unless it is over."""
        run = self._known(run_id)
        if not run.phase.is_over:
            run.expires_at = now + UNTOUCHED_SECONDS
        return run

    def _fence(self, epoch: Epoch) -> None:
        lease = self.data.scheduler
        if (lease.number, lease.holder) != (epoch.number, epoch.holder):
            raise Fenced("Another scheduler has taken over the right to dispatch.")

    def _reopen(self, run: MemoryRun, now: float) -> None:
        """Make a run active again if it had ended."""
        if run.phase.is_over:
            self.data.reopen(run, now)

    def _check_way(self, run: MemoryRun) -> None:
        """Raise Refused if another run keeps an ended one from becoming active again."""
        other = self.data.in_the_way(run.record) if run.phase.is_over else None
        if other is not None:
            raise Refused(f"Run {run.record.run_id} cannot go on: run {other} works on the same graph or place.")

    def runs(self) -> list[RunRecord]:
        """Return all runs that are kept, newest first."""
        with self._step():
            found = [run.record for run in self.data.runs.values()]
        return sorted(found, key=lambda run: (run.created_at, run.run_id), reverse=True)

    def run(self, run_id: str) -> RunRecord:
        """Return one run."""
        with self._step():
            return self._known(run_id).record

    def states(self, run_id: str) -> bytes:
        """Return the state string: two bytes a task."""
        with self._step():
            return bytes(self._known(run_id).states)

    def context(self, run_id: str) -> bytes:
        """Return the run's sealed context."""
        with self._step():
            return self._known(run_id).context

    def specs(self, run_id: str) -> list[bytes]:
        """Return all sealed chunks in order."""
        return self._specs_from(run_id, 0)

    def _specs_from(self, run_id: str, first: int) -> list[bytes]:
        with self._step():
            specs = self._known(run_id).specs
            return [specs[start] for start in sorted(specs) if start >= first]

    def tasks(self, run_id: str, tasks: Sequence[int]) -> list[TaskView]:
        """Return what is known of these tasks; those that the run does not hold are left out."""
        with self._step():
            run = self._known(run_id)
            return [self._view(run, task) for task in tasks if run.code(task) is not None]

    def _view(self, run: MemoryRun, task: int) -> TaskView:
        state, accepted = run.code(task), run.accepted.get(task)
        if state is None:
            raise UnknownRun(f"Run {run.record.run_id} has no task {task}.")
        return TaskView(
            task,
            state,
            run.attempt(task),
            run.charges.get(task, NO_CHARGE),
            run.causes.get(task),
            None if accepted is None else accepted.facts,
            run.errors.get(task),
        )

    def read_results(self, run_id: str, tasks: Iterable[int]) -> dict[int, bytes]:
        """Return sealed results by task; missing ones are left out."""
        with self._step():
            results = self._known(run_id).results
            return {task: results[task] for task in tasks if task in results}

    def read_blobs(self, run_id: str, digests: Sequence[str]) -> dict[str, bytes]:
        """Return sealed blobs by digest; missing ones are left out."""
        with self._step():
            blobs = self._known(run_id).blobs
            return {digest: blobs[digest] for digest in digests if digest in blobs}

    def read_digests(self, run_id: str, tasks: Iterable[int]) -> list[bytes]:
        """Return the digests of the tasks' results in the given order (zeros: none)."""
        with self._step():
            run = self._known(run_id)
            return [run.digest(task) if run.code(task) is not None else NO_DIGEST for task in tasks]

    def workers(self) -> list[WorkerRecord]:
        """Return the workers whose registration is alive."""
        with self._step() as now:
            found = [worker for deadline, worker in self.data.workers.values() if deadline > now]
        return sorted(found, key=lambda worker: (worker.host, worker.started_at, worker.instance))

    def scheduler(self) -> EpochHeld | None:
        """Return who holds the right to dispatch, None if no scheduler does."""
        with self._step() as now:
            lease = self.data.scheduler
        left = lease.deadline - now
        return EpochHeld(lease.holder, lease.description, left) if lease.holder and left > 0 else None

    def follow(self, run_id: str, cursor: str, seconds: float) -> list[RunEvent]:
        """Return events after `cursor` ("0": from the first kept one), waiting up to `seconds` for one."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                events = self._known(run_id).events_after(cursor)
                left = deadline - time.monotonic()
                if events or left <= 0:
                    return events
                self._changed.wait(left)

    def now(self) -> float:
        """Return the store's clock in seconds."""
        return self._clock()

    def _register(self, worker: WorkerRecord, now: float, seconds: float) -> None:
        gone = [instance for instance, (deadline, _) in self.data.workers.items() if deadline <= now]
        for instance in gone:
            del self.data.workers[instance]
            self.data.tails.pop(instance, None)
        seen = replace(worker, queues=tuple(worker.queues), seen_at=now)
        self.data.workers[worker.instance] = (now + seconds, seen)
