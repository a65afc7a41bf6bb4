"""The memory store as the scheduler uses it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from overnight.config import LONGEST_TERMS
from overnight.core.events import Flight
from overnight.core.states import IN_FLIGHT, TERMINAL, TRANSITIONS, RunPhase, TaskState
from overnight.store.codec import Cursor
from overnight.store.dispatch_counts import DispatchCounts
from overnight.store.memory_data import Dispatched, MemoryBatch, MemoryRun, SchedulerLease, members
from overnight.store.memory_reading import MemoryReading
from overnight.store.records import Batch, Epoch, EpochHeld, Happening, Reaped, RunEvent, RunSnapshot, Verdict
from overnight.store.scripts import MOST_TASKS

_VERDICTS = (TaskState.PENDING, TaskState.FAILED, TaskState.SKIPPED, TaskState.CANCELLED)
_BY_OTHERS = frozenset({"withdrawn from the queue", "REAP or GIVE_BACK", "INVALIDATE"})
#: What a verdict may change: the transitions that no other script makes, and the same verdict again.
_SETTLING = frozenset(
    {pair for pair, reason in TRANSITIONS.items() if pair[1] in _VERDICTS and reason not in _BY_OTHERS}
    | {(state, state) for state in _VERDICTS}
)


class MemoryScheduling(MemoryReading):
    """The `SchedulingStore` in memory."""

    _seen_changes = -1
    _offset: float | None = None

    @cached_property
    def _dispatched(self) -> DispatchCounts:
        return DispatchCounts()

    def take_epoch(self, holder: str, description: str, seconds: float) -> Epoch | EpochHeld:
        """Take the scheduler lease if it is free, run out or `holder`'s own; also the way to renew it."""
        with self._step() as now:
            lease = self.data.scheduler
            if lease.holder not in ("", holder) and lease.deadline > now:
                lease.deadline = min(lease.deadline, now + LONGEST_TERMS * seconds)
                return EpochHeld(lease.holder, lease.description, lease.deadline - now)
            is_own = lease.holder == holder
            number = lease.number if is_own else lease.number + 1
            shown = lease.description if is_own and not description else description
            self.data.scheduler = SchedulerLease(number, holder, shown, now + seconds)
            return Epoch(number, holder)

    def leave_epoch(self, epoch: Epoch) -> None:
        """Give the lease up. Its holder alone is compared, so a process known to be dead can be made to leave."""
        with self._step():
            if self.data.scheduler.holder == epoch.holder:
                self.data.scheduler = SchedulerLease(self.data.scheduler.number)

    def active_runs(self) -> list[str]:
        """Return the ids of all runs that are not over, oldest first. `wait` tells of changes after this."""
        with self._step():
            self._seen_changes = self.data.changes
            known = [self.data.runs[run_id].record for run_id in self.data.active if run_id in self.data.runs]
        return [run.run_id for run in sorted(known, key=lambda run: (run.created_at, run.run_id))]

    def load_run(self, run_id: str) -> RunSnapshot:
        """Read all that is needed to take the run over, at one instant."""
        with self._step():
            run = self._known(run_id)
            self._dispatched.take(run_id, run.dispatched)
            return RunSnapshot(
                run.record,
                [run.specs[first] for first in sorted(run.specs)],
                bytes(run.states),
                bytes(run.digests),
                [flight for flight in (_flight(run, batch) for batch in run.batches.values()) if flight.tasks],
                dict(run.charges),
                Cursor(f"{run.sequence}-0", run.sequence).text,
                run.invalidations,
                run.lacking(),
                dict(run.repairs),
            )

    def read_specs(self, run_id: str, first: int) -> list[bytes]:
        """Return the sealed chunks from task index `first` on."""
        return self._specs_from(run_id, first)

    def dispatch(
        self, epoch: Epoch, run_id: str, batches: Sequence[Batch], invalidations: int | None = None
    ) -> list[bool]:
        """DISPATCH: see the port. A member whose lineage is empty depends on members of its own batch before it."""
        with self._step() as now:
            self._fence(epoch)
            run = self._touched(run_id, now)
            before = run.dispatched
            heard_all = invalidations in (None, run.invalidations)
            accepted = [_queue(run, batch) if heard_all else _was_accepted(run, batch) for batch in batches]
            self._dispatched.grow(run_id, run.dispatched - before, run.dispatched)
            return accepted

    def withdraw(self, epoch: Epoch, run_id: str, batches: Sequence[str]) -> list[str]:
        """Take back batches that no worker holds. Return those withdrawn."""
        with self._step() as now:
            self._fence(epoch)
            run = self._touched(run_id, now)
            withdrawn = []
            for name in batches:
                batch = run.batches.get(name)
                if batch is not None and batch.hold is None:
                    back = run.put_back(members(batch), name, TaskState.QUEUED)
                    self.data.drop_batch(run, name)
                    run.tell(Happening.RETURNED, batch=name, tasks=tuple(back))
                    withdrawn.append(name)
            return withdrawn

    def settle(self, epoch: Epoch, run_id: str, verdicts: Sequence[Verdict]) -> None:
        """Record verdicts; one that is no transition from where its task stands changes nothing."""
        with self._step() as now:
            self._fence(epoch)
            run = self._touched(run_id, now)
            if run.phase.is_over:
                return
            told = [verdict for verdict in verdicts if _settle(run, verdict)]
            if told:
                run.tell(Happening.SETTLED, verdicts=tuple((one.task, one.state, one.cause) for one in told))

    def finish(self, epoch: Epoch, run_id: str, phase: RunPhase) -> bool:
        """End the run if every task is terminal and its submission complete. False if not."""
        if not phase.is_over:
            raise ValueError(f"A run cannot end in phase {phase.value}.")
        with self._step() as now:
            self._fence(epoch)
            run = self._touched(run_id, now)
            if run.phase.is_over:
                return True
            if run.phase is RunPhase.SUBMITTING or run.count_open():
                return False
            self._end(run, phase, now)
            return True

    def abandon(self, epoch: Epoch, run_id: str) -> bool:
        """ABANDON: end a cancelled run whose tasks cannot all be made terminal. False if it is not cancelled."""
        with self._step() as now:
            self._fence(epoch)
            run = self._touched(run_id, now)
            if run.phase is RunPhase.CANCELLING:
                self._end(run, RunPhase.CANCELLED, now)
            return run.phase.is_over

    def _end(self, run: MemoryRun, phase: RunPhase, now: float) -> None:
        for batch in list(run.batches):
            self.data.drop_batch(run, batch)
        run.inflight.clear()
        run.change(phase=phase, paused=False, ended_at=now)
        run.tell(Happening.ENDED, phase=phase)
        run.expires_at = now + run.record.keep_seconds
        self.data.leave_active(run)

    def note(self, epoch: Epoch, run_id: str, text: str) -> None:
        """Keep with the run what its scheduler has to say to people; an empty text takes the note away."""
        with self._step():
            self._fence(epoch)
            self._known(run_id).change(note=text)

    def reap(self, epoch: Epoch, most: int = 100) -> list[Reaped]:
        """REAP: take back batches whose lease has run out."""
        with self._step() as now:
            self._forgive_a_moved_clock(epoch, now)
            due = sorted((at, name) for name, at in self.data.leases.items() if at <= now)[:most]
            if due:
                self._fence(epoch)
            return [reaped for _, name in due for reaped in self._reap(*name)]

    def _forgive_a_moved_clock(self, epoch: Epoch, now: float) -> None:
        """Give leases a fresh term: all if the clock moved against the monotonic one, else those that last too long."""
        offset = now - self._monotonic() if self._monotonic is not None else 0.0
        is_moved = self._offset is not None and abs(offset - self._offset) > self._heartbeat_seconds
        latest = now + LONGEST_TERMS * self._lease_seconds
        fresh = [name for name, at in self.data.leases.items() if is_moved or at > latest]
        if fresh:
            self._fence(epoch)
            self.data.leases |= dict.fromkeys(fresh, now + self._lease_seconds)
        self._offset = offset

    def _reap(self, run_id: str, name: str) -> Iterable[Reaped]:
        self.data.leases.pop((run_id, name))
        run = self.data.runs.get(run_id)
        batch = run.batches.pop(name, None) if run else None
        if run and batch:
            back = tuple(run.put_back(members(batch), name, TaskState.RUNNING))
            holder = batch.hold.instance if batch.hold is not None else ""
            begun = bool(back) and batch.hold is not None and batch.hold.begun == back[0]
            run.tell(Happening.REAPED, batch=name, worker=holder, tasks=back, begun=begun)
            yield Reaped(run_id, name, back)

    def wait(self, cursors: Mapping[str, str], seconds: float) -> tuple[list[RunEvent], bool]:
        """Wait for events or a change of the set of active runs since `active_runs` or the last such answer.

        A run that is gone, or has lost dispatches of this instance's, is told as a GAP.
        """
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                events, is_changed = self._look(cursors)
                left = deadline - time.monotonic()
                if events or is_changed or left <= 0:
                    return events, is_changed
                self._changed.wait(left)

    def _look(self, cursors: Mapping[str, str]) -> tuple[list[RunEvent], bool]:
        runs = self.data.runs
        gone = [run_id for run_id in cursors if run_id not in runs]
        events = [RunEvent(run_id, cursors[run_id], Happening.GAP) for run_id in gone]
        for run_id in cursors:
            if run_id in runs and self._dispatched.is_lower(run_id, runs[run_id].dispatched):
                events.append(runs[run_id].gap())
            elif run_id in runs:
                events += runs[run_id].events_after(cursors[run_id])
        is_changed = bool(gone) or self._seen_changes != self.data.changes
        self._seen_changes = self.data.changes
        return events, is_changed

    def read_durations(self) -> dict[str, tuple[float, int]]:
        """Return learned durations by function name: seconds and number of observations."""
        with self._step():
            return dict(self.data.durations)

    def flights(self, run_id: str) -> list[Flight]:
        """Return the batches of a run that are in flight."""
        with self._step():
            run = self._known(run_id)
            return [flight for flight in (_flight(run, batch) for batch in run.batches.values()) if flight.tasks]

    def write_durations(self, durations: Mapping[str, tuple[float, int]]) -> None:
        """Store learned durations."""
        with self._step():
            self.data.durations.update(durations)


def check_batch(batch: Batch) -> None:
    """Raise ValueError for a batch that no call can carry."""
    if not 0 < len(batch.tasks) <= MOST_TASKS or len(set(batch.tasks)) != len(batch.tasks):
        raise ValueError(f"A batch holds 1 to {MOST_TASKS} distinct tasks, not {len(batch.tasks)}.")


def _flight(run: MemoryRun, batch: MemoryBatch) -> Flight:
    name = batch.batch.batch
    tasks = tuple(task for task in members(batch) if any(run.is_under(task, name, state) for state in IN_FLIGHT))
    return Flight(name, batch.batch.queue, tasks, batch.hold is not None)


def _queue(run: MemoryRun, batch: Batch) -> bool:
    check_batch(batch)
    if not run.phase.is_over and all(
        run.code(task) is TaskState.PENDING and attempt == min(run.attempt(task) + 1, 255)
        for task, attempt in zip(batch.tasks, batch.attempts, strict=True)
    ):
        run.batches[batch.batch] = MemoryBatch(batch)
        run.dispatched += 1
        for task, attempt, lineage in zip(batch.tasks, batch.attempts, batch.lineages, strict=True):
            run.states[2 * task : 2 * task + 2] = bytes((TaskState.QUEUED, attempt))
            run.inflight[task] = Dispatched(batch.batch, lineage)
        return True
    return _was_accepted(run, batch)


def _was_accepted(run: MemoryRun, batch: Batch) -> bool:
    entries = [run.inflight.get(task) for task in batch.tasks]
    reports = [run.accepted.get(task) for task in batch.tasks]
    named = {one.batch for one in (*entries, *reports) if one is not None}
    return batch.batch in run.batches or batch.batch in named


def _goes_back_from_nowhere(run: MemoryRun, verdict: Verdict) -> bool:
    """Tell whether the verdict puts a task back that is in flight under a batch that is not there."""
    if verdict.state is not TaskState.PENDING or run.code(verdict.task) not in IN_FLIGHT:
        return False
    entry = run.inflight.get(verdict.task)
    return entry is None or entry.batch not in run.batches


def _settle(run: MemoryRun, verdict: Verdict) -> bool:
    """Record one verdict; tell whether the task's state changed."""
    task, before = verdict.task, run.code(verdict.task)
    if before is None or not ((before, verdict.state) in _SETTLING or _goes_back_from_nowhere(run, verdict)):
        return False
    if verdict.charge is not None:
        run.charges[task] = verdict.charge
    if verdict.cause is not None:
        run.causes[task] = verdict.cause
    if verdict.error:
        run.errors[task] = verdict.error
    run.keep_certificate(task, verdict.certificate)
    if before is verdict.state:
        return False
    run.put(task, verdict.state)
    if verdict.state in TERMINAL:
        run.inflight.pop(task, None)
    elif before in TERMINAL:
        run.causes.pop(task, None)
    return True
