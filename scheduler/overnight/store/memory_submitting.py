"""The memory store as a client uses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from overnight.core.states import SUCCEEDED, RunPhase, TaskState
from overnight.errors import AddedMeanwhile, Refused, UnknownRun
from overnight.store.codec import NO_DIGEST, next_made
from overnight.store.keys import UNTOUCHED_SECONDS
from overnight.store.memory_data import MemoryRun
from overnight.store.memory_reading import MemoryReading
from overnight.store.records import Addition, Adopted, Happening, Opened, Opening, Request, RunRecord

_RETRIED = frozenset({TaskState.FAILED, TaskState.SKIPPED, TaskState.CANCELLED})


class MemorySubmitting(MemoryReading):
    """The `SubmittingStore` in memory."""

    def open_run(self, run: RunRecord, context: bytes) -> Opened:
        """SUBMIT: see the port."""
        with self._step() as now:
            data = self.data
            if run.run_id in data.runs:
                return Opened(Opening.CREATED, data.runs[run.run_id].record)
            same = data.active_in(data.graphs, run.key, run)
            if same is not None:
                return Opened(Opening.ATTACHED, data.runs[same].record)
            user = data.active_in(data.places, run.place, run)
            if user is not None:
                return Opened(Opening.BUSY, data.runs[user].record)
            record = replace(run, phase=RunPhase.SUBMITTING, paused=False, added=0, created_at=now, ended_at=None)
            made = data.runs[run.run_id] = MemoryRun(record, context, now + UNTOUCHED_SECONDS)
            data.enter_active(made, now)
            return Opened(Opening.CREATED, record)

    def put_blobs(self, run_id: str, blobs: Mapping[str, bytes]) -> None:
        """Store sealed blobs by digest; present ones are kept."""
        with self._step() as now:
            stored = self._touched(run_id, now).blobs
            for digest, blob in blobs.items():
                stored.setdefault(digest, blob)

    def missing_blobs(self, run_id: str, digests: Sequence[str]) -> list[str]:
        """Return those of `digests` that the run does not hold yet."""
        with self._step():
            stored = self._known(run_id).blobs
            return [digest for digest in digests if digest not in stored]

    def add_tasks(self, run_id: str, addition: Addition) -> None:
        """Add tasks: see the port."""
        with self._step() as now:
            run = self._touched(run_id, now)
            added = run.record.added
            if addition.first < added and run.specs.get(addition.first) == addition.spec:
                return
            if addition.first != added:
                raise AddedMeanwhile(run_id, added, addition.first)
            if any(digest not in run.blobs for digest in addition.blobs):
                raise UnknownRun(f"The server knows no run {run_id} with all of its functions and arguments.")
            self._check_way(run)
            self._append(run, addition)
            self._reopen(run, now)
            run.tell(Happening.ADDED, tasks=tuple(sorted(addition.adopted)))

    def _append(self, run: MemoryRun, addition: Addition) -> None:
        run.specs[addition.first] = addition.spec
        run.messages.update(addition.messages)
        for task in range(addition.first, addition.first + addition.count):
            adopted = addition.adopted.get(task)
            run.states += bytes((TaskState.PENDING if adopted is None else TaskState.CACHED, 0))
            run.digests += NO_DIGEST if adopted is None else adopted.digest
            if adopted is not None:
                run.results[task] = adopted.record
        added = run.record.added + addition.count
        run.change(added=added, total=max(run.record.total, added), made=next_made(run.record.made, addition.spec))

    def activate(self, run_id: str, tasks: int = 0) -> None:
        """Submission is complete; `wait` tells schedulers as of a change of the active runs."""
        with self._step() as now:
            run = self._touched(run_id, now)
            if run.record.added < tasks:
                raise UnknownRun(f"The server knows no run {run_id} of so many tasks.")
            if run.phase is RunPhase.SUBMITTING:
                run.change(phase=RunPhase.ACTIVE)
                self.data.changes += 1

    def adopt(self, run_id: str, adopted: Mapping[int, Adopted]) -> list[int]:
        """ADOPT: PENDING tasks become CACHED. Return those that did, or had with the same digest."""
        with self._step() as now:
            run = self._touched(run_id, now)
            fresh = [task for task in adopted if run.code(task) is TaskState.PENDING]
            for task in fresh:
                run.put(task, TaskState.CACHED)
                run.put_digest(task, adopted[task].digest)
                run.results[task] = adopted[task].record
                run.inflight.pop(task, None)
                run.errors.pop(task, None)
            if fresh:
                run.tell(Happening.SETTLED, verdicts=tuple((task, TaskState.CACHED, None) for task in fresh))
            return [
                task
                for task, one in adopted.items()
                if run.code(task) is TaskState.CACHED and run.digest(task) == one.digest
            ]

    def rewrite_result(self, run_id: str, task: int, record: bytes, digest: bytes) -> bool:
        """Replace where a result lies. False if the digest differs or the task has no result."""
        with self._step() as now:
            run = self._touched(run_id, now)
            if run.code(task) not in SUCCEEDED or run.digest(task) != digest:
                return False
            run.results[task] = record
            return True

    def request(self, run_id: str, request: Request, tasks: Sequence[int] = ()) -> None:
        """Carry a request out and tell followers. RETRY of a run that is being cancelled raises Refused."""
        with self._step() as now:
            run = self._touched(run_id, now)
            if request is Request.RETRY:
                self._retry(run, tasks, now)
            elif not run.phase.is_over and _changes(run, request):
                if request is Request.CANCEL:
                    run.change(phase=RunPhase.CANCELLING)
                else:
                    run.change(paused=request is Request.PAUSE)
                run.tell(Happening.REQUESTED, request=request)

    def mend(self, run_id: str, tasks: Sequence[int]) -> None:
        """Retry tasks, unless somebody has cancelled the run."""
        with self._step() as now:
            run = self._touched(run_id, now)
            if run.phase not in (RunPhase.CANCELLING, RunPhase.CANCELLED):
                self._retry(run, tasks, now)

    def _retry(self, run: MemoryRun, tasks: Sequence[int], now: float) -> None:
        """Retry failed and cancelled tasks, those that were skipped because of them, and what skipped ones wait for."""
        wanted = set(tasks).union(run.causes[task] for task in tasks if task in run.causes)
        chosen = [
            task
            for task, code in enumerate(run.states[::2])
            if code in _RETRIED and (not wanted or task in wanted or run.causes.get(task) in wanted)
        ]
        if not chosen:
            return
        if run.phase is RunPhase.CANCELLING:
            raise Refused(f"Run {run.record.run_id} is being cancelled; ask again when it has ended.")
        self._check_way(run)
        told = tuple(task for task in chosen if run.code(task) is not TaskState.SKIPPED)
        for task in chosen:
            run.put(task, TaskState.PENDING)
            run.charges.pop(task, None)
            run.causes.pop(task, None)
        run.repairs.clear()
        run.change(retried=run.record.retried + 1)
        self._reopen(run, now)
        if told:
            run.tell(Happening.REQUESTED, request=Request.RETRY, tasks=told)


def _changes(run: MemoryRun, request: Request) -> bool:
    if request is Request.CANCEL:
        return run.phase is not RunPhase.CANCELLING
    return run.record.paused is (request is Request.RESUME)
