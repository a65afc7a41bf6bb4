"""The memory store as a worker uses it."""

from __future__ import annotations

from collections.abc import Sequence

from overnight.core.states import RunPhase, TaskState
from overnight.store.memory_data import OPEN, Accepted, Dispatched, Hold, MemoryBatch, MemoryRun, members
from overnight.store.memory_quarantine import MemoryQuarantine
from overnight.store.records import (
    QUARANTINED,
    Acceptance,
    Claim,
    ClaimRefused,
    CommitReply,
    Committed,
    Happening,
    LeaseReply,
    Report,
    WorkerRecord,
)

_STOPPING = (RunPhase.CANCELLING, RunPhase.CANCELLED)


class MemoryWorking(MemoryQuarantine):
    """The `WorkingStore` in memory, but for `put_blobs`, which clients use as well."""

    def register(self, worker: WorkerRecord, seconds: float) -> None:
        """Announce the worker for `seconds`."""
        with self._step() as now:
            self._register(worker, now, seconds)

    def heartbeat(
        self, worker: WorkerRecord, seconds: float, leases: Sequence[tuple[str, str]], tail: bytes | None = None
    ) -> list[LeaseReply]:
        """HEARTBEAT: renew registration and leases (run id, batch); one reply per lease."""
        with self._step() as now:
            self._register(worker, now, seconds)
            if tail is not None:
                self.data.tails[worker.instance] = tail
            return [self._renew(run_id, batch, worker, now, seconds) for run_id, batch in leases]

    def _renew(self, run_id: str, name: str, worker: WorkerRecord, now: float, seconds: float) -> LeaseReply:
        run = self.data.runs.get(run_id)
        if run is None:
            return LeaseReply(lost=True, stop=True)
        stop = run.phase is RunPhase.CANCELLING or run.phase.is_over
        held = _held(run, name, worker.instance)
        if held is None or held.hold is None:
            return LeaseReply(lost=True, stop=stop)
        begun = worker.begun_in(run_id, name)
        held.hold.begun = begun if isinstance(begun, int) else held.hold.begun
        self.data.leases[run_id, name] = now + seconds
        return LeaseReply(lost=False, stop=stop)

    def unregister(self, instance: str) -> None:
        """Forget the worker."""
        with self._step():
            self.data.workers.pop(instance, None)
            self.data.tails.pop(instance, None)

    def claim(self, run_id: str, batch: str, instance: str, sequence: int, seconds: float) -> Claim | ClaimRefused:
        """CLAIM: take the batch under a lease of `seconds`."""
        with self._step() as now:
            run = self._touched(run_id, now)
            found = run.batches.get(batch)
            if found is None:
                return ClaimRefused("finished, withdrawn or unknown")
            if found.hold is not None:
                return self._claim_again(run, found, instance, sequence, now + seconds, seconds)
            reason = _reason_to_stop(run)
            if reason:
                back = run.put_back(members(found), batch, TaskState.QUEUED)
                self.data.drop_batch(run, batch)
                run.tell(Happening.RETURNED, batch=batch, tasks=tuple(back))
                return ClaimRefused(reason)
            if found.batch.queue in self._barred(instance, now):
                return ClaimRefused(QUARANTINED)
            mine = [task for task in members(found) if run.is_under(task, batch, TaskState.QUEUED)]
            if not mine:
                self.data.drop_batch(run, batch)
                return ClaimRefused("finished")
            found.hold = Hold(instance, sequence, ["." if task in mine else "-" for task in members(found)])
            for task in mine:
                run.put(task, TaskState.RUNNING)
            run.tell(Happening.CLAIMED, batch=batch, worker=instance, tasks=tuple(mine))
            self.data.leases[run_id, batch] = now + seconds
            return _claim(run, found, mine, seconds)

    def _claim_again(
        self, run: MemoryRun, found: MemoryBatch, instance: str, sequence: int, deadline: float, seconds: float
    ) -> Claim | ClaimRefused:
        hold, name = found.hold, found.batch.batch
        if hold is None or (hold.instance, hold.sequence) != (instance, sequence):
            return ClaimRefused("held")
        mine = [task for task in members(found) if run.is_under(task, name, TaskState.RUNNING)]
        if not mine:
            return ClaimRefused("finished")
        self.data.leases[run.record.run_id, name] = deadline
        return _claim(run, found, mine, seconds)

    def commit(self, run_id: str, batch: str, instance: str, reports: Sequence[Report], seconds: float) -> CommitReply:
        """COMMIT: record outcomes and renew the lease."""
        for report in reports:
            if report.ok and len(report.digest) != 32:
                raise ValueError(f"The digest of a result holds 32 bytes, not {len(report.digest)}.")
        with self._step() as now:
            if run_id not in self.data.runs:
                return CommitReply((Acceptance.SUPERSEDED,) * len(reports), lease_lost=True, stop=True, known=False)
            step = _Commit(self._touched(run_id, now), batch, instance)
            acceptances = tuple(step.take(report) for report in reports)
            step.tell()
            if step.held is not None and "." in step.marks:
                self.data.leases[run_id, batch] = now + seconds
            elif step.held is not None:
                self.data.drop_batch(step.run, batch)
            is_repeat = bool(reports) and step.only_repeats
            return CommitReply(
                acceptances,
                lease_lost=step.held is None and not is_repeat,
                stop=step.run.phase in _STOPPING,
                known=step.known,
            )

    def give_back(self, run_id: str, batch: str, instance: str, tasks: Sequence[int]) -> None:
        """GIVE_BACK: tasks of the batch that have not started become PENDING, nothing charged."""
        with self._step() as now:
            run = self._touched(run_id, now)
            found = _held(run, batch, instance)
            if found is None or found.hold is None:
                return
            marks = found.hold.marks
            places = [at for at, task in enumerate(members(found)) if task in set(tasks) and marks[at] == "."]
            if not places:
                return
            for at in places:
                marks[at] = "-"
            back = run.put_back([members(found)[at] for at in places], batch, TaskState.RUNNING)
            if "." not in marks:
                self.data.drop_batch(run, batch)
            run.tell(Happening.RETURNED, batch=batch, tasks=tuple(back))


class _Commit:
    """One COMMIT under way: the rules of `scripts/commit.lua`, report by report."""

    def __init__(self, run: MemoryRun, batch: str, instance: str) -> None:
        self.run = run
        self.batch = batch
        self.instance = instance
        self.held = _held(run, batch, instance)
        self.marks: list[str] = self.held.hold.marks if self.held and self.held.hold else []
        self.places = {task: at for at, task in enumerate(members(self.held))} if self.held else {}
        self.known = True
        self.only_repeats = True
        self.seen: set[int] = set()
        self.returned: list[int] = []
        self.committed: list[Committed] = []

    def take(self, report: Report) -> Acceptance:
        """Record one report if it is to be accepted."""
        task, run = report.task, self.run
        is_mine = self.held is not None and run.is_under(task, self.batch, TaskState.RUNNING)
        is_first = task not in self.seen
        is_open = run.code(task) in OPEN
        is_new = is_first and is_open and self._is_acceptable(report, is_mine=is_mine)
        accepted = is_new or (is_first and self._is_repeat(report))
        if is_new:
            self._record(report)
        elif not accepted and is_first:
            entry = run.inflight.get(task)
            self.known = self.known and run.code(task) is not None and not (is_open and entry is None)
            if is_mine:
                run.put(task, TaskState.PENDING)
                self.returned.append(task)
                self.seen.add(task)
        self.only_repeats = self.only_repeats and accepted and not is_new
        self._mark(task, "+" if is_new and report.ok else "-")
        return Acceptance.ACCEPTED if accepted else Acceptance.SUPERSEDED

    def _is_acceptable(self, report: Report, *, is_mine: bool) -> bool:
        entry = self.run.inflight.get(report.task)
        if entry is None:
            return False
        if not report.ok:
            return is_mine and not (report.lost and entry.is_void)
        if entry.lineage:
            return report.lineage == entry.lineage
        place = self.places.get(report.task)
        return is_mine and entry.lineage == b"" and place is not None and set(self.marks[:place]) <= {"+"}

    def _is_repeat(self, report: Report) -> bool:
        accepted = self.run.accepted.get(report.task)
        if accepted is None or (accepted.batch, accepted.ok) != (self.batch, report.ok):
            return False
        is_done = self.run.code(report.task) is TaskState.DONE
        return not report.ok or (is_done and self.run.digest(report.task) == report.digest)

    def _record(self, report: Report) -> None:
        task, run = report.task, self.run
        self.seen.add(task)
        run.accepted[task] = Accepted(self.batch, report.ok, report.facts)
        if report.ok:
            run.put(task, TaskState.DONE)
            run.put_digest(task, report.digest)
            run.results[task] = report.record
            run.inflight.pop(task)
            run.errors.pop(task, None)
        else:
            run.put(task, TaskState.TRIED)
            run.errors[task] = report.record
            run.keep_certificate(task, report.certificate)
            if report.lost:
                run.inflight[task] = Dispatched(self.batch, None, tuple(report.lost))
        digest = report.digest if report.ok else b""
        lost = () if report.ok else tuple(report.lost)
        committed = Committed(task, report.ok, digest, report.seconds, report.hopeless, report.died, lost)
        self.committed.append(committed)

    def _mark(self, task: int, mark: str) -> None:
        place = self.places.get(task)
        if place is not None and self.marks[place] == ".":
            self.marks[place] = mark

    def tell(self) -> None:
        """Tell followers what was accepted and what went back."""
        if self.committed:
            told = tuple(self.committed)
            self.run.tell(Happening.COMMITTED, batch=self.batch, worker=self.instance, reports=told)
        if self.returned:
            self.run.tell(Happening.RETURNED, batch=self.batch, tasks=tuple(self.returned))


def _held(run: MemoryRun, batch: str, instance: str) -> MemoryBatch | None:
    """Return a batch if this instance holds it."""
    found = run.batches.get(batch)
    return found if found is not None and found.hold is not None and found.hold.instance == instance else None


def _reason_to_stop(run: MemoryRun) -> str:
    if run.phase is RunPhase.CANCELLING or run.phase.is_over:
        return "cancelled"
    return "paused" if run.record.paused else ""


def _claim(run: MemoryRun, found: MemoryBatch, tasks: Sequence[int], seconds: float) -> Claim:
    lineages = [run.inflight[task].lineage for task in tasks]
    return Claim(
        run.record,
        found.batch.batch,
        found.batch.queue,
        tuple(tasks),
        tuple(run.attempt(task) for task in tasks),
        tuple(b"!" if lineage is None else lineage for lineage in lineages),
        tuple(run.messages.get(task, b"") for task in tasks),
        run.context,
        seconds,
    )
