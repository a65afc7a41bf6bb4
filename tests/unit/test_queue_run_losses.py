"""A queue run as its client sees it when the server, or a result, is lost just then."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from overnight.cache import NoTaskCache
from overnight.config import Settings
from overnight.core.states import RunPhase, TaskState
from overnight.graph import TaskGraph
from overnight.keyring import Keyring
from overnight.launch import submission_of
from overnight.lineage import lineage_digest
from overnight.messages import StoredResult
from overnight.pickling import dumps
from overnight.queue_executor import QueueExecutor
from overnight.results import FLAG
from overnight.store.memory import MemoryStore
from overnight.store.records import Addition, Batch, Report, Request, RunEvent, RunRecord, Verdict
from overnight.structure import Structure
from overnight.task import Task, TaskDesc, TaskOptions
from tests.support.simulation.actors import URL, SimDeployment
from tests.support.stores import Night, epoch_of

NO_LINEAGE = lineage_digest([])


class WorkedOn(MemoryStore):
    """A store in which a scheduler and a worker do at once what is to be done with the only task of a run."""

    def activate(self, run_id: str, tasks: int = 0) -> None:
        super().activate(run_id, tasks)
        self.night = Night(self, epoch_of(self), run_id)
        self.work()

    def work(self) -> None:
        raise NotImplementedError

    def commit_first(self, name: str, attempt: int, report: Report) -> None:
        """Run the task and record what came of it."""
        assert self.night.dispatch(Batch(name, "default", (report.task,), (attempt,), (NO_LINEAGE,))) == [True]
        self.night.claim(name)
        self.night.commit(name, report)

    def succeed(self, task: int) -> None:
        """Run a task, which returns 0, and end the run, as it was the last one."""
        body = dumps(0)
        digest = hashlib.sha256(body).digest()
        record = StoredResult(digest, len(body), body=body).sealed(self.night.run_id, task, Keyring())
        self.commit_first(f"b{task}", 1, Report(task, True, record, digest, NO_LINEAGE, b"{}", 0.0))
        assert self.night.end(RunPhase.SUCCEEDED)


def task(name: str) -> TaskDesc:
    return TaskDesc(Task(name), len, [()], {}, [], [], [], [], TaskOptions())


def executor_on(store: MemoryStore, directory: Path) -> QueueExecutor:
    executor = QueueExecutor(
        task_cache=NoTaskCache(), redis_url=URL, workers=0, task_log_dir=str(directory), keep_going=True
    )
    executor._deployment = SimDeployment(store, Settings(redis_url=URL, state_dir=directory))  # type: ignore[assignment]
    return executor


def pairs_of(store: MemoryStore, directory: Path) -> tuple[list[tuple[Task, Any]], Any]:
    """Execute a graph of one task on a store; return its pairs and the summary."""
    graph = TaskGraph()
    graph.add_task(task("t0"))
    executor = executor_on(store, directory)
    return list(executor.execute(graph)), executor.summary


class FailsAndIsForgotten(WorkedOn):
    """The task fails; when the client looks again whether its run is over, the server has lost it."""

    looks_at_the_end = 0

    def work(self) -> None:
        self.commit_first("b1", 1, Report(0, False, b"error", b"", NO_LINEAGE, b"{}", 0.0))
        self.night.settle(Verdict(0, TaskState.FAILED))
        assert self.night.end(RunPhase.FAILED)

    def run(self, run_id: str) -> RunRecord:
        found = super().run(run_id)
        self.looks_at_the_end += found.phase.is_over
        if self.looks_at_the_end == 3:  # after that of the launch and that of the follower
            del self.data.runs[run_id]
        return super().run(run_id)


def test_a_run_that_is_forgotten_when_all_of_it_has_failed_is_over(tmp_path: Path) -> None:
    """P11: there is nothing to put in place again; a run without tasks would never end."""
    store = FailsAndIsForgotten()
    pairs, summary = pairs_of(store, tmp_path)
    assert [task.task_id for task, _ in pairs] == ["t0"]
    assert list(summary.failed) == ["t0"]
    assert store.data.runs == {}


class EndsAgainAtOnce(WorkedOn):
    """The result of the task lies where nothing is; no sooner is it invalidated than the task has ended again."""

    def work(self) -> None:
        self._succeed("b1", 1, dumps("lost"), f"{FLAG}/nowhere")

    def invalidate(self, run_id: str, tasks: Sequence[int]) -> list[int]:
        gone = super().invalidate(run_id, tasks)
        self._succeed("b2", 2, dumps("found"), None)
        return gone

    def _succeed(self, name: str, attempt: int, body: bytes, locator: str | None) -> None:
        digest = hashlib.sha256(body).digest()
        stored = StoredResult(digest, len(body), body=None if locator else body, locator=locator)
        record = stored.sealed(self.night.run_id, 0, Keyring())
        self.commit_first(name, attempt, Report(0, True, record, digest, NO_LINEAGE, b"{}", 0.0))
        assert self.night.end(RunPhase.SUCCEEDED)


def test_a_task_whose_result_was_lost_is_yielded_though_its_run_has_ended_again_by_then(tmp_path: Path) -> None:
    """P11: the run was over before and is over when the client looks whether it is."""
    pairs, summary = pairs_of(EndsAgainAtOnce(), tmp_path)
    assert [(task.task_id, value) for task, value in pairs] == [("t0", "found")]
    assert summary.ok


class LosesFunctions(WorkedOn):
    """A server that falls back between the first call that puts functions and the one that adds tasks."""

    has_fallen_back = False

    def put_blobs(self, run_id: str, blobs: Mapping[str, bytes]) -> None:
        if self.has_fallen_back:
            super().put_blobs(run_id, blobs)
        self.has_fallen_back = True

    def work(self) -> None:
        self.succeed(0)


def test_functions_that_the_server_has_lost_are_sent_again_before_a_task_needs_them(tmp_path: Path) -> None:
    """P1, P9: every task would fail for want of its function."""
    store = LosesFunctions()
    pairs, _ = pairs_of(store, tmp_path)
    assert [value for _, value in pairs] == [0]
    assert [len(run.blobs) for run in store.data.runs.values()] == [1]


class WorksAtOnce(WorkedOn):
    """Whatever is added to the run has been done, and the run is over, before its client can ask."""

    def work(self) -> None:
        self.succeed(0)

    def add_tasks(self, run_id: str, addition: Addition) -> None:
        super().add_tasks(run_id, addition)
        if addition.first:
            self.succeed(addition.first)


def yielded_with_an_addition(store: MemoryStore, directory: Path) -> list[str]:
    """Execute a graph of one task, to which another one is added when that is yielded; return what is yielded."""
    graph = TaskGraph()
    graph.add_task(task("t0"))
    seen = []
    for done, _ in executor_on(store, directory).execute(graph):
        seen.append(done.task_id)
        if len(seen) == 1:
            graph.add_task(task("t1"))
    return seen


def test_a_task_that_is_added_at_the_end_is_yielded_though_its_run_has_ended_again_by_then(tmp_path: Path) -> None:
    """Y1, P11: it is added while the last pair is looked at; the run was over before, and is when its client asks."""
    assert yielded_with_an_addition(WorksAtOnce(), tmp_path) == ["t0", "t1"]


class AddsFaster(WorksAtOnce):
    """Another client of the run adds a task of its own just before this one."""

    def add_tasks(self, run_id: str, addition: Addition) -> None:
        if addition.first == 1:
            beside = MemoryStore()
            beside.data = self.data
            submission_of(beside, run_id, Keyring()).add([task("of another")])
            self.succeed(1)
        super().add_tasks(run_id, addition)


def test_a_task_is_added_behind_those_that_another_client_has_added_meanwhile(tmp_path: Path) -> None:
    """P2, Y1: its number is another one then, and what is told of the other's task is none of its own."""
    store = AddsFaster()
    assert yielded_with_an_addition(store, tmp_path) == ["t0", "t1"]
    (run,) = store.runs()
    assert list(Structure(run.run_id, store.specs(run.run_id), Keyring()).ids()) == ["t0", "of another", "t1"]


class Interrupted(WorkedOn):
    """Ctrl-C is pressed when the first tasks have been added; a scheduler then ends what is cancelled."""

    def work(self) -> None:
        self.succeed(0)

    def add_tasks(self, run_id: str, addition: Addition) -> None:
        super().add_tasks(run_id, addition)
        raise KeyboardInterrupt

    def request(self, run_id: str, request: Request, tasks: Sequence[int] = ()) -> None:
        super().request(run_id, request, tasks)
        if request is Request.CANCEL:
            self.night = Night(self, epoch_of(self), run_id)
            self.night.settle(Verdict(0, TaskState.CANCELLED))
            assert self.night.end(RunPhase.CANCELLED)


def test_an_interrupt_while_the_run_is_put_in_place_stops_it(tmp_path: Path) -> None:
    """QX7: its first tasks run by then; left alone they would go on without their driver."""
    store = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        pairs_of(store, tmp_path)
    assert [run.phase for run in store.runs()] == [RunPhase.CANCELLED]


class FailsAfterItsSuccess(WorkedOn):
    """What the first task returned is lost after it was given out; from then on the task fails whenever it runs."""

    has_been_read = False

    def work(self) -> None:
        body = dumps(0)
        digest = hashlib.sha256(body).digest()
        record = StoredResult(digest, len(body), body=body).sealed(self.night.run_id, 0, Keyring())
        self.commit_first("b1", 1, Report(0, True, record, digest, NO_LINEAGE, b"{}", 0.0))

    def follow(self, run_id: str, cursor: str, seconds: float) -> list[RunEvent]:
        if self.has_been_read and self.states(run_id)[0] == TaskState.DONE:
            self.invalidate(run_id, [0])
            self._fail()
        return super().follow(run_id, cursor, seconds)

    def read_results(self, run_id: str, tasks: Iterable[int]) -> dict[int, bytes]:
        self.has_been_read = True
        return super().read_results(run_id, tasks)

    def mend(self, run_id: str, tasks: Sequence[int]) -> None:
        super().mend(run_id, tasks)
        self._fail()

    def _fail(self) -> None:
        attempt = self.states(self.night.run_id)[1] + 1
        self.commit_first(f"b{attempt}", attempt, Report(0, False, b"error", b"", NO_LINEAGE, b"{}", 0.0))
        self.night.settle(Verdict(0, TaskState.FAILED))
        assert self.night.end(RunPhase.FAILED)


def test_a_run_does_not_succeed_with_a_task_that_fails_for_good_after_its_success_was_given_out(
    tmp_path: Path,
) -> None:
    """P11: never 0 with anything not done."""
    pairs, summary = pairs_of(FailsAfterItsSuccess(), tmp_path)
    assert [(task.task_id, value) for task, value in pairs] == [("t0", 0)]
    assert (list(summary.succeeded), list(summary.failed)) == ([], ["t0"])
