"""What every executor promises about summaries, stored results, surroundings and logs (BEHAVIOUR X, B)."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from overnight.base_executor import RunFacts, TaskGraphExecutorBase
from overnight.cache import FileTaskCache
from overnight.errors import TaskNotPicklable
from overnight.graph import Task, TaskGraph
from overnight.graph_run import Finished, Launch
from overnight.sequential_executor import InThisThread
from overnight.summary import RunSummary
from tests.support import tasks, traces
from tests.support.executors import EXECUTORS, ExecutorKind


@pytest.fixture(params=EXECUTORS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> ExecutorKind:
    kind: ExecutorKind = request.param
    return kind


@pytest.fixture
def cache(tmp_path: Path) -> FileTaskCache:
    return FileTaskCache(str(tmp_path / "status"))


def summary_of(executor: TaskGraphExecutorBase) -> RunSummary:
    assert executor.summary is not None
    return executor.summary


def graph_of_two() -> TaskGraph:
    graph = TaskGraph()
    a = graph.create_task("a", tasks.give, args=["x"])
    graph.create_task("b", tasks.join, args=[a, "y"])
    return graph


# Summaries.


def test_a_successful_run_is_summed_up_at_info_and_the_summary_outlives_the_executor(
    kind: ExecutorKind, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """B9."""
    with caplog.at_level(logging.INFO), kind.make(tmp_path) as executor:
        list(executor.execute(graph_of_two()))
    summary = summary_of(executor)
    assert summary.ok
    assert (summary.succeeded, summary.failed, summary.cached, summary.not_run) == (("a", "b"), (), (), ())
    assert summary.skipped == {}
    (record,) = [record for record in caplog.records if record.name == "overnight.summary"]
    assert record.levelno == logging.INFO
    assert summary.run_id in record.getMessage()
    for words in ("2 succeeded", "0 failed", "0 skipped", "0 cached", "0 not run"):
        assert words in record.getMessage()


def test_each_run_has_an_id_and_a_summary_of_its_own(kind: ExecutorKind, tmp_path: Path) -> None:
    """B9."""
    with kind.make(tmp_path) as executor:
        list(executor.execute(graph_of_two()))
        first = summary_of(executor)
        graph = TaskGraph()
        graph.create_task("bad", tasks.fail, args=[])
        list(executor.execute(graph))
        second = summary_of(executor)
    assert first.succeeded == ("a", "b")
    assert (second.succeeded, second.failed) == ((), ("bad",))
    assert first.run_id != second.run_id


def test_the_failed_ancestor_that_is_named_is_the_one_that_failed_first(kind: ExecutorKind, tmp_path: Path) -> None:
    """B8: the second failure comes once the consumer has seen the first."""
    graph = TaskGraph()
    gate = tmp_path / "gate"
    second = graph.create_task("second", traces.fail_after, args=[str(gate)])
    first = graph.create_task("first", tasks.fail, args=[], priority=5)
    child = graph.create_task("child", tasks.give, args=[1], deps=[second, first])
    graph.create_task("grandchild", tasks.give, args=[1], deps=[child])
    failed = []
    with kind.make(tmp_path, max_workers=2) as executor:
        for task, _ in executor.execute(graph):
            failed.append(task.task_id)
            gate.touch()
    assert failed == ["first", "second"]
    assert summary_of(executor).skipped == {"child": "first", "grandchild": "first"}


# What is stored.


def test_completed_tasks_are_told_in_graph_order_again_and_again_and_the_graph_stays(
    kind: ExecutorKind, tmp_path: Path, cache: FileTaskCache
) -> None:
    """B11, F4."""
    with kind.make(tmp_path, task_cache=cache) as executor:
        assert list(executor.get_completed_tasks(graph_of_two())) == []
        list(executor.execute(graph_of_two()))
        graph = graph_of_two()
        late = graph.create_task("late", tasks.give, args=[1])
        for _ in range(2):
            assert list(executor.get_completed_tasks(graph)) == [(Task("a"), "x"), (Task("b"), "x+y")]
            assert graph.tasks == [Task("a"), Task("b"), late]


def test_a_stored_result_is_loaded_only_where_it_is_wanted(
    kind: ExecutorKind, tmp_path: Path, cache: FileTaskCache
) -> None:
    """B12: a result that leaves a trace where it is unpickled."""
    trace = tmp_path / "trace"

    def run(new: str, *, takes_it: bool, **options: Any) -> bool:
        """Run the recorded task and a new one after it; tell whether the recorded result was unpickled."""
        graph = TaskGraph()
        kept = graph.create_task("kept", traces.give_tracing, args=[str(trace)])
        graph.create_task(new, tasks.give, args=[kept if takes_it else 1], deps=[kept])
        with kind.make(tmp_path, task_cache=cache) as executor:
            list(executor.execute(graph, **options))
        found = trace.exists()
        trace.unlink(missing_ok=True)
        return found

    run("first", takes_it=False)
    assert run("waits for it", takes_it=False) is False
    assert run("takes it", takes_it=True) is True
    assert run("waits for it", takes_it=False) is False
    assert run("waits for it", takes_it=False, include_cached=True) is True


def test_what_finishes_together_is_recorded_whole_before_the_first_of_it_is_yielded(
    tmp_path: Path, cache: FileTaskCache
) -> None:
    """B4."""

    class AllAtOnce(InThisThread):
        def __init__(self, facts: RunFacts) -> None:
            super().__init__(facts)
            self._started: list[Launch] = []

        def room(self) -> int:
            return 3 - len(self._started)

        def start(self, launch: Launch) -> None:
            self._started.append(launch)

        def wait(self, seconds: float | None) -> Sequence[Finished]:
            done, self._started = self._started, []
            return [(launch, self._run(launch)) for launch in done]

    class Executor(TaskGraphExecutorBase):
        def _open_backend(self, facts: RunFacts) -> InThisThread:
            return AllAtOnce(facts)

    graph = TaskGraph()
    for name in "abc":
        graph.create_task(name, tasks.give, args=[name])
    pairs = Executor(cache, task_log_dir=str(tmp_path / "logs")).execute(graph)
    next(pairs)
    assert len(list((tmp_path / "status").glob("*.flag"))) == 3
    assert graph.empty()
    assert len(list(pairs)) == 2


# Where tasks run.


def test_a_function_or_argument_that_cannot_be_pickled_fails_its_task_alone(kind: ExecutorKind, tmp_path: Path) -> None:
    """B19, O2: without being repeated."""
    graph = TaskGraph()
    held = threading.Lock()
    graph.create_task("argument", tasks.give, args=[1, held], retries=3, retry_delay=3600)
    graph.create_task("function", lambda: [held], args=[], retries=3, retry_delay=3600)
    graph.create_task("good", tasks.give, args=[2])
    with kind.make(tmp_path) as executor:
        results = {task.task_id: result for task, result in executor.execute(graph)}
    assert results["good"] == 2
    if kind.name == "sequential":
        assert (results["argument"], results["function"]) == (1, [held])
    elif kind.name != "sequential-forked":
        assert isinstance(results["argument"], TaskNotPicklable)
        assert isinstance(results["function"], TaskNotPicklable)
        assert "argument" in str(results["argument"])


class Project:
    """An object whose methods are tasks."""

    def __init__(self, name: str) -> None:
        self.name = name

    def bound(self, value: int) -> str:
        return f"{self.name} {value}"

    @staticmethod
    def static(value: int) -> int:
        return value + 1


def test_functions_of_every_kind_run(kind: ExecutorKind, tmp_path: Path) -> None:
    """B19."""
    graph, outer = TaskGraph(), 5
    graph.create_task("bound", Project("p").bound, args=[1])
    graph.create_task("static", Project.static, args=[1])
    graph.create_task("lambda", lambda value: value + outer, args=[1])
    with kind.make(tmp_path) as executor:
        results = {task.task_id: result for task, result in executor.execute(graph)}
    assert results == {"bound": "p 1", "static": 2, "lambda": 6}


def test_tasks_find_the_drivers_directory_umask_and_variables(
    kind: ExecutorKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B21."""
    monkeypatch.setenv("A_VARIABLE_OF_THE_DRIVER", "its value")
    monkeypatch.chdir(tmp_path)
    graph = TaskGraph()
    graph.create_task("a", traces.surroundings_of_task, args=["made"])
    former = os.umask(0o027)
    try:
        with kind.make(tmp_path) as executor:
            ((_, found),) = executor.execute(graph)
    finally:
        os.umask(former)
    assert found == (str(tmp_path), "its value")
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o640


# Logs.


def test_no_log_stays_open_and_no_handler_stays_installed(kind: ExecutorKind, tmp_path: Path) -> None:
    """B16: whether tasks succeed or fail."""
    before = list(logging.getLogger().handlers)
    graph = TaskGraph()
    graph.create_task("good", tasks.give, args=[1])
    graph.create_task("bad", tasks.fail, args=[])
    with kind.make(tmp_path, verbose=1) as executor:
        assert len(list(executor.execute(graph))) == 2
        assert logging.getLogger().handlers == before
        assert traces.open_logs(str(tmp_path)) == []
    assert "ValueError: no luck" in (tmp_path / "logs" / "log_bad.log").read_text(encoding="utf-8")


def test_a_file_url_is_a_log_directory_too(kind: ExecutorKind, tmp_path: Path) -> None:
    """N1, N3."""
    graph = TaskGraph()
    graph.create_task("bad", tasks.fail, args=[])
    with kind.make(tmp_path, task_log_dir=f"file://{tmp_path}/far") as executor:
        list(executor.execute(graph))
    assert "ValueError: no luck" in (tmp_path / "far" / "log_bad.log").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "hostile", [tasks.give_exit_when_loaded, tasks.give_exit_when_dumped, tasks.raise_exit_when_shown]
)
def test_an_object_that_exits_when_it_is_handled_fails_its_task_alone(
    kind: ExecutorKind, tmp_path: Path, hostile: Callable[[], Any]
) -> None:
    """B10, B18, B20, DK3."""
    if not kind.crosses_process and hostile is not tasks.raise_exit_when_shown:
        pytest.skip("results pass by reference here")
    graph = TaskGraph()
    bad = graph.create_task("bad", hostile, args=[])
    good = [graph.create_task(f"good {number}", tasks.give, args=[number]) for number in range(5)]
    with kind.make(tmp_path) as executor:
        results = dict(executor.execute(graph))
    assert isinstance(results.pop(bad), Exception)
    assert results == {task: number for number, task in enumerate(good)}


def test_an_exit_status_travels(kind: ExecutorKind, tmp_path: Path) -> None:
    """X6, B10: what a constructor sets is there again, whatever libraries are loaded."""
    graph = TaskGraph()
    leaver = graph.create_task("leaver", tasks.exit_politely, args=[])
    with kind.make(tmp_path) as executor:
        ((task, error),) = executor.execute(graph)
    assert (task, type(error), error.code) == (leaver, SystemExit, 3)
