"""Planted bugs: each breaks one rule of the product, and a simulation that is worth its time finds each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from overnight import flag_files, flag_writing, flags, inspection
from overnight.audit import Audit, Findings
from overnight.core import repairs
from overnight.core.states import TaskState
from overnight.service.duties import Duties
from overnight.service.window import Window
from overnight.store import memory_scheduling, memory_working
from overnight.store.memory_data import Dispatched, MemoryBatch, MemoryRun
from overnight.store.memory_reading import MemoryReading
from overnight.store.memory_scheduling import MemoryScheduling
from overnight.store.memory_working import MemoryWorking
from overnight.store.records import Batch, Claim, ClaimRefused, Happening, Reaped, Report
from overnight_worker import report
from overnight_worker.delivery import Delivery
from overnight_worker.inputs import Inputs
from overnight_worker.report import Reporter
from overnight_worker.session import Session
from tests.support.simulation.oracle import Oracle
from tests.support.simulation.server import Server
from tests.support.simulation.world import World

Plant = Callable[[ExitStack], None]


def _replace(owner: Any, name: str, value: Any) -> Plant:
    return lambda stack: stack.enter_context(patch.object(owner, name, value)) and None


def _both(*plants: Plant) -> Plant:
    def plant(stack: ExitStack) -> None:
        for one in plants:
            one(stack)

    return plant


def _no_audit(_self: Audit) -> Findings:
    return Findings()


NO_AUDIT = _replace(Audit, "run", _no_audit)


def _none_unproven(self: Audit, finished: list[int], _id_of: Callable[[int], str]) -> list[int]:
    """Take whatever is done for proven."""
    self._proven.update(dict.fromkeys(finished))
    return []


# What the client believes.


def _any_flag(stack: ExitStack) -> None:
    """Neither length nor digest of a body are looked at: what is torn counts."""
    stack.enter_context(patch.object(flags, "_check_body", lambda *_: None))
    for module in (flags, flag_files):
        stack.enter_context(patch.object(module, "check_place", lambda *_: None))


# What the worker does.


def _no_look(_self: Inputs, _batch: Any, _directory: str | None) -> list[Any]:
    return []


def _overwriting(directory: str, group: Sequence[tuple[Any, str, bytes]], *_: Any, **__: Any) -> Any:
    return flag_writing.write_flags(directory, [(name, data) for _, name, data in group])


def _flag_after_commit(stack: ExitStack) -> None:
    write, take = Reporter._write_flags, Delivery._take
    waiting: dict[Reporter, tuple[Any, list[Any]]] = {}

    def later(self: Reporter, batch: Any, members: Sequence[Any]) -> dict[int, str]:
        waiting[self] = (batch, [*waiting.get(self, (batch, []))[1], *members])
        return {}

    def taken(self: Delivery, reply: Any) -> None:
        take(self, reply)
        if self._reporter in waiting:
            write(self._reporter, *waiting.pop(self._reporter))

    stack.enter_context(patch.object(Reporter, "_write_flags", later))
    stack.enter_context(patch.object(Delivery, "_take", taken))


def _gives_back_what_runs(stack: ExitStack) -> None:
    beat = Session._beat

    def generous(self: Session) -> None:
        beat(self)
        self._give_back([member.task for member in self._batch.open_members()])

    stack.enter_context(patch.object(Session, "_beat", generous))


# What the scripts check.


def _reap_of_a_snapshot(self: MemoryScheduling, epoch: Any, most: int = 100) -> list[Reaped]:
    """Act on what the last look found: without looking at deadline, holder and state again."""
    with self._step() as now:
        self._fence(epoch)
        seen = getattr(self, "_seen_due", [])
        self._seen_due = [  # type: ignore[attr-defined]
            (run_id, name, tuple(run.batches[name].batch.tasks))
            for (run_id, name), at in self.data.leases.items()
            if at <= now + 1.0 and (run := self.data.runs.get(run_id)) and name in run.batches
        ]
        reaped = []
        for run_id, name, tasks in seen:
            run = self.data.runs.get(run_id)
            if run is not None:
                for task in tasks:
                    run.put(task, TaskState.PENDING)
                self.data.drop_batch(run, name)
                run.tell(Happening.REAPED, batch=name, tasks=tasks)
                reaped.append(Reaped(run_id, name, tasks))
        return reaped


def _claim_once(*_: Any) -> ClaimRefused:
    return ClaimRefused("held")


def _claim_of_anything(stack: ExitStack) -> None:
    is_under = MemoryRun.is_under

    def is_queued(run: MemoryRun, task: int, name: str, state: TaskState) -> bool:
        if state is TaskState.QUEUED:
            run.inflight.setdefault(task, Dispatched(name, b""))
        return state is TaskState.QUEUED or is_under(run, task, name, state)

    def claim(self: MemoryWorking, run_id: str, batch: str, *rest: Any) -> Claim | ClaimRefused:
        with patch.object(MemoryRun, "is_under", is_queued):
            return checked(self, run_id, batch, *rest)

    checked = MemoryWorking.claim
    stack.enter_context(patch.object(MemoryWorking, "claim", claim))


def _acceptable(replaced: Callable[[Any, Report, bool], bool | None]) -> Plant:
    def plant(stack: ExitStack) -> None:
        checked = memory_working._Commit._is_acceptable

        def judged(self: Any, one: Report, *, is_mine: bool) -> bool:
            verdict = replaced(self, one, is_mine)
            return checked(self, one, is_mine=is_mine) if verdict is None else verdict

        stack.enter_context(patch.object(memory_working._Commit, "_is_acceptable", judged))

    return plant


def _any_failure(commit: Any, one: Report, _is_mine: bool) -> bool | None:
    return None if one.ok else commit.run.inflight.get(one.task) is not None


def _any_member(commit: Any, one: Report, is_mine: bool) -> bool | None:
    entry = commit.run.inflight.get(one.task)
    return is_mine if one.ok and entry is not None and entry.lineage == b"" else None


def _any_lineage(commit: Any, one: Report, _is_mine: bool) -> bool | None:
    return commit.run.inflight.get(one.task) is not None if one.ok else None


def _queue_anything(run: MemoryRun, batch: Batch) -> bool:
    if run.phase.is_over:
        return False
    run.batches[batch.batch] = MemoryBatch(batch)
    for task, attempt, lineage in zip(batch.tasks, batch.attempts, batch.lineages, strict=True):
        run.states[2 * task : 2 * task + 2] = bytes((TaskState.QUEUED, attempt))
        run.inflight[task] = Dispatched(batch.batch, lineage)
    return True


# What the core decides.


def _lack_is_a_failure(life: Any, task: int, _lost: Any, **how: Any) -> None:
    judged(life, task, None, **how)


judged = repairs.judge

# What is random.


def _counted(stack: ExitStack) -> None:
    """A batch is known by a number alone, which the server counts and which falls back with it."""
    begin, offers = Server.__init__, Window.offers
    servers: list[Server] = []

    def noted(self: Server, world: World, oracle: Oracle) -> None:
        begin(self, world, oracle)
        servers[:] = [self]

    def numbered(self: Window, *arguments: Any) -> Any:
        queues: Any = servers[0].queues
        made = offers(self, *arguments)
        first = getattr(queues, "counted", 0) + 1
        queues.counted = first + len(made) - 1
        return [offer._replace(batch=f"{first + at:032x}") for at, offer in enumerate(made)]

    def held(run: MemoryRun, batch: str, _instance: str) -> MemoryBatch | None:
        found = run.batches.get(batch)
        return found if found is not None and found.hold is not None else None

    stack.enter_context(patch.object(Server, "__init__", noted))
    stack.enter_context(patch.object(Window, "offers", numbered))
    stack.enter_context(patch.object(memory_working, "_held", held))


PLANTED: dict[str, Plant] = {
    "continue-trusts-done": _replace(Audit, "_unproven", _none_unproven),
    "continue-ignores-lineage": _replace(inspection, "_dependency_reason", lambda *_: None),
    "torn-flag-accepted": _any_flag,
    "no-look-first": _replace(Inputs, "look_first", _no_look),
    "reap-of-a-snapshot": _replace(MemoryScheduling, "reap", _reap_of_a_snapshot),
    "claim-not-repeatable": _replace(MemoryWorking, "_claim_again", _claim_once),
    "give-back-of-started": _gives_back_what_runs,
    "flag-overwritten": _replace(report, "publish_flags", _overwriting),
    "no-epoch": _replace(MemoryReading, "_fence", lambda *_: None),
    "no-queue-repair": _replace(Duties, "_push_lost_entries", lambda *_: []),
    "flag-after-commit": _both(NO_AUDIT, _flag_after_commit),
    "events-only": _replace(Duties, "_still", lambda *_: []),
    "claim-of-anything": _claim_of_anything,
    "any-failure": _acceptable(_any_failure),
    "any-member": _acceptable(_any_member),
    "any-lineage": _acceptable(_any_lineage),
    "dispatch-of-anything": _replace(memory_scheduling, "_queue", _queue_anything),
    "no-audit": NO_AUDIT,
    "counted-ids": _counted,
    "lack-is-charged": _replace(repairs, "judge", _lack_is_a_failure),
}


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Break a rule of the product for a while; None breaks none."""
    with ExitStack() as stack:
        if name is not None:
            PLANTED[name](stack)
        yield
