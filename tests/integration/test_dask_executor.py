"""The Dask executor on real clusters (BEHAVIOUR DK, O7, B15, R)."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from distributed import Client

from overnight import dask_backend
from overnight.cache import FileTaskCache
from overnight.dask_backend import DaskBackend
from overnight.dask_executor import DaskExecutor
from overnight.errors import (
    ResultNotPicklable,
    RunCancelled,
    TaskDied,
    TaskNotPicklable,
    TaskTimedOut,
    Unreachable,
    UsageError,
)
from overnight.graph import Task, TaskGraph
from overnight.naming import log_name
from overnight.state_dir import wait_until
from tests.support import graphs, tasks
from tests.support.dask_clusters import local_cluster, shared_cluster, started_cluster

MEGABYTE = 1024 * 1024
SECONDS = 60.0


@pytest.fixture(params=["processes", "threads"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client of a shared local cluster."""
    with Client(shared_cluster(processes=request.param == "processes"), set_as_default=False) as client:
        yield client


@pytest.fixture
def processes() -> Iterator[Client]:
    """A client of the shared cluster of worker processes."""
    with Client(shared_cluster(processes=True), set_as_default=False) as client:
        yield client


@pytest.fixture
def graph() -> TaskGraph:
    return TaskGraph()


def executor(client: Client, directory: Path, **keywords: Any) -> DaskExecutor:
    return DaskExecutor(client, **{"task_log_dir": str(directory / "logs"), **keywords})


def results_of(executor: DaskExecutor, graph: TaskGraph) -> dict[str, Any]:
    pairs = [(task.task_id, result) for task, result in executor.execute(graph)]
    assert len(dict(pairs)) == len(pairs), "a task was yielded twice"
    return dict(pairs)


def threads() -> set[threading.Thread]:
    return set(threading.enumerate())


# How much is on the cluster.


def test_five_thousand_tasks_complete_and_never_more_than_the_bound_are_on_the_cluster(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DK1, R23: counted where they are started and where they end; the bound is looked up at run time."""
    most = 0
    wait = DaskBackend.wait

    def counted(backend: DaskBackend, seconds: float | None) -> Any:
        nonlocal most
        most = max(most, backend._in_flight)
        return wait(backend, seconds)

    monkeypatch.setattr(DaskBackend, "wait", counted)
    monkeypatch.setattr(DaskExecutor, "MAX_RUNNING_TASKS", 300)
    assert len(results_of(executor(client, tmp_path), graphs.noops(n=5_000))) == 5_000
    assert 100 < most <= 300


def test_the_documented_bound_is_seven_hundred() -> None:
    """DK1."""
    assert DaskExecutor.MAX_RUNNING_TASKS == 700


# Keys and results.


def test_a_second_run_on_the_cluster_gets_its_own_results_while_the_first_ends(
    client: Client, graph: TaskGraph, tmp_path: Path
) -> None:
    """DK2, R8: same ids, same graph, first run abandoned with work in flight."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    first = TaskGraph()
    first.create_task("quick", tasks.give, args=["first"])
    first.create_task("same", tasks.give_after_gate, args=[str(gate), "first"])
    pairs = executor(client, tmp_path).execute(first)
    assert next(pairs) == (Task("quick"), "first")
    pairs.close()
    graph.create_task("quick", tasks.give, args=["second"])
    graph.create_task("same", tasks.give, args=["second"])
    opening = threading.Thread(target=tasks.open_gate, args=[gate])
    opening.start()
    assert results_of(executor(client, tmp_path), graph) == {"quick": "second", "same": "second"}
    opening.join()


def test_large_results_reach_other_tasks_without_going_through_the_driver_again(
    processes: Client, graph: TaskGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DK, B15: the driver sends less than one value, whatever number of tasks takes it."""
    big = graph.create_task("big", tasks.megabytes, args=[8])
    for number in range(6):
        graph.create_task(f"size {number}", tasks.size_of, args=[{"nested": [big]}])
    sent = 0
    submit = processes.submit

    def counted(*args: Any, **keywords: Any) -> Any:
        nonlocal sent
        sent += len(cloudpickle.dumps([arg for arg in args if not isinstance(arg, list)]))
        return submit(*args, **keywords)

    monkeypatch.setattr(processes, "submit", counted)
    results = results_of(executor(processes, tmp_path), graph)
    assert 0 < sent < MEGABYTE
    assert {results[f"size {number}"] for number in range(6)} == {8 * MEGABYTE}
    assert len(results["big"]) == 8 * MEGABYTE


def test_a_large_result_is_filled_into_the_graph_of_an_abandoned_run(
    client: Client, graph: TaskGraph, tmp_path: Path
) -> None:
    """B6, B15, DK4: it is fetched once more before the cluster forgets it."""
    big = graph.create_task("big", tasks.megabytes, args=[1])
    size = graph.create_task("size", tasks.size_of, args=[[big]])
    graph.create_task("never", tasks.hang, args=[], deps=[size], timeout=3600)
    made = executor(client, tmp_path)
    pairs = made.execute(graph)
    assert next(pairs)[0] == big
    pairs.close()
    assert list(client.futures) == []
    graph.extract_tasks([Task("never")])
    left = results_of(made, graph)
    assert left in ({}, {"size": MEGABYTE})


def test_a_task_added_later_takes_a_large_result_from_the_cluster(
    client: Client, graph: TaskGraph, tmp_path: Path
) -> None:
    """Y2, B15."""
    big = graph.create_task("big", tasks.megabytes, args=[1])
    results = {}
    for task, result in executor(client, tmp_path).execute(graph):
        results[task.task_id] = result
        if task == big:
            graph.create_task("late", tasks.size_of, args=[[big]])
    assert results["late"] == MEGABYTE


def test_a_task_never_sees_what_another_one_did_to_a_result(client: Client, graph: TaskGraph, tmp_path: Path) -> None:
    """Tasks of one batch have each their own copy, as tasks in two processes have."""
    graph.create_task("warm", tasks.give, args=[0])
    source = graph.create_task("source", tasks.give, args=[[1]], deps=[Task("warm")])
    for number in range(5):
        graph.create_task(f"appends {number}", tasks.append_and_give, args=[source])
    results = results_of(executor(client, tmp_path), graph)
    assert [results[f"appends {number}"] for number in range(5)] == [[1, "more"]] * 5
    assert results["source"] == [1]


def test_closures_methods_and_large_functions_run(client: Client, graph: TaskGraph, tmp_path: Path) -> None:
    """DK2, B19."""
    project = tasks.Project(b"x" * MEGABYTE)
    offset = 40
    graph.create_task("closure", lambda number: number + offset, args=[2])
    for number in range(20):
        graph.create_task(f"method {number}", project.size, args=[])
    results = results_of(executor(client, tmp_path), graph)
    assert results["closure"] == 42
    assert {results[f"method {number}"] for number in range(20)} == {MEGABYTE}


def test_what_cannot_be_pickled_fails_alone(client: Client, graph: TaskGraph, tmp_path: Path) -> None:
    """B19, O2, R4."""
    lock = threading.Lock()
    graph.create_task("argument", tasks.give, args=[lock], retries=3, retry_delay=3600)
    graph.create_task("function", lambda: lock, args=[])
    below = graph.create_task("good", tasks.give, args=[1])
    graph.create_task("better", tasks.give, args=[below])
    results = results_of(executor(client, tmp_path), graph)
    assert isinstance(results["argument"], TaskNotPicklable)
    assert isinstance(results["function"], TaskNotPicklable)
    assert (results["good"], results["better"]) == (1, 1)


# Batches.


def test_a_failure_in_the_middle_of_a_batch_skips_its_followers_and_no_others(client: Client, tmp_path: Path) -> None:
    """B8, O2: the functions are known to be short, so that whole chains go in one batch."""
    graph = graphs.noops(n=50)
    for number in range(10):
        first = graph.create_task(f"{number} first", tasks.give, args=[number], deps=[Task("warm")])
        middle = graph.create_task(f"{number} middle", tasks.fail_if, args=[first, 3])
        graph.create_task(f"{number} last", tasks.give, args=[middle])
    graph.create_task("warm", tasks.give, args=[0], deps=list(graph.tasks)[:50])
    made = executor(client, tmp_path)
    results = results_of(made, graph)
    assert made.summary is not None
    assert made.summary.failed == ("3 middle",)
    assert made.summary.skipped == {"3 last": "3 middle"}
    assert [results[f"{number} last"] for number in range(10) if number != 3] == [0, 1, 2, 4, 5, 6, 7, 8, 9]


def test_a_task_that_is_unexpectedly_long_holds_up_neither_results_nor_other_tasks(
    client: Client, tmp_path: Path
) -> None:
    """B4: tasks that share a batch with it are told, or run elsewhere, while it runs."""
    graph = TaskGraph()
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    before = [graph.create_task(f"before {number}", tasks.open_if, args=[None, None]) for number in range(30)]
    for number in range(200):
        held = str(gate) if number == 50 else None
        graph.create_task(f"task {number}", tasks.open_if, args=[held, number], deps=before)
    pairs = executor(client, tmp_path).execute(graph)
    told = [next(pairs)[0].task_id for _ in range(229)]
    assert "task 50" not in told
    tasks.open_gate(gate)
    assert [(task.task_id, result) for task, result in pairs] == [("task 50", 50)]


# Workers that die.


def test_a_task_that_kills_its_worker_dies_and_all_others_finish(tmp_path: Path, graph: TaskGraph) -> None:
    """DK3, O7, R3, N5: with more tasks than the cluster has threads, some wait beside the killer."""
    bad = graph.create_task("killer", tasks.kill_own_process, args=[])
    graph.create_task("below", tasks.give, args=[bad])
    for number in range(40):
        graph.create_task(f"good {number}", tasks.give, args=[number])
    with local_cluster(processes=True) as cluster, Client(cluster, set_as_default=False) as client:
        made = executor(client, tmp_path)
        results = results_of(made, graph)
    assert isinstance(results["killer"], TaskDied)
    assert "'killer'" in str(results["killer"])
    assert results["killer"].worker is not None
    assert results["killer"].worker.startswith("tcp://")
    assert [results[f"good {number}"] for number in range(40)] == [*range(40)]
    assert made.summary is not None
    assert made.summary.skipped == {"below": "killer"}
    assert "died" in (tmp_path / "logs" / log_name("killer")).read_text(encoding="utf-8")


def test_a_task_that_loses_its_worker_once_runs_again_without_a_retry(tmp_path: Path, graph: TaskGraph) -> None:
    """O7: the worker is killed from outside; large results that it held are there again."""
    pids = tmp_path / "pids"
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    big = graph.create_task("big", tasks.megabytes, args=[1])
    graph.create_task("victim", tasks.wait_at_first, args=[str(pids), str(gate), [big]])
    with local_cluster(processes=True, workers=1) as cluster, Client(cluster, set_as_default=False) as client:
        pairs = executor(client, tmp_path).execute(graph)
        assert next(pairs)[0] == big
        killer = threading.Thread(target=_kill_at_gate, args=[pids, gate])
        killer.start()
        assert next(pairs) == (Task("victim"), MEGABYTE)
        killer.join()
        assert list(pairs) == []
    assert len(tasks.noted(pids)) == 2


def _kill_at_gate(pids: Path, gate: Path) -> None:
    """Kill the process that waits at the gate."""
    with gate.open("wb"):
        os.kill(int(tasks.noted(pids)[0]), signal.SIGKILL)


@pytest.mark.parametrize("function", [tasks.exit_politely, tasks.raise_fatal, tasks.interrupt])
def test_what_is_not_an_exception_fails_the_task_and_leaves_the_worker(
    processes: Client, graph: TaskGraph, tmp_path: Path, function: Any
) -> None:
    """DK3, B10."""
    before = set(processes.nthreads())
    graph.create_task("bad", function, args=[])
    results = results_of(executor(processes, tmp_path), graph)
    assert isinstance(results["bad"], BaseException)
    assert not isinstance(results["bad"], Exception)
    assert set(processes.nthreads()) == before


class Bomb:
    """Cannot be pickled: trying to raises what is given."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        raise self.error


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_result_that_raises_anything_while_it_is_packed_fails_its_task_and_leaves_the_worker(
    processes: Client, graph: TaskGraph, tmp_path: Path, error: type[BaseException]
) -> None:
    """DK3, B19."""
    before = set(processes.nthreads())
    bomb = Bomb
    graph.create_task("bad", lambda: bomb(error), args=[])
    graph.create_task("good", tasks.give, args=[1])
    results = results_of(executor(processes, tmp_path), graph)
    assert isinstance(results["bad"], ResultNotPicklable)
    assert error.__name__ in str(results["bad"])
    assert results["good"] == 1
    assert set(processes.nthreads()) == before


def test_a_task_that_ignores_its_time_limit_is_killed_and_the_worker_lives(
    client: Client, graph: TaskGraph, tmp_path: Path
) -> None:
    """O4, B17."""
    before = set(client.nthreads())
    graph.create_task("stubborn", tasks.hang_stubbornly, args=[60], timeout=0.2)
    assert isinstance(results_of(executor(client, tmp_path), graph)["stubborn"], TaskTimedOut)
    assert set(client.nthreads()) == before


# Abandoning and closing.


def test_five_abandoned_runs_leave_no_thread_and_no_future(client: Client, tmp_path: Path) -> None:
    """R7, DK4: looked at when close() returns, without garbage collection."""
    made = executor(client, tmp_path)
    list(made.execute(graphs.noops(n=10)))
    before = threads()
    for _ in range(5):
        pairs = made.execute(graphs.noops(n=2_000))
        next(pairs)
        pairs.close()
        assert list(client.futures) == []
        assert {thread for thread in threads() - before if not thread.name.startswith("Dask-")} == set()
    assert len(results_of(made, graphs.noops(n=100))) == 100


def test_a_run_is_abandoned_without_waiting_for_its_tasks(client: Client, graph: TaskGraph, tmp_path: Path) -> None:
    """DK4, B7: what was finished is recorded."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    cache = FileTaskCache(str(tmp_path / "status"))
    quick = graph.create_task("quick", tasks.give, args=[1])
    graph.create_task("slow", tasks.give_after_gate, args=[str(gate), 1])
    desc = graph.get_task_desc(quick)
    pairs = executor(client, tmp_path, task_cache=cache).execute(graph)
    next(pairs)
    pairs.close()
    assert cache.get_record(desc).result == 1
    assert [task.task_id for task in graph.tasks] == ["slow"]
    tasks.open_gate(gate)


@pytest.mark.parametrize("method", ["submit", "gather"])
def test_an_error_of_submitting_or_collecting_is_the_result_of_the_tasks_it_meets(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """DK4, R4."""
    graph = graphs.noops(n=60)
    original = getattr(client, method)
    calls = 0

    def failing_once(*args: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError("no more")
        return original(*args, **keywords)

    monkeypatch.setattr(client, method, failing_once)
    results = results_of(executor(client, tmp_path), graph)
    assert len(results) == 60
    failed = [result for result in results.values() if isinstance(result, BaseException)]
    assert failed
    assert {str(error) for error in failed} == {"no more"}
    assert list(client.futures) == []


def test_closing_shuts_the_cluster_down_once_and_says_nothing(
    tmp_path: Path, graph: TaskGraph, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """DK5, R13: no line of any library above DEBUG, and none on the streams, from a run or from closing."""
    cluster = local_cluster(processes=True)
    made = executor(Client(cluster, set_as_default=False), tmp_path)
    level = logging.getLogger("distributed").level
    capfd.readouterr()
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        list(made.execute(graphs.noops(n=20)))
        made.close()
        made.close()
    said = [record for record in caplog.records if record.name != "overnight.summary"]
    loud = [record for record in said if record.levelno > logging.DEBUG]
    assert loud == []
    assert capfd.readouterr().err == ""
    assert cluster.status.name == "closed"
    assert logging.getLogger("distributed").level == level


@pytest.mark.parametrize("by", ["the consumer", "another thread"])
def test_closing_the_executor_cancels_the_run_and_fails_no_task(tmp_path: Path, graph: TaskGraph, by: str) -> None:
    """B6, DK5: a task waits at a gate that never opens; what takes its result has not begun."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    cache = FileTaskCache(str(tmp_path / "status"))
    graph.create_task("quick", tasks.megabytes, args=[1])
    slow = graph.create_task("slow", tasks.give_after_gate, args=[str(gate), 1])
    graph.create_task("below", tasks.give, args=[slow])
    cluster = local_cluster(processes=True)
    made = executor(Client(cluster, set_as_default=False), tmp_path, task_cache=cache)
    pairs = made.execute(graph)
    assert next(pairs)[0] == Task("quick")
    closing = threading.Thread(target=made.close)
    closing.start()
    if by == "the consumer":
        closing.join()
    with pytest.raises(RunCancelled, match="its executor was closed"):
        next(pairs)
    closing.join()
    assert made.summary is not None
    assert (made.summary.succeeded, made.summary.failed) == (("quick",), ())
    assert [task.task_id for task in graph.tasks] == ["slow", "below"]
    assert len(list((tmp_path / "status").glob("*quick*"))) == 1
    assert list((tmp_path / "status").glob("*slow*")) == []
    with pytest.raises(UsageError, match="executor was closed"):
        list(made.execute(graph))
    assert [task.task_id for task in graph.tasks] == ["slow", "below"]


@pytest.mark.parametrize("what", ["the client", "the cluster"])
def test_a_run_whose_cluster_is_gone_ends_as_unreachable_and_fails_no_task(
    tmp_path: Path, graph: TaskGraph, what: str
) -> None:
    """DK4, R13: nothing is charged to the tasks; the sentence names the cluster."""
    quick = graph.create_task("quick", tasks.megabytes, args=[1])
    for number in range(20):
        graph.create_task(f"below {number}", tasks.size_of, args=[[quick]])
    with local_cluster(processes=False) as cluster, Client(cluster, set_as_default=False) as client:
        address = cluster.scheduler_address
        made = executor(client, tmp_path)
        pairs = made.execute(graph)
        assert next(pairs)[0] == quick
        (client if what == "the client" else cluster).close()
        with pytest.raises(Unreachable, match=f"{address} was lost"):
            next(pairs)
        assert len(list(graph.tasks)) == 20
        assert made.summary is not None
        assert (made.summary.succeeded, made.summary.failed) == (("quick",), ())
        with pytest.raises(Unreachable, match="closed"):
            list(made.execute(graph))
        assert len(list(graph.tasks)) == 20


# Separately started processes.


def test_a_cluster_of_separately_started_processes_runs_a_graph_and_loses_a_worker(tmp_path: Path) -> None:
    """DK1 to DK4, B21, O7: with Dask's own number of allowed failures."""
    place = tmp_path / "cluster"
    place.mkdir()
    with started_cluster(place) as started, Client(started.address, set_as_default=False) as client:
        made = executor(client, tmp_path)
        results = {}
        for task, result in made.execute(graphs.noops(n=1_500)):
            results[task.task_id] = result
            if len(results) == 100:
                started.workers[0].kill()
        assert len(results) == 1_500
        assert not any(isinstance(result, BaseException) for result in results.values())
        assert list(client.futures) == []


def test_a_cluster_that_has_no_workers_is_told_of_and_the_run_goes_on_when_it_has(
    graph: TaskGraph, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A local cluster that takes its dying workers for lost starts none any more: the run must not wait in silence."""
    monkeypatch.setattr(dask_backend, "SILENCE_SECONDS", 0.05)
    graph.create_task("task", tasks.give, args=[3])
    with local_cluster(processes=False, workers=1) as cluster, Client(cluster, set_as_default=False) as client:
        cluster.scale(0)
        assert wait_until(lambda: not client.nthreads(), SECONDS)
        told: dict[str, Any] = {}
        runner = threading.Thread(target=lambda: told.update(results_of(executor(client, tmp_path), graph)))
        runner.start()
        try:
            assert wait_until(lambda: "has no workers: the run waits" in caplog.text, SECONDS)
        finally:
            cluster.scale(1)
            runner.join(SECONDS)
    assert told == {"task": 3}
    assert caplog.text.count("has no workers") == 1
