"""What every executor promises (BEHAVIOUR X, B, O, Y, R). A new executor joins in tests/support/executors.py."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from overnight.base_executor import TaskGraphExecutorBase
from overnight.cache import CacheRecordType, FileTaskCache
from overnight.errors import (
    BlockedTasks,
    CyclicGraph,
    DuplicateTask,
    InvalidTask,
    MissingDependency,
    ResultNotPicklable,
    RunInProgress,
    TaskTimedOut,
    UnresolvedTask,
    UsageError,
)
from overnight.graph import Task, TaskGraph
from overnight.naming import flag_name, log_name
from overnight.state_dir import wait_until
from overnight.summary import RunSummary
from tests.support import tasks
from tests.support.executors import EXECUTORS, ExecutorKind

#: A directory that exists, and in which no user, not even root, can make a file.
IN_WHICH_NOBODY_WRITES = "/sys/kernel"


@pytest.fixture(params=EXECUTORS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> ExecutorKind:
    kind: ExecutorKind = request.param
    return kind


@pytest.fixture
def graph() -> TaskGraph:
    return TaskGraph()


@pytest.fixture
def cache(tmp_path: Path) -> FileTaskCache:
    return FileTaskCache(str(tmp_path / "status"))


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def run(kind: ExecutorKind, directory: Path, graph: TaskGraph, **keywords: Any) -> tuple[dict[str, Any], RunSummary]:
    """Run the graph to its end; return pairs as id -> result, and the summary."""
    with kind.make(directory, **keywords) as executor:
        pairs = list(executor.execute(graph))
        results = {task.task_id: result for task, result in pairs}
        assert len(results) == len(pairs), "a task was yielded twice"
        return results, summary_of(executor)


def summary_of(executor: TaskGraphExecutorBase) -> RunSummary:
    """Return the summary of the last run, which there must be."""
    assert executor.summary is not None
    return executor.summary


def diamond(graph: TaskGraph) -> None:
    a = graph.create_task("a", tasks.give, args=["x"])
    b = graph.create_task("b", tasks.join, args=[a, "b"])
    c = graph.create_task("c", tasks.join, args=[a, "c"])
    graph.create_task("d", tasks.join, args=[b, c])


def test_every_task_is_yielded_once_with_its_result_after_its_dependencies(
    kind: ExecutorKind, graph: TaskGraph, tmp_path: Path
) -> None:
    """X4, X5, B6, G8."""
    diamond(graph)
    with kind.make(tmp_path) as executor:
        order = [(task.task_id, result) for task, result in executor.execute(graph)]
    assert dict(order) == {"a": "x", "b": "x+b", "c": "x+c", "d": "x+b+x+c"}
    assert order[0][0] == "a"
    assert order[-1][0] == "d"
    assert len(graph) == 0
    assert summary_of(executor).ok


def test_dependants_of_a_failed_task_are_skipped_and_the_others_run(
    kind: ExecutorKind, graph: TaskGraph, tmp_path: Path
) -> None:
    """B8, B9, B6, R15."""
    bad = graph.create_task("bad", tasks.fail, args=[])
    child = graph.create_task("child", tasks.give, args=[bad])
    graph.create_task("grandchild", tasks.give, args=[child])
    graph.create_task("good", tasks.give, args=[1])
    results, summary = run(kind, tmp_path, graph)
    assert set(results) == {"bad", "good"}
    assert isinstance(results["bad"], ValueError)
    assert summary.skipped == {"child": "bad", "grandchild": "bad"}
    assert (summary.succeeded, summary.failed, summary.not_run) == (("good",), ("bad",), ())
    assert not summary.ok
    assert len(graph) == 0


def test_a_returned_exception_is_a_failure(kind: ExecutorKind, graph: TaskGraph, tmp_path: Path) -> None:
    """G23."""
    bad = graph.create_task("bad", tasks.fail_by_return, args=[])
    graph.create_task("child", tasks.give, args=[bad])
    results, summary = run(kind, tmp_path, graph)
    assert summary.failed == ("bad",)
    assert str(results["bad"]) == "returned"


@pytest.mark.parametrize("function", [tasks.raise_fatal, tasks.exit_politely])
def test_an_exception_that_is_not_an_exception_is_that_tasks_error(
    kind: ExecutorKind, graph: TaskGraph, tmp_path: Path, function: Callable[[], None]
) -> None:
    """B10, R11."""
    graph.create_task("fatal", function, args=[])
    graph.create_task("good", tasks.give, args=[1])
    results, summary = run(kind, tmp_path, graph)
    assert isinstance(results["fatal"], BaseException)
    assert not isinstance(results["fatal"], Exception)
    assert results["good"] == 1
    assert summary.failed == ("fatal",)


def test_the_summary_is_logged_in_one_line(
    kind: ExecutorKind, graph: TaskGraph, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """B9."""
    graph.create_task("bad", tasks.fail, args=[])
    with caplog.at_level(logging.INFO):
        run(kind, tmp_path, graph)
    (record,) = [record for record in caplog.records if record.name == "overnight.summary"]
    assert record.levelno == logging.WARNING
    assert "1 failed" in record.getMessage()
    assert "'bad'" in record.getMessage()


# Beginning and ending a run.


def test_nothing_happens_before_the_first_pair_is_asked_for(
    kind: ExecutorKind, graph: TaskGraph, tmp_path: Path, ledger: Path
) -> None:
    """X3, B2."""
    graph.create_task("a", tasks.note, args=[str(ledger), "a"])
    with kind.make(tmp_path) as executor:
        pairs = executor.execute(graph)
        assert tasks.noted(ledger) == []
        assert not (tmp_path / "logs").exists()
        pairs.close()
        assert len(graph) == 1


def test_a_second_run_of_a_busy_executor_is_refused_and_the_first_goes_on(
    kind: ExecutorKind, graph: TaskGraph, tmp_path: Path
) -> None:
    """B3."""
    diamond(graph)
    other = TaskGraph()
    other.create_task("z", tasks.give, args=[1])
    with kind.make(tmp_path) as executor:
        first = executor.execute(graph)
        next(first)
        with pytest.raises(RunInProgress):
            next(executor.execute(other))
        assert len(list(first)) == 3
        assert len(list(executor.execute(other))) == 1


def test_an_abandoned_run_leaves_what_has_not_completed_and_it_can_run_again(
    kind: ExecutorKind, graph: TaskGraph, tmp_path: Path, ledger: Path
) -> None:
    """B6, B7, X3."""
    a = graph.create_task("a", tasks.give, args=["x"])
    b = graph.create_task("b", tasks.join, args=[a, "b"])
    c = graph.create_task("c", tasks.join, args=[a, b])
    never = graph.create_task("never", tasks.hang, args=[], deps=[c])
    with kind.make(tmp_path) as executor:
        pairs = executor.execute(graph)
        assert next(pairs) == (a, "x")
        pairs.close()
        left = [task.task_id for task in graph.tasks]
        assert left in (["b", "c", "never"], ["c", "never"], ["never"])
        assert summary_of(executor).not_run == tuple(left)
        assert not summary_of(executor).ok
        assert summary_of(executor).succeeded + summary_of(executor).not_run == ("a", "b", "c", "never")
        graph.extract_tasks([never])
        results = dict(executor.execute(graph))
        assert [task.task_id for task in results] == left[:-1]
        assert results.get(Task("c"), "x+x+b") == "x+x+b"


def test_an_executor_can_be_used_again_after_five_abandoned_runs(kind: ExecutorKind, tmp_path: Path) -> None:
    """R7."""
    with kind.make(tmp_path) as executor:
        for _ in range(5):
            abandoned = TaskGraph()
            diamond(abandoned)
            pairs = executor.execute(abandoned)
            next(pairs)
            pairs.close()
        complete = TaskGraph()
        diamond(complete)
        assert len(list(executor.execute(complete))) == 4


@pytest.mark.parametrize(
    ("build", "error"),
    [
        (lambda g: g.create_task("a", tasks.give, args=[Task("a")]), CyclicGraph),
        (lambda g: g.create_task("a", tasks.give, args=[Task("elsewhere")]), MissingDependency),
        (lambda g: g.create_task("a", tasks.give, args=[1], resources={"licence": 3}), InvalidTask),
    ],
)
def test_a_graph_that_cannot_run_is_refused_before_anything_runs(
    kind: ExecutorKind,
    graph: TaskGraph,
    tmp_path: Path,
    ledger: Path,
    build: Callable[[TaskGraph], Task],
    error: type[BaseException],
) -> None:
    """B5, G12, O6, B7: and the executor is usable afterwards."""
    graph.create_task("first", tasks.note, args=[str(ledger), "ran"])
    build(graph)
    with kind.make(tmp_path, resource_limits={"licence": 2}) as executor:
        with pytest.raises(error):
            list(executor.execute(graph))
        assert tasks.noted(ledger) == []
        other = TaskGraph()
        diamond(other)
        assert len(list(executor.execute(other))) == 4


def test_an_empty_graph_gives_nothing_and_makes_no_log_directory(
    kind: ExecutorKind, graph: TaskGraph, tmp_path: Path
) -> None:
    """B2."""
    results, summary = run(kind, tmp_path, graph)
    assert results == {}
    assert summary.ok
    assert not (tmp_path / "logs").exists()


def test_leaving_the_context_swallows_nothing_of_the_body(kind: ExecutorKind, tmp_path: Path) -> None:
    """X2."""
    with pytest.raises(ZeroDivisionError), kind.make(tmp_path):
        raise ZeroDivisionError


# The cache.


def test_an_outcome_is_recorded_before_it_is_yielded(
    kind: ExecutorKind, graph: TaskGraph, tmp_path: Path, cache: FileTaskCache
) -> None:
    """B4, C3."""
    graph.create_task("a", tasks.give, args=["x"])
    graph.create_task("bad", tasks.fail, args=[])
    descs = {task: graph.get_task_desc(task) for task in graph.tasks}
    with kind.make(tmp_path, task_cache=cache) as executor:
        for task, result in executor.execute(graph):
            record = cache.get_record(descs[task])
            if task.task_id == "a":
                assert record.result == result == "x"
            else:
                assert record.type is CacheRecordType.ERROR
                assert str(record.error) == "no luck"


def test_a_second_run_executes_nothing(kind: ExecutorKind, tmp_path: Path, cache: FileTaskCache, ledger: Path) -> None:
    """F3, X4, B9."""
    for expected in (["a", "b"], []):
        graph = TaskGraph()
        a = graph.create_task("a", tasks.note, args=[str(ledger), "a"])
        graph.create_task("b", tasks.note, args=[str(ledger), "b"], deps=[a])
        results, summary = run(kind, tmp_path, graph, task_cache=cache)
        assert list(results) == expected
        assert len(graph) == 0
    assert summary.cached == ("a", "b")
    assert tasks.noted(ledger) == ["a", "b"]


def test_a_stored_result_reaches_a_task_that_takes_it(kind: ExecutorKind, tmp_path: Path, cache: FileTaskCache) -> None:
    """B12, F2."""
    graph = TaskGraph()
    graph.create_task("a", tasks.give, args=["stored"])
    run(kind, tmp_path, graph, task_cache=cache)
    graph = TaskGraph()
    a = graph.create_task("a", tasks.give, args=["stored"])
    graph.create_task("b", tasks.join, args=[a, "new"])
    assert run(kind, tmp_path, graph, task_cache=cache)[0] == {"b": "stored+new"}


def test_cached_tasks_come_first_when_they_are_asked_for(
    kind: ExecutorKind, tmp_path: Path, cache: FileTaskCache
) -> None:
    """X4, B11."""
    for _ in range(2):
        graph = TaskGraph()
        diamond(graph)
        with kind.make(tmp_path, task_cache=cache) as executor:
            completed = dict(executor.get_completed_tasks(graph))
            assert len(graph) == 4
            pairs = dict(executor.execute(graph, include_cached=True))
    assert list(completed.values()) == list(pairs.values()) == ["x", "x+b", "x+c", "x+b+x+c"]


def test_force_runs_what_is_recorded_and_records_it_again(
    kind: ExecutorKind, tmp_path: Path, cache: FileTaskCache, ledger: Path
) -> None:
    """B14, B11."""
    for force in (False, True, False):
        graph = TaskGraph()
        graph.create_task("a", tasks.note, args=[str(ledger), "a"])
        with kind.make(tmp_path, task_cache=cache, force=force) as executor:
            if force:
                assert list(executor.get_completed_tasks(graph)) == []
            list(executor.execute(graph))
    assert tasks.noted(ledger) == ["a", "a"]


def test_a_failed_task_runs_again_next_time(
    kind: ExecutorKind, tmp_path: Path, cache: FileTaskCache, ledger: Path
) -> None:
    """B13."""
    for _ in range(2):
        graph = TaskGraph()
        graph.create_task("a", tasks.fail_until, args=[str(ledger), 2])
        results, _ = run(kind, tmp_path, graph, task_cache=cache)
    assert results == {"a": 2}


# Ids.


@pytest.mark.parametrize("fork_tasks", [False, True])
def test_similar_ids_have_their_own_results_logs_and_flags(
    kind: ExecutorKind, graph: TaskGraph, tmp_path: Path, cache: FileTaskCache, fork_tasks: bool
) -> None:
    """R9, I5."""
    ids = ["annotate chr1", "annotate-chr1", "annotate.chr1", "annotate:chr1"]
    for task_id in ids:
        graph.create_task(task_id, tasks.give, args=[task_id])
    results, _ = run(kind, tmp_path, graph, task_cache=cache, fork_tasks=fork_tasks, verbose=1)
    assert results == {task_id: task_id for task_id in ids}
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {log_name(task_id) for task_id in ids}
    assert {flag_name(task_id) for task_id in ids} <= {path.name for path in (tmp_path / "status").iterdir()}


def test_long_ids_that_differ_late_stay_distinct_and_are_found_again(
    kind: ExecutorKind, tmp_path: Path, cache: FileTaskCache
) -> None:
    """R10, I2."""
    ids = ["x" * 250 + "a" * 50, "x" * 250 + "b" * 50]
    for expected in (2, 0):
        graph = TaskGraph()
        for task_id in ids:
            graph.create_task(task_id, tasks.give, args=[task_id])
        results, _ = run(kind, tmp_path, graph, task_cache=cache)
        assert len(results) == expected


# Options.


def test_a_failed_attempt_is_repeated_and_only_the_last_is_yielded(
    kind: ExecutorKind, graph: TaskGraph, tmp_path: Path, ledger: Path
) -> None:
    """O2."""
    graph.create_task("a", tasks.fail_until, args=[str(ledger), 3], retries=2)
    graph.create_task("b", tasks.fail, args=[], retries=1, retry_delay=0.01)
    results, summary = run(kind, tmp_path, graph)
    assert results["a"] == 3
    assert summary.succeeded == ("a",)
    assert summary.failed == ("b",)


def test_a_failure_that_cannot_end_otherwise_is_not_repeated(
    kind: ExecutorKind, graph: TaskGraph, tmp_path: Path
) -> None:
    """O2, G8: a Task in a set is not replaced."""
    a = graph.create_task("a", tasks.give, args=[1])
    graph.create_task("b", tasks.give, args=[{a}], deps=[a], retries=5, retry_delay=3600)
    results, _ = run(kind, tmp_path, graph)
    assert isinstance(results["b"], UnresolvedTask)


def test_a_task_that_exceeds_its_time_limit_is_timed_out(kind: ExecutorKind, graph: TaskGraph, tmp_path: Path) -> None:
    """O4."""
    graph.create_task("slow", tasks.hang, args=[], timeout=0.2)
    graph.create_task("quick", tasks.give, args=[1], timeout=60)
    results, _ = run(kind, tmp_path, graph)
    assert isinstance(results["slow"], TaskTimedOut)
    assert results["quick"] == 1


def test_a_limited_resource_is_never_exceeded_and_everything_runs(
    kind: ExecutorKind, graph: TaskGraph, tmp_path: Path
) -> None:
    """O6."""
    for number in range(4):
        graph.create_task(f"t{number}", tasks.give, args=[number], resources={"licence": 2})
    results, _ = run(kind, tmp_path, graph, resource_limits={"licence": 2})
    assert len(results) == 4


def test_tasks_of_higher_priority_start_first_then_in_order_of_insertion(
    kind: ExecutorKind, graph: TaskGraph, tmp_path: Path, ledger: Path
) -> None:
    """O5, S1, G19."""
    if not kind.one_at_a_time:
        pytest.skip("tasks of this executor start side by side")
    for name, priority in (("low", -1), ("first", 0), ("second", 0), ("high", 7)):
        graph.create_task(name, tasks.note, args=[str(ledger), name], priority=priority)
    run(kind, tmp_path, graph)
    assert tasks.noted(ledger) == ["high", "first", "second", "low"]


# Adding tasks.


def test_tasks_added_by_the_consumer_run_and_find_earlier_results(
    kind: ExecutorKind, graph: TaskGraph, tmp_path: Path
) -> None:
    """Y1, Y2."""
    a = graph.create_task("a", tasks.give, args=["x"])
    with kind.make(tmp_path) as executor:
        results = {}
        for task, result in executor.execute(graph):
            results[task.task_id] = result
            if task == a:
                b = graph.create_task("b", tasks.join, args=[a, "b"])
                graph.create_task("c", tasks.join, args=[b, a])
    assert results == {"a": "x", "b": "x+b", "c": "x+b+x"}
    assert summary_of(executor).ok


def test_a_task_added_by_another_thread_starts_beside_one_that_runs(kind: ExecutorKind, tmp_path: Path) -> None:
    """Y1: nothing but the added task lets the first one end."""
    if kind.one_at_a_time:
        pytest.skip("one task runs at a time, so the first would wait for ever")
    graph = TaskGraph()
    began, gate = tmp_path / "began", tmp_path / "gate"
    os.mkfifo(gate)
    graph.create_task("first", tasks.begin_and_wait, args=[str(gate), str(began)])
    with kind.make(tmp_path) as executor, ThreadPoolExecutor(1) as consumer:
        pairs = consumer.submit(lambda: dict(executor.execute(graph)))
        assert wait_until(began.exists, 30.0)
        added = [graph.create_task("opener", tasks.write_to, args=[str(gate)])]
        added += graph.add_tasks([graph.make_task(f"added {n}", tasks.give, args=[added[0], n]) for n in range(20)])
        results = pairs.result(30.0)
    assert set(results) == {Task("first"), *added}
    assert results[Task("first")] == "opened"


def test_a_task_added_below_a_cached_one_gets_the_stored_result(
    kind: ExecutorKind, tmp_path: Path, cache: FileTaskCache
) -> None:
    """Y2."""
    for second in (False, True):
        graph = TaskGraph()
        a = graph.create_task("a", tasks.give, args=["stored"])
        graph.create_task(f"other {second}", tasks.give, args=[1])
        with kind.make(tmp_path, task_cache=cache) as executor:
            results = {}
            for task, result in executor.execute(graph):
                results[task.task_id] = result
                if second and task.task_id.startswith("other"):
                    graph.create_task("late", tasks.join, args=[a, "late"])
    assert results == {"other True": 1, "late": "stored+late"}


def test_a_task_added_below_a_failed_one_is_skipped(kind: ExecutorKind, graph: TaskGraph, tmp_path: Path) -> None:
    """Y2, B8."""
    bad = graph.create_task("bad", tasks.fail, args=[])
    with kind.make(tmp_path) as executor:
        for task, _ in executor.execute(graph):
            if task == bad:
                late = graph.create_task("late", tasks.give, args=[bad])
                graph.create_task("later", tasks.give, args=[late])
    assert summary_of(executor).skipped == {"late": "bad", "later": "bad"}
    assert len(graph) == 0


def test_a_run_that_waits_for_a_task_nobody_adds_says_so(kind: ExecutorKind, graph: TaskGraph, tmp_path: Path) -> None:
    """Y3."""
    a = graph.create_task("a", tasks.give, args=[1])
    with kind.make(tmp_path) as executor:
        with pytest.raises(BlockedTasks, match="'late' waits for 'never added'"):
            for task, _ in executor.execute(graph):
                if task == a:
                    graph.create_task("late", tasks.give, args=[Task("never added")])
        assert summary_of(executor).not_run == ("late",)
        graph.create_task("never added", tasks.give, args=["after all"])
        assert dict(executor.execute(graph))[Task("late")] == "after all"


def test_a_task_that_waits_outside_is_skipped_when_another_dependency_fails(
    kind: ExecutorKind, graph: TaskGraph, tmp_path: Path
) -> None:
    """Y2, Y3, B8: nobody is told that the run is blocked."""
    a = graph.create_task("a", tasks.give, args=[1])
    bad = graph.create_task("bad", tasks.fail, args=[], deps=[a])
    with kind.make(tmp_path) as executor:
        for task, _ in executor.execute(graph):
            if task == a:
                graph.create_task("late", tasks.give, args=[Task("never added")], deps=[bad])
    assert summary_of(executor).skipped == {"late": "bad"}


def test_a_missing_dependency_may_be_added_later(kind: ExecutorKind, graph: TaskGraph, tmp_path: Path) -> None:
    """Y3."""
    a = graph.create_task("a", tasks.give, args=[1])
    b = graph.create_task("b", tasks.give, args=[2], deps=[a])
    with kind.make(tmp_path) as executor:
        results = {}
        for task, result in executor.execute(graph):
            results[task.task_id] = result
            if task == a:
                graph.create_task("late", tasks.give, args=[Task("missing")])
            if task == b:
                graph.create_task("missing", tasks.give, args=["found"])
    assert results["late"] == "found"


def test_the_id_of_a_finished_task_is_refused_while_the_run_is_active(
    kind: ExecutorKind, graph: TaskGraph, tmp_path: Path
) -> None:
    """G11."""
    a = graph.create_task("a", tasks.give, args=[1])
    with kind.make(tmp_path) as executor:
        for task, _ in executor.execute(graph):
            assert task == a
            with pytest.raises(DuplicateTask):
                graph.create_task("a", tasks.give, args=[1])
    graph.create_task("a", tasks.give, args=[1])


# Surroundings and logs.


def test_files_land_in_the_directory_that_the_driver_is_in(
    kind: ExecutorKind, graph: TaskGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R16, B21."""
    graph.create_task("a", tasks.write_here, args=["made"])
    (tmp_path / "place").mkdir()
    with kind.make(tmp_path) as executor:
        monkeypatch.chdir(tmp_path / "place")
        list(executor.execute(graph))
    assert (tmp_path / "place" / "made").exists()


def test_the_log_of_a_failed_task_holds_its_traceback(kind: ExecutorKind, graph: TaskGraph, tmp_path: Path) -> None:
    """N5, B16."""
    graph.create_task("part 1", tasks.fail, args=["the reason"])
    run(kind, tmp_path, graph)
    log = (tmp_path / "logs" / log_name("part 1")).read_text(encoding="utf-8")
    assert log.startswith("---- part 1 run ")
    assert "ValueError: the reason" in log
    assert "in fail" in log


def test_the_log_of_a_task_holds_its_own_records_at_the_asked_verbosity(
    kind: ExecutorKind, graph: TaskGraph, tmp_path: Path
) -> None:
    """N2, N4, B16."""
    graph.create_task("a", tasks.log_at, args=[logging.INFO, "from a"])
    graph.create_task("b", tasks.log_at, args=[logging.DEBUG, "too quiet"])
    before = logging.getLogger().level
    run(kind, tmp_path, graph, verbose=1)
    assert logging.getLogger().level == before
    first, second = [(tmp_path / "logs" / f"log_{name}.log").read_text(encoding="utf-8") for name in "ab"]
    assert "a.task INFO from a" in first
    assert "task <a> started, attempt 1" in first
    assert "peak memory" in first
    assert "from a" not in second
    assert "too quiet" not in second


def test_a_given_log_directory_that_cannot_be_made_fails_the_run_before_any_task(
    kind: ExecutorKind, graph: TaskGraph, tmp_path: Path, ledger: Path
) -> None:
    """B2."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    graph.create_task("a", tasks.note, args=[str(ledger), "a"])
    for unusable in (str(tmp_path / "file" / "logs"), IN_WHICH_NOBODY_WRITES):
        executor = kind.make(tmp_path, task_log_dir=unusable)
        with executor as entered, pytest.raises(OSError, match="task log directory") as raised:
            list(entered.execute(graph))
        assert isinstance(raised.value, UsageError)
    assert tasks.noted(ledger) == []


def test_a_result_that_cannot_be_pickled_fails_where_it_must_cross_a_process(
    kind: ExecutorKind, graph: TaskGraph, tmp_path: Path
) -> None:
    """B20."""
    graph.create_task("a", tasks.lock, args=[], retries=3, retry_delay=3600)
    results, _ = run(kind, tmp_path, graph)
    if kind.crosses_process:
        assert isinstance(results["a"], ResultNotPicklable)
        assert "'a'" in str(results["a"])
        assert "lock" in str(results["a"])
    else:
        assert hasattr(results["a"], "acquire")


def test_an_exception_from_another_process_shows_where_it_was_raised(
    kind: ExecutorKind, graph: TaskGraph, tmp_path: Path
) -> None:
    """X6."""
    graph.create_task("a", tasks.fail, args=[])
    results, _ = run(kind, tmp_path, graph)
    assert "in fail" in "".join(traceback.format_exception(results["a"]))


def test_closures_run_everywhere_and_forked_ones_in_another_process(
    kind: ExecutorKind, graph: TaskGraph, tmp_path: Path
) -> None:
    """B17, B19."""
    secret = object()
    graph.create_task("a", lambda: (os.getpid(), secret is not None), args=[])
    results, _ = run(kind, tmp_path, graph, fork_tasks=True)
    assert results["a"][0] != os.getpid()
    assert results["a"][1] is True
