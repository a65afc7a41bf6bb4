"""Attempts in child processes: how they end, and from where they may be started (BEHAVIOUR B17, B18, R3, R22)."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from overnight.cache import CacheRecordType, FileTaskCache
from overnight.errors import RemoteTaskError, TaskDied, TaskNotPicklable, TaskTimedOut
from overnight.forked import AttemptOrder, is_single_threaded, run_in_child
from overnight.graph import Task, TaskGraph
from overnight.invoke import Outcome
from overnight.sequential_executor import SequentialExecutor
from overnight.state_dir import wait_until
from tests.support import tasks


@contextmanager
def another_thread() -> Iterator[None]:
    """Keep a second thread alive."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


#: The suite's own time limit is a thread; a signal leaves these tests with one thread.
pytestmark = [pytest.mark.single_threaded, pytest.mark.timeout(60, method="signal")]


def await_single_thread() -> None:
    """Return once threads that were joined are gone from the system's view too."""
    assert wait_until(is_single_threaded, 10.0), threading.enumerate()


@pytest.fixture(params=["single-threaded", "multi-threaded"])
def surroundings(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param == "single-threaded":
        await_single_thread()
        yield
    else:
        with another_thread():
            assert not is_single_threaded()
            yield


def child(func: Callable[..., Any], *args: Any, timeout: Any = None, log_dir: Any = None) -> Outcome:
    return run_in_child(AttemptOrder("a task", func, args, {}, timeout=timeout, log_dir=log_dir))


@pytest.mark.usefixtures("surroundings")
class TestAnAttemptInAChild:
    def test_gives_its_result_its_time_and_its_memory(self) -> None:
        """B17."""
        outcome = child(tasks.own_pid)
        assert outcome.ok
        assert outcome.value != os.getpid()
        assert outcome.peak_memory > 1_000_000
        assert outcome.seconds < 60

    def test_runs_closures(self) -> None:
        """B17, B19."""
        captured = ["x"]
        assert child(lambda: captured[0]).value == "x"

    def test_that_is_killed_died_of_that_signal(self) -> None:
        """B18, R3."""
        outcome = child(tasks.kill_own_process)
        assert isinstance(outcome.value, TaskDied)
        assert outcome.value.signal == "SIGKILL"
        assert "'a task'" in str(outcome.value)

    @pytest.mark.parametrize("code", [0, 7])
    def test_that_exits_without_an_outcome_died_whatever_its_exit_code(self, code: int) -> None:
        """B18."""
        outcome = child(tasks.exit_hard, code)
        assert isinstance(outcome.value, TaskDied)
        assert outcome.value.exit_code == code
        assert outcome.value.signal is None

    def test_gives_a_stand_in_for_an_exception_that_cannot_be_rebuilt(self) -> None:
        """B18, P6."""
        error = child(tasks.raise_unrebuildable).value
        assert isinstance(error, RemoteTaskError)
        assert error.type_name.endswith("CannotBeRebuilt")
        assert "raise_unrebuildable" in error.traceback_text

    def test_that_ignores_its_time_limit_is_killed(self) -> None:
        """O4."""
        outcome = child(tasks.hang_stubbornly, 60.0, timeout=0.1)
        assert isinstance(outcome.value, TaskTimedOut)
        assert outcome.seconds < 30

    def test_that_died_leaves_the_reason_in_its_log(self, tmp_path: Path) -> None:
        """N5."""
        child(tasks.kill_own_process, log_dir=str(tmp_path))
        (log,) = tmp_path.iterdir()
        assert "SIGKILL" in log.read_text(encoding="utf-8")

    def test_leaves_no_child_behind(self) -> None:
        """B17."""
        before = children_left()
        child(tasks.give, 1)
        assert children_left() == before


def children_left() -> list[str]:
    """Return the children of this process but for multiprocessing's own servers."""
    pids = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    return [pid for pid in pids if b"multiprocessing" not in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_what_cannot_be_pickled_is_that_tasks_error_where_pickling_is_needed() -> None:
    """B19."""
    lock = threading.Lock()
    with another_thread():
        outcome = child(tasks.give, lock)
    assert isinstance(outcome.value, TaskNotPicklable)
    assert "'a task'" in str(outcome.value)
    await_single_thread()
    assert child(lock.locked).value is False


def test_a_child_finds_the_environment_of_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """B21: also one that comes from a fork server started before."""
    with another_thread():
        child(tasks.give, 1)
        monkeypatch.setenv("OVERNIGHT_TEST_VARIABLE", "changed later")
        assert child(lambda: os.environ["OVERNIGHT_TEST_VARIABLE"]).value == "changed later"


def test_two_hundred_forked_tasks_run_beside_threads_without_deadlock_or_warning(tmp_path: Path) -> None:
    """R22."""
    graph = TaskGraph()
    for number in range(200):
        graph.create_task(f"t{number}", tasks.give, args=[number])
    with warnings.catch_warnings(), another_thread():
        warnings.simplefilter("error")
        executor = SequentialExecutor(fork_tasks=True, task_log_dir=str(tmp_path / "logs"))
        results = {result for _, result in executor.execute(graph)}
    assert results == set(range(200))


def test_a_task_killed_with_its_process_fails_alone_and_its_dependants_are_skipped(tmp_path: Path) -> None:
    """R3, B8."""
    graph = TaskGraph()
    cache = FileTaskCache(str(tmp_path / "status"))
    killed = graph.create_task("killed", tasks.kill_own_process, args=[])
    graph.create_task("below", tasks.give, args=[killed])
    graph.create_task("beside", tasks.give, args=[1])
    desc = graph.get_task_desc(killed)
    executor = SequentialExecutor(cache, fork_tasks=True, task_log_dir=str(tmp_path / "logs"))
    results = dict(executor.execute(graph))
    assert isinstance(results[killed], TaskDied)
    assert cache.get_record(desc).type is CacheRecordType.ERROR
    assert executor.summary is not None
    assert executor.summary.skipped == {"below": "killed"}
    assert executor.summary.succeeded == ("beside",)


def test_a_time_limit_outside_of_the_main_thread_is_kept_by_a_child(tmp_path: Path) -> None:
    """O4, S1."""
    graph = TaskGraph()
    slow = graph.create_task("slow", tasks.hang, args=[], timeout=0.2)
    found: dict[Task, Any] = {}

    def drive() -> None:
        executor = SequentialExecutor(task_log_dir=str(tmp_path / "logs"))
        found.update(executor.execute(graph))

    thread = threading.Thread(target=drive)
    thread.start()
    thread.join()
    assert isinstance(found[slow], TaskTimedOut)


def test_an_interrupt_while_a_child_runs_ends_the_child_and_goes_on(tmp_path: Path) -> None:
    """B10."""
    started = tmp_path / "started"
    driver = os.getpid()

    def interrupt_driver_and_hang() -> None:
        tasks.note(str(started), str(os.getpid()))
        os.kill(driver, signal.SIGINT)
        tasks.hang()

    with pytest.raises(KeyboardInterrupt):
        child(interrupt_driver_and_hang)
    (pid,) = tasks.noted(started)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


#: What the next fork of this process does in a callback: such a callback is registered for good.
_during_fork: list[Callable[[], None]] = []
os.register_at_fork(after_in_parent=lambda: _during_fork.pop()() if _during_fork else None)


def test_an_interrupt_in_the_middle_of_a_fork_is_not_lost(tmp_path: Path) -> None:
    """B10: Python only prints exceptions that are raised in callbacks around a fork."""
    _during_fork.append(lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        child(tasks.hang)
    assert child(tasks.give, 1).value == 1
