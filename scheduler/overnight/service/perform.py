"""Carry out what the core wants: dispatches, verdicts, withdrawals, the end of a run.

Actions of one tick are gathered per run and written together. Everything written is fenced by the epoch and may be
repeated. Where the store refuses, what this process believed was wrong: the run is read again.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from overnight import failpoints
from overnight.core.actions import Action, Again, Dispatch, Ended, Repair, RunEnded, StopBatch, WakeAt
from overnight.core.repairs import MOST_REPAIRS
from overnight.core.states import RunPhase, TaskState
from overnight.errors import InputLost, TaskDied
from overnight.keyring import Keyring
from overnight.messages import StoredError
from overnight.naming import shown
from overnight.pickling import dump_exception, type_name
from overnight.service.active_run import ActiveRun, Waiting
from overnight.service.observer import Observer
from overnight.store.ports import SchedulingStore
from overnight.store.records import Batch, Epoch, Verdict
from overnight.structure import Structure
from overnight.transport.port import Entry, Transport

_logger = logging.getLogger("overnight.scheduler")

_RECORDED_BY_COMMIT = frozenset({TaskState.DONE, TaskState.CACHED})
LOST_TOO_OFTEN = "its worker was lost too often"


@dataclass(slots=True)
class Work:
    """The actions of one tick for one run, sorted by the step that carries them out."""

    repairs: list[Repair] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    urgent: set[str] = field(default_factory=set)
    stops: list[str] = field(default_factory=list)
    wake_at: float | None = None
    phase: RunPhase | None = None
    structure: Structure | None = None


class Performer:
    """Writes the actions of runs to store and transport under one epoch."""

    def __init__(
        self,
        store: SchedulingStore,
        transport: Transport,
        keyring: Keyring,
        epoch: Epoch,
        observer: Observer | None = None,
    ) -> None:
        self._store = store
        self._transport = transport
        self._keyring = keyring
        self.epoch = epoch
        self.observer = observer or Observer()

    def perform(self, run: ActiveRun, actions: Iterable[Action], now: float) -> Work:
        """Carry out `actions`; return what was gathered, so that the caller sees wake-up time and end.

        Raises Diverged if the store holds another truth than the core; StoreFull if there is no room to dispatch.
        """
        work = self._gather(run, actions)
        self._repair(run, work)
        self._settle(run, work)
        self._withdraw(run, work)
        self._dispatch(run, work, now)
        if work.phase is not None:
            run.over = work.phase
        return work

    def finish(self, run: ActiveRun) -> bool:
        """Record the end of a run whose tasks are all terminal; False while the store sees it otherwise."""
        if run.over is None:
            return False
        failpoints.reach("scheduler.before_audit")
        if not self._store.finish(self.epoch, run.run_id, run.over):
            return False
        self.observer.ended(run.over)
        counts = {state.name.lower(): number for state, number in run.core.counts().items() if number}
        _logger.info("run %s ended: %s %s", run.run_id, run.over.value, counts)
        return True

    def push_again(self, runs: Iterable[ActiveRun], now: float, patience: float) -> Counter[str]:
        """Push batches that should have waited on a queue for longer than `patience` seconds and do not; count them by
        run."""
        due = [
            (run, batch, waiting)
            for run in runs
            for batch, waiting in run.waiting.items()
            if now - waiting.since > patience
        ]
        missing = self._transport.missing([Entry(waiting.queue, run.run_id, batch) for run, batch, waiting in due])
        self._transport.push(missing)
        lost = {entry.batch for entry in missing}
        for run, batch, waiting in due:
            run.waiting[batch] = Waiting(waiting.queue, now, waiting.pushes + 1 if batch in lost else 0)
        return Counter(entry.run_id for entry in missing)

    def depth(self, queue: str) -> int:
        """Return how many entries wait on a queue."""
        return self._transport.depth(queue)

    def _gather(self, run: ActiveRun, actions: Iterable[Action]) -> Work:
        work = Work()
        for action in actions:
            match action:
                case Dispatch(batch, queue, tasks, attempts, urgent):
                    queue = queue or run.record.queue
                    work.batches.append(run.batch(batch, queue, tasks, attempts))
                    work.urgent.update({batch} if urgent else ())
                case Repair():
                    work.repairs.append(action)
                case Ended(task, state, cause, lost, lacked) if state not in _RECORDED_BY_COMMIT:
                    error = self._death(run, task) if lost else self._lack(run, work, task, lacked)
                    certificate = self._certificate(run, task) if lost else None
                    work.verdicts.append(Verdict(task, state, cause=cause, error=error, certificate=certificate))
                case Again(task, charge):
                    certificate = self._certificate(run, task) if charge.losses else None
                    work.verdicts.append(Verdict(task, TaskState.PENDING, charge=charge, certificate=certificate))
                case StopBatch(batch):
                    work.stops.append(batch)
                case WakeAt(time):
                    work.wake_at = time if work.wake_at is None else min(work.wake_at, time)
                case RunEnded(phase):
                    work.phase = phase
        return work

    def _death(self, run: ActiveRun, task: int) -> bytes:
        charge = run.core.charge(task)
        row = f"{charge.losses} times in a row, at least {charge.begun} of them while it ran"
        error = TaskDied(f"The task ended without a result: {LOST_TOO_OFTEN}, {row}.")
        stored = StoredError("overnight.errors.TaskDied", str(error), "", dump_exception(error))
        return stored.sealed(run.run_id, task, self._keyring)

    def _lack(self, run: ActiveRun, work: Work, task: int, lacked: int | None) -> bytes | None:
        """Say what a task lacked that may not be computed again any more; None if it lacked nothing."""
        if lacked is None:
            return None
        if work.structure is None:
            work.structure = Structure(run.run_id, self._store.read_specs(run.run_id, 0), self._keyring)
        name = shown(work.structure.task_id(lacked))
        error = InputLost(
            f"The result of {name!r} was lost or damaged again after it had been computed again {MOST_REPAIRS} times; "
            "look at the place where it is kept, or for a worker that cannot read it."
        )
        stored = StoredError(type_name(InputLost), str(error), "", dump_exception(error))
        return stored.sealed(run.run_id, task, self._keyring)

    def _certificate(self, run: ActiveRun, task: int) -> bytes | None:
        """Certify the end of an attempt whose worker vanished; None if that is not what was heard of it."""
        if task not in run.lost_with:
            return None
        attempt, noticed = run.core.attempt(task), run.moved_at
        lost = run.lost_with[task].certificate(run.run_id, task, attempt, noticed, self._keyring)
        return lost.sealed(run.run_id, task, self._keyring)

    def _repair(self, run: ActiveRun, work: Work) -> None:
        for repair in work.repairs:
            before = max(run.invalidations, run.invalidated)
            after = self._store.repair(self.epoch, run.run_id, repair.lost, repair.tasks, before)
            if after is None:
                raise Diverged(run.run_id)
            run.invalidated = after
            _logger.warning(
                "run %s: the results of %d tasks are lost and are computed again, with %d that may depend on them",
                run.run_id,
                len(repair.lost),
                len(repair.tasks) - len(repair.lost),
            )
            failpoints.reach("scheduler.after_repair")

    def _settle(self, run: ActiveRun, work: Work) -> None:
        if work.verdicts:
            self._store.settle(self.epoch, run.run_id, work.verdicts)
        run.lost_with.clear()

    def _withdraw(self, run: ActiveRun, work: Work) -> None:
        if not work.stops:
            return
        withdrawn = self._store.withdraw(self.epoch, run.run_id, work.stops)
        queued = [(run.waiting.pop(batch, None), batch) for batch in withdrawn]
        self._transport.remove([Entry(waiting.queue, run.run_id, batch) for waiting, batch in queued if waiting])

    def _dispatch(self, run: ActiveRun, work: Work, now: float) -> None:
        if not work.batches:
            return
        failpoints.reach("scheduler.before_dispatch")
        accepted = self._store.dispatch(self.epoch, run.run_id, work.batches, run.invalidations)
        taken = [batch for batch, ok in zip(work.batches, accepted, strict=True) if ok]
        failpoints.reach("scheduler.after_dispatch")
        self._transport.push(
            [Entry(batch.queue, run.run_id, batch.batch, urgent=batch.batch in work.urgent) for batch in taken]
        )
        failpoints.reach("scheduler.after_enqueue")
        self.observer.dispatched(taken)
        for batch in taken:
            run.waiting[batch.batch] = Waiting(batch.queue, now)
        if len(taken) < len(work.batches):
            raise Diverged(run.run_id)


class Diverged(Exception):
    """The store refused what the core took for granted: the run must be read again."""
