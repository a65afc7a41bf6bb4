"""The regression scenarios of BEHAVIOUR R, each over every executor that it can concern.

A hampered backend stands between the driver and the real one: it is slow, it counts, or it raises. The queue executor
has no backend; there the client's calls of the store are hampered.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from overnight.base_executor import Backend, TaskGraphExecutorBase
from overnight.cache import CacheRecordType, FileTaskCache
from overnight.errors import TaskDied
from overnight.graph import Task, TaskGraph
from overnight.graph_run import Finished, Launch
from overnight.state_dir import wait_until
from overnight.store.redis import RedisStore
from tests.support import tasks
from tests.support.executors import EXECUTORS, ExecutorKind

SECONDS = 30.0
SLOW = 0.2
PROCESSES = [kind for kind in EXECUTORS if not kind.in_driver]
WITH_BACKEND = [kind for kind in EXECUTORS if not kind.name.startswith("queue")]
CONCURRENT = [kind for kind in EXECUTORS if not kind.one_at_a_time]


def over(kinds: Sequence[ExecutorKind]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("kind", kinds, ids=lambda kind: kind.name)


class Hampered:
    """A backend that hands on to a real one. `starting` and `collected` are called around it."""

    def __init__(
        self,
        backend: Backend,
        starting: Callable[[Launch], None] = lambda _launch: None,
        collected: Callable[[Sequence[Finished]], None] = lambda _finished: None,
    ) -> None:
        self._backend = backend
        self._starting = starting
        self._collected = collected

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def room(self) -> int:
        return self._backend.room()

    def start(self, launch: Launch) -> None:
        self._starting(launch)
        self._backend.start(launch)

    def wait(self, seconds: float | None) -> Sequence[Finished]:
        finished = self._backend.wait(seconds)
        self._collected(finished)
        return finished

    def abandon(self) -> Sequence[Finished]:
        return self._backend.abandon()


def hamper(executor: TaskGraphExecutorBase, monkeypatch: pytest.MonkeyPatch, **hooks: Any) -> None:
    """Put a hampered backend before that of each run of the executor."""
    real = executor._open_backend
    monkeypatch.setattr(executor, "_open_backend", lambda facts: Hampered(real(facts), **hooks))


def independent(count: int) -> TaskGraph:
    graph = TaskGraph()
    for number in range(count):
        graph.create_task(f"t{number}", tasks.give, args=[number])
    return graph


def assert_all_yielded_once(pairs: Sequence[tuple[Task, Any]], count: int) -> None:
    assert sorted((int(task.task_id[1:]), result) for task, result in pairs) == [(n, n) for n in range(count)]


@over(WITH_BACKEND)
def test_a_backend_that_takes_batches_slowly_gets_them_all(
    kind: ExecutorKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R1."""
    collected = threading.Event()
    collected.set()

    def start(_launch: Launch) -> None:
        if collected.is_set():
            collected.clear()
            time.sleep(SLOW / 4 if kind.one_at_a_time else SLOW)

    with kind.make(tmp_path) as executor:
        hamper(executor, monkeypatch, starting=start, collected=lambda _finished: collected.set())
        assert_all_yielded_once(list(executor.execute(independent(50))), 50)


@over(WITH_BACKEND)
def test_results_that_are_collected_slowly_all_arrive(
    kind: ExecutorKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R2."""
    with kind.make(tmp_path) as executor:
        hamper(executor, monkeypatch, collected=lambda _finished: time.sleep(SLOW / 4 if kind.one_at_a_time else SLOW))
        assert_all_yielded_once(list(executor.execute(independent(50))), 50)


@over([kind for kind in EXECUTORS if kind.name.startswith("queue")])
@pytest.mark.parametrize("step", ["add_tasks", "follow", "read_results"])
def test_a_server_that_is_slow_to_its_client_loses_nothing(
    kind: ExecutorKind, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R1, R2."""
    real = getattr(RedisStore, step)

    def slowly(*arguments: Any, **keywords: Any) -> Any:
        time.sleep(SLOW)
        return real(*arguments, **keywords)

    monkeypatch.setattr(RedisStore, step, slowly)
    with kind.make(tmp_path) as executor:
        assert_all_yielded_once(list(executor.execute(independent(50))), 50)


@over(PROCESSES)
def test_a_killed_process_fails_its_task_alone(kind: ExecutorKind, tmp_path: Path) -> None:
    """R3, B18, B8."""
    graph = independent(5)
    killed = graph.create_task("killed", tasks.kill_own_process, args=[])
    graph.create_task("after", tasks.give, args=[killed])
    desc = graph.get_task_desc(killed)
    cache = FileTaskCache(str(tmp_path / "status"))
    with kind.make(tmp_path, task_cache=cache) as executor:
        results = dict(executor.execute(graph))
        summary = executor.summary
    assert isinstance(results.pop(killed), TaskDied)
    assert_all_yielded_once(list(results.items()), 5)
    assert cache.get_record(desc).type is CacheRecordType.ERROR
    assert summary is not None
    assert summary.skipped == {"after": "killed"}


@over(WITH_BACKEND)
def test_a_task_that_cannot_be_handed_over_fails_alone(
    kind: ExecutorKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R4, DK4."""

    def refuse(launch: Launch) -> None:
        if launch.task.task_id in ("t3", "t7"):
            raise OSError("no way to hand this over")

    threads = threading.enumerate()
    with kind.make(tmp_path) as executor:
        hamper(executor, monkeypatch, starting=refuse)
        pairs = list(executor.execute(independent(10)))
    failed = [(task, result) for task, result in pairs if isinstance(result, OSError)]
    assert sorted(task.task_id for task, _ in failed) == ["t3", "t7"]
    assert len(pairs) == len({task for task, _ in pairs}) == 10
    assert_no_new_thread(threads)


@over(WITH_BACKEND)
def test_a_run_whose_results_cannot_be_collected_ends_with_the_reason(
    kind: ExecutorKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R4."""
    collected: list[Finished] = []

    def break_down(finished: Sequence[Finished]) -> None:
        collected.extend(finished)
        if len(collected) >= 5:
            raise OSError("the way back is cut")

    threads = threading.enumerate()
    yielded = []
    with kind.make(tmp_path) as executor:
        hamper(executor, monkeypatch, collected=break_down)
        with pytest.raises(OSError, match="the way back is cut"):
            for task, _ in executor.execute(independent(10)):
                yielded.append(task)
        assert len(set(yielded)) == len(yielded) < 10
        assert executor.summary is not None
        assert not executor.summary.ok
    assert_no_new_thread(threads)


def assert_no_new_thread(before: Sequence[threading.Thread]) -> None:
    """Threads of a cluster that others share may come and go; those of overnight may not stay."""
    new = [thread for thread in threading.enumerate() if thread not in before and "overnight" in thread.name.lower()]
    assert not new


@over(EXECUTORS)
def test_a_run_abandoned_while_results_come_in_yields_each_task_once(kind: ExecutorKind, tmp_path: Path) -> None:
    """R5, B6, B7."""
    graph = independent(40)
    with kind.make(tmp_path) as executor:
        pairs = executor.execute(graph)
        first = [next(pairs) for _ in range(5)]
        pairs.close()
        assert executor.summary is not None
        recorded = executor.summary.succeeded
        second = list(executor.execute(graph))
    yielded = [task.task_id for task, _ in first + second]
    assert len(set(yielded)) == len(yielded)
    assert sorted([*recorded, *(task.task_id for task, _ in second)]) == sorted(f"t{n}" for n in range(40))


@over(CONCURRENT)
def test_waiting_costs_no_memory_however_many_tasks_are_pending(kind: ExecutorKind, tmp_path: Path) -> None:
    """R6, B15."""
    graph = TaskGraph()
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    began = tmp_path / "began"
    first = graph.create_task("gate", tasks.begin_and_wait, args=[str(gate), str(began)])
    for number in range(500):
        graph.create_task(f"t{number}", tasks.give, args=[number], deps=[first])
    with kind.make(tmp_path) as executor, ThreadPoolExecutor(1) as consumer:
        pairs = consumer.submit(lambda: list(executor.execute(graph)))
        assert wait_until(began.exists, SECONDS)
        time.sleep(1.0)  # warm-up: what is made once while waiting
        tracemalloc.start()
        time.sleep(3.0)
        own = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/overnight/*")])
        tracemalloc.stop()
        tasks.write_to(str(gate))
        assert len(pairs.result(SECONDS)) == 501
    # What Dask's scheduler and workers note about themselves in this process is not the executor's.
    assert sum(trace.size for trace in own.traces) < 64 * 1024


@over(CONCURRENT)
def test_a_run_sees_nothing_of_an_abandoned_one_with_the_same_tasks(kind: ExecutorKind, tmp_path: Path) -> None:
    """R8, DK2."""
    with kind.make(tmp_path) as executor:
        for number in range(3):
            graph = TaskGraph()
            for task in range(30):
                graph.create_task(f"t{task}", tasks.give, args=[f"run {number}"])
            pairs = executor.execute(graph)
            next(pairs)
            if number < 2:
                pairs.close()
        assert {result for _, result in pairs} == {"run 2"}


@over([kind for kind in PROCESSES if not kind.one_at_a_time and not kind.name.startswith("dask")])
def test_when_a_run_is_closed_none_of_its_tasks_goes_on(kind: ExecutorKind, tmp_path: Path) -> None:
    """R7, PP5."""
    graph = TaskGraph()
    hanging, started = tmp_path / "pids", tmp_path / "started"
    os.mkfifo(started)
    graph.create_task("hangs", say_pid_and_hang, args=[str(hanging), str(started)], priority=1)
    graph.create_task("quick", read_all, args=[str(started)])
    with kind.make(tmp_path) as executor:
        threads = threading.enumerate()
        pairs = executor.execute(graph)
        assert next(pairs)[0].task_id == "quick"
        pairs.close()
        assert not psutil.pid_exists(int(hanging.read_text()))
        assert [thread for thread in threading.enumerate() if thread not in threads] == []


def say_pid_and_hang(pid_file: str, started: str) -> None:
    """Write this process' id, tell the reader of the FIFO, and never end."""
    Path(pid_file).write_text(str(os.getpid()), encoding="utf-8")
    Path(started).write_text("started", encoding="utf-8")
    tasks.hang()


def read_all(path: str) -> str:
    """Return what the other side of a FIFO writes."""
    return Path(path).read_text(encoding="utf-8")


@over(EXECUTORS)
def test_nothing_of_connections_heartbeats_and_clusters_is_logged(
    kind: ExecutorKind, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """R13, DK5."""
    with caplog.at_level(logging.WARNING), kind.make(tmp_path) as executor:
        assert len(list(executor.execute(independent(5)))) == 5
    assert [(record.name, record.getMessage()) for record in caplog.records] == []


@over(EXECUTORS)
def test_thousands_of_ready_tasks_never_exceed_what_may_be_in_flight(
    kind: ExecutorKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R23, PP2, DK1."""
    flying = most = 0

    def count_start(_launch: Launch) -> None:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)

    def count_end(finished: Sequence[Finished]) -> None:
        nonlocal flying
        flying -= len(finished)

    with kind.make(tmp_path) as executor:
        if kind in WITH_BACKEND:
            hamper(executor, monkeypatch, starting=count_start, collected=count_end)
        # A process for each of 5,000 tasks would take minutes and show nothing more.
        count = 200 if kind.name.endswith("-forked") else 5000
        assert_all_yielded_once(list(executor.execute(independent(count))), count)
    bound = 1 if kind.one_at_a_time else 700 if kind.name.startswith("dask") else 4
    assert most <= bound
