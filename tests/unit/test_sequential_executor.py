"""What is the sequential executor's own: this process, this thread, this order (BEHAVIOUR S1, B10, Y1, R4)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from overnight.base_executor import RunFacts, TaskGraphExecutorBase
from overnight.cache import CacheRecord, TaskCache
from overnight.errors import UsageError
from overnight.graph import Task, TaskDesc, TaskGraph
from overnight.graph_run import Finished, Launch
from overnight.sequential_executor import InThisThread, SequentialExecutor
from tests.support import tasks


@pytest.fixture
def graph() -> TaskGraph:
    return TaskGraph()


@pytest.fixture
def executor(tmp_path: Path) -> SequentialExecutor:
    return SequentialExecutor(task_log_dir=str(tmp_path / "logs"))


def test_arguments_and_results_pass_by_reference_in_this_thread(executor: SequentialExecutor, graph: TaskGraph) -> None:
    """S1, B20."""
    held = threading.Lock()
    a = graph.create_task("a", tasks.give, args=[held])
    graph.create_task("b", lambda lock: (lock, threading.get_ident()), args=[a])
    assert dict(executor.execute(graph))[Task("b")] == (held, threading.get_ident())


def test_each_pair_is_yielded_straight_after_its_task(executor: SequentialExecutor, graph: TaskGraph) -> None:
    """S1."""
    ran: list[str] = []
    for name in ("a", "b", "c"):
        graph.create_task(name, ran.append, args=[name])
    assert [(task.task_id, list(ran)) for task, _ in executor.execute(graph)] == [
        ("a", ["a"]),
        ("b", ["a", "b"]),
        ("c", ["a", "b", "c"]),
    ]


def test_a_task_that_becomes_ready_joins_at_once_by_priority(executor: SequentialExecutor, graph: TaskGraph) -> None:
    """S1, O5."""
    a = graph.create_task("a", tasks.give, args=[1])
    graph.create_task("b", tasks.give, args=[1])
    graph.create_task("urgent", tasks.give, args=[a], priority=1)
    assert [task.task_id for task, _ in executor.execute(graph)] == ["a", "urgent", "b"]


def test_a_task_function_may_add_tasks(executor: SequentialExecutor, graph: TaskGraph) -> None:
    """Y1."""

    def grow(left: int) -> int:
        if left:
            graph.create_task(f"grown {left}", grow, args=[left - 1])
        return left

    graph.create_task("seed", grow, args=[3])
    assert [result for _, result in executor.execute(graph)] == [3, 2, 1, 0]


def test_another_thread_may_add_tasks(executor: SequentialExecutor, graph: TaskGraph) -> None:
    """Y1, G26."""

    def add_beside() -> None:
        thread = threading.Thread(target=lambda: graph.create_task("beside", tasks.give, args=["added"]))
        thread.start()
        thread.join()

    graph.create_task("a", add_beside, args=[])
    assert dict(executor.execute(graph))[Task("beside")] == "added"


def test_an_interrupt_stops_the_run_and_is_raised_on(executor: SequentialExecutor, graph: TaskGraph) -> None:
    """B10, B6."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    graph.create_task("a", tasks.give, args=[1])
    graph.create_task("b", interrupt, args=[])
    graph.create_task("c", tasks.give, args=[1])
    with pytest.raises(KeyboardInterrupt):
        list(executor.execute(graph))
    assert executor.summary is not None
    assert executor.summary.succeeded == ("a",)
    assert executor.summary.not_run == ("b", "c")
    graph.prune(["c"])
    assert len(list(executor.execute(graph))) == 1


def test_a_run_of_nothing_but_cached_tasks_says_so(
    graph: TaskGraph, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """B4."""

    class AllComputed(TaskCache):
        def get_record(self, task_desc: TaskDesc) -> CacheRecord:
            from overnight.cache import CacheRecordType

            return CacheRecord(CacheRecordType.COMPUTED, "kept")

        def cache(self, task: Task, *, is_error: bool, result: Any) -> None:
            pytest.fail("nothing ran")

    graph.create_task("a", tasks.give, args=[1])
    executor = SequentialExecutor(AllComputed(), task_log_dir=str(tmp_path / "logs"))
    with caplog.at_level(logging.INFO):
        assert list(executor.execute(graph)) == []
    assert "All 1 tasks are computed; nothing runs." in caplog.messages
    assert executor.summary is not None
    assert executor.summary.cached == ("a",)


def test_a_foreign_cache_that_raises_costs_a_warning_and_no_result(
    graph: TaskGraph, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """C3, C7, R4."""

    class Broken(TaskCache):
        def get_record(self, task_desc: TaskDesc) -> CacheRecord:
            from overnight.cache import CacheRecordType

            return CacheRecord(CacheRecordType.NEEDS_COMPUTE)

        def cache(self, task: Task, *, is_error: bool, result: Any) -> None:
            raise RuntimeError("cannot record")

    graph.create_task("a", tasks.give, args=["x"])
    executor = SequentialExecutor(Broken(), task_log_dir=str(tmp_path / "logs"))
    assert list(executor.execute(graph)) == [(Task("a"), "x")]
    assert sum("could not be recorded" in message for message in caplog.messages) == 1


class Faulty(TaskGraphExecutorBase):
    """An executor whose backend fails in the way that a test asks for."""

    def __init__(self, backend: type[InThisThread], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._backend = backend

    def _open_backend(self, facts: RunFacts) -> InThisThread:
        return self._backend(facts)


def test_a_task_that_cannot_be_started_fails_alone(graph: TaskGraph, tmp_path: Path) -> None:
    """R4."""

    class CannotStartB(InThisThread):
        def start(self, launch: Launch) -> None:
            if launch.task.task_id == "b":
                raise RuntimeError("cannot start")
            super().start(launch)

    for name in ("a", "b", "c"):
        graph.create_task(name, tasks.give, args=[name])
    results = dict(Faulty(CannotStartB, task_log_dir=str(tmp_path)).execute(graph))
    assert str(results[Task("b")]) == "cannot start"
    assert (results[Task("a")], results[Task("c")]) == ("a", "c")


def test_a_task_whose_worker_is_lost_runs_again_and_after_three_losses_fails(graph: TaskGraph, tmp_path: Path) -> None:
    """O7: a loss uses up no retry."""
    lost: list[str] = []

    class Losing(InThisThread):
        def wait(self, seconds: float | None) -> Sequence[Finished]:
            return [(launch, self._kept(launch, outcome)) for launch, outcome in super().wait(seconds)]

        def _kept(self, launch: Launch, outcome: Any) -> Any:
            name = launch.task.task_id
            lost.append(name)
            return None if name == "killer" or lost.count(name) < 3 else outcome

    graph.create_task("killer", tasks.give, args=[1])
    graph.create_task("unlucky", tasks.give, args=["made it"])
    results = dict(Faulty(Losing, task_log_dir=str(tmp_path)).execute(graph))
    assert results[Task("unlucky")] == "made it"
    assert type(results[Task("killer")]).__name__ == "TaskDied"
    assert lost.count("killer") == lost.count("unlucky") == 3


def test_an_error_of_the_backend_ends_the_run_which_can_be_executed_again(graph: TaskGraph, tmp_path: Path) -> None:
    """R4, B7."""
    broken = [True]

    class Breaking(InThisThread):
        def wait(self, seconds: float | None) -> Sequence[Finished]:
            if broken[0]:
                raise RuntimeError("cannot collect")
            return super().wait(seconds)

    graph.create_task("a", tasks.give, args=["x"])
    executor = Faulty(Breaking, task_log_dir=str(tmp_path))
    with pytest.raises(RuntimeError, match="cannot collect"):
        list(executor.execute(graph))
    broken[0] = False
    assert list(executor.execute(graph)) == [(Task("a"), "x")]


def test_what_finished_before_a_run_was_given_up_is_recorded(graph: TaskGraph, tmp_path: Path) -> None:
    """B7: though it is never yielded."""
    finished: list[str] = []

    class TwoAtOnce(InThisThread):
        def __init__(self, facts: RunFacts) -> None:
            super().__init__(facts)
            self._started: list[Launch] = []

        def room(self) -> int:
            return 2 - len(self._started)

        def start(self, launch: Launch) -> None:
            self._started.append(launch)

        def wait(self, seconds: float | None) -> Sequence[Finished]:
            launch = self._started.pop(0)
            return [(launch, self._run(launch))]

        def abandon(self) -> Sequence[Finished]:
            return [(launch, self._run(launch)) for launch in self._started]

    class Recording(TaskCache):
        def get_record(self, task_desc: TaskDesc) -> CacheRecord:
            from overnight.cache import CacheRecordType

            return CacheRecord(CacheRecordType.NEEDS_COMPUTE)

        def cache(self, task: Task, *, is_error: bool, result: Any) -> None:
            finished.append(task.task_id)

    for name in ("a", "b", "c"):
        graph.create_task(name, tasks.give, args=[name])
    executor = Faulty(TwoAtOnce, task_cache=Recording(), task_log_dir=str(tmp_path))
    pairs: Iterator[tuple[Task, Any]] = executor.execute(graph)
    next(pairs)
    pairs.close()  # type: ignore[attr-defined]  # a generator, typed as what its consumer needs
    assert finished == ["a", "b"]
    assert [task.task_id for task in graph.tasks] == ["c"]


def test_a_default_log_directory_that_cannot_be_made_costs_a_warning(
    graph: TaskGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """B2."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".task-log").write_text("in the way", encoding="utf-8")
    graph.create_task("a", tasks.give, args=["x"])
    assert list(SequentialExecutor().execute(graph)) == [(Task("a"), "x")]
    assert sum("run without log files" in message for message in caplog.messages) == 1


def test_explicit_directories_are_the_only_ones_written(
    graph: TaskGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R14."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    graph.create_task("a", tasks.fail, args=[])
    list(SequentialExecutor(task_log_dir=str(tmp_path / "logs")).execute(graph))
    assert list((tmp_path / "here").iterdir()) == []
    assert len(list((tmp_path / "logs").iterdir())) == 1


@pytest.mark.parametrize("keywords", [{"max_workers": 0}, {"resource_limits": {"gpu": 0}}])
def test_parameters_out_of_range_are_refused(keywords: dict[str, Any]) -> None:
    """B1, O6."""
    with pytest.raises(UsageError, match=next(iter(keywords))):
        SequentialExecutor(**keywords)
