"""What the log of a task holds whose process is killed: because its run is cancelled, its worker ends, or by itself."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.core.states import TaskState
from overnight.naming import log_name
from overnight.store.records import Request
from overnight_worker.answers import LEFT_OUT
from tests.support import worker_tasks as tasks
from tests.support.servers import connect
from tests.support.small_scheduler import Plan, SmallScheduler, worker

PRINTED = [f"line {number}" for number in range(2000)]


@pytest.fixture
def run(redis_server: str) -> Iterator[SmallScheduler]:
    with connect(redis_server) as connection:
        connection.flushall()
    scheduler = SmallScheduler(redis_server)
    yield scheduler
    scheduler.close()


def log_of(directory: Path, task_id: str = "task-0") -> list[str]:
    return (directory / log_name(task_id)).read_text().splitlines()


def has_begun(gate: Path) -> None:
    deadline, look = time.monotonic() + 30, threading.Event()
    while not Path(f"{gate}.begun").exists():
        assert time.monotonic() < deadline
        look.wait(0.02)


def test_a_cancelled_task_leaves_all_that_it_printed_and_why_it_ended_in_its_log(
    run: SmallScheduler, tmp_path: Path, redis_server: str
) -> None:
    """N5."""
    gate = tmp_path / "gate"
    run.submit([Plan(tasks.print_and_wait, (str(gate),))], tmp_path, context={"log_dir": str(tmp_path)})
    with worker(redis_server, tmp_path, "--name", "here:1"):
        run.dispatch(0)
        has_begun(gate)
        run.store.request(run.run_id, Request.CANCEL)
        run.wait_for(lambda: run.state(0) is TaskState.PENDING)
    separator, *lines, end = log_of(tmp_path)
    assert separator.startswith(f"---- task-0 run {run.run_id} attempt 1 ")
    assert lines == [*PRINTED, "the last line"]
    assert re.fullmatch(
        r"task-0: the process of the task was killed by worker here:1 after \d+\.\d s, "
        r"as its run is cancelled or over; peak memory \d+ MB",
        end,
    ), end


def test_a_task_that_is_stopped_with_its_worker_leaves_what_it_printed(
    run: SmallScheduler, tmp_path: Path, redis_server: str
) -> None:
    """N5."""
    gate = tmp_path / "gate"
    run.submit([Plan(tasks.print_and_wait, (str(gate),))], tmp_path, context={"log_dir": str(tmp_path)})
    with worker(redis_server, tmp_path, OVERNIGHT_DRAIN_SECONDS="0.5") as running:
        run.dispatch(0)
        has_begun(gate)
        assert running.stop() == 0
    _, *lines, end = log_of(tmp_path)
    assert lines == [*PRINTED, "the last line"]
    assert ", as its worker ends; " in end


@pytest.mark.parametrize("fork_tasks", [False, True])
def test_a_task_that_dies_leaves_all_that_it_printed(
    run: SmallScheduler, tmp_path: Path, redis_server: str, fork_tasks: bool
) -> None:
    """N5."""
    context = {"log_dir": str(tmp_path), "fork_tasks": fork_tasks}
    run.submit([Plan(tasks.print_much_and_die)], tmp_path, context=context)
    with worker(redis_server, tmp_path):
        run.dispatch(0)
        run.wait_ended(0)
    _, *lines, end = log_of(tmp_path)
    assert lines == PRINTED
    assert end.startswith("task-0: the process of the task was killed by SIGKILL")


def test_of_more_output_than_a_log_takes_the_end_is_kept(
    run: SmallScheduler, tmp_path: Path, redis_server: str
) -> None:
    run.submit([Plan(tasks.print_much_and_die)], tmp_path, context={"log_dir": str(tmp_path)})
    with worker(redis_server, tmp_path, OVERNIGHT_TASK_LOG_BYTES="10000"):
        run.dispatch(0)
        run.wait_ended(0)
    _, left_out, *lines, end = log_of(tmp_path)
    assert f"{left_out}\n" == LEFT_OUT
    assert lines[1:] == PRINTED[-len(lines) + 1 :]
    assert len(lines) > 100
    assert end.startswith("task-0: the process of the task was killed by SIGKILL")
