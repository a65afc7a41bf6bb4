"""What a worker makes of tasks that fork, close, drop and leave behind what they should not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from overnight.core.states import TaskState
from overnight.errors import RemoteTaskError, TaskDied
from overnight.naming import log_name
from tests.support import rogues
from tests.support import worker_tasks as tasks
from tests.support.small_scheduler import Plan, SmallScheduler, WorkerProcess, worker


@pytest.fixture
def running_worker(redis_url: str, tmp_path: Path) -> Iterator[WorkerProcess]:
    (tmp_path / "worker").mkdir()
    with worker(redis_url, tmp_path / "worker") as process:
        yield process


@pytest.fixture
def run(redis_url: str, running_worker: WorkerProcess) -> Iterator[SmallScheduler]:
    scheduler = SmallScheduler(redis_url)
    yield scheduler
    scheduler.close()


def results(run: SmallScheduler, tmp_path: Path, plans: list[Plan], **context: Any) -> list[Any]:
    """Run the tasks as one batch; return the result of each, or its exception."""
    run.submit(plans, tmp_path, context=context)
    run.dispatch(*range(len(plans)))
    run.wait_ended()
    done = [run.state(number) is TaskState.DONE for number in range(len(plans))]
    return [run.result(number) if ok else run.error(number) for number, ok in enumerate(done)]


def test_a_copy_that_a_task_forked_and_forgot_never_answers_for_a_task(run: SmallScheduler, tmp_path: Path) -> None:
    """P2: section 7, 29."""
    plans = [
        Plan(rogues.forks_and_lets_the_copy_return),
        Plan(tasks.answer),
        Plan(rogues.forks_and_lets_the_copy_raise),
        Plan(tasks.plus, (1, 2)),
    ]
    assert results(run, tmp_path, plans) == ["original", 42, "original", 3]


def test_a_death_is_noticed_at_once_though_a_copy_of_the_process_lives_on(run: SmallScheduler, tmp_path: Path) -> None:
    """P6, B18."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    error, answer = results(run, tmp_path, [Plan(rogues.crashes_beside_a_copy, (str(fifo),)), Plan(tasks.answer)])
    assert isinstance(error, TaskDied)
    assert (error.signal, answer) == ("SIGSEGV", 42)


@pytest.mark.parametrize("rogue", [rogues.closes_its_output, rogues.drops_its_streams])
def test_output_goes_to_the_log_of_its_task_whatever_the_one_before_did_to_the_streams(
    run: SmallScheduler, tmp_path: Path, rogue: Any
) -> None:
    """Section 7, 32 and 33."""
    logs = tmp_path / "logs"
    logs.mkdir()
    results(run, tmp_path, [Plan(rogue), Plan(rogues.prints, ("heard",), task_id="prints")], log_dir=str(logs))
    assert (logs / log_name("prints")).read_text().splitlines()[1:] == ["heard", "heard by its descriptor"]


def test_each_log_begins_with_its_own_tasks_output(run: SmallScheduler, tmp_path: Path) -> None:
    """N4."""
    logs = tmp_path / "logs"
    logs.mkdir()
    plans = [Plan(rogues.prints, (f"line {number}",), task_id=f"prints {number}") for number in range(3)]
    results(run, tmp_path, plans, log_dir=str(logs))
    for number in range(3):
        _, *printed = (logs / log_name(f"prints {number}")).read_bytes().splitlines()
        assert printed == [f"line {number}".encode(), f"line {number} by its descriptor".encode()]


def test_a_daemon_that_a_task_left_ends_with_the_worker(
    run: SmallScheduler, running_worker: WorkerProcess, tmp_path: Path
) -> None:
    """Section 7, 29."""
    (pid,) = results(run, tmp_path, [Plan(rogues.starts_a_daemon)])
    daemon = psutil.Process(pid)
    assert daemon.is_running()
    running_worker.stop()
    assert not daemon.is_running()


def test_an_exception_too_large_to_travel_is_told_by_its_text(run: SmallScheduler, tmp_path: Path) -> None:
    """Section 7, 23."""
    (error,) = results(run, tmp_path, [Plan(rogues.raises_at_length, (5_000_000,))])
    assert isinstance(error, RemoteTaskError)
    assert error.type_name == "ValueError"
    assert len(error.message.encode()) <= 64 * 1024
