"""What is certified of each failed attempt: by the worker that ran it, and by the scheduler where that one vanished."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.certificates import BY_EXCEPTION, BY_TIME_LIMIT, LONGEST_TAIL_BYTES, DeathCertificate
from overnight.core.states import TaskState
from tests.support import worker_tasks as tasks
from tests.support.servers import connect
from tests.support.small_scheduler import Plan, SmallScheduler, WorkerProcess, worker


@pytest.fixture(scope="module")
def running(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, WorkerProcess]]:
    with connect(redis_server) as connection:
        connection.flushall()
    with worker(redis_server, tmp_path_factory.mktemp("worker"), "--name", "here:1", PYTHONUNBUFFERED="") as process:
        yield redis_server, process


@pytest.fixture
def run(running: tuple[str, WorkerProcess]) -> Iterator[SmallScheduler]:
    scheduler = SmallScheduler(running[0])
    yield scheduler
    scheduler.close()


def certificates(run: SmallScheduler, task: int = 0) -> list[DeathCertificate]:
    """Those of a task, by attempt."""
    sealed = run.store.read_certificates(run.run_id, [task]).get(task, [])
    opened = [DeathCertificate.opened(record, run.run_id, task, run.keyring) for record in sealed]
    return sorted(opened, key=lambda certificate: certificate.attempt)


def certified(run: SmallScheduler, directory: Path, plan: Plan, *, log_dir: str | None = None) -> DeathCertificate:
    """Run one task that fails."""
    run.submit([plan], directory, context={"log_dir": log_dir})
    run.dispatch(0)
    run.wait_ended(0)
    (certificate,) = certificates(run)
    return certificate


def test_an_exception_is_certified_with_its_place(run: SmallScheduler, tmp_path: Path) -> None:
    found = certified(run, tmp_path, Plan(tasks.fail))
    assert (found.attempt, found.ended_by, found.type_name) == (1, BY_EXCEPTION, "ValueError")
    assert (found.message, found.worker) == ("no such chromosome", "here:1")
    assert found.place is not None
    assert found.place.startswith("worker_tasks.py:")
    assert found.place.endswith(" in fail")
    assert found.peak_memory > 1e6
    assert found.seconds is not None
    assert found.started is not None


@pytest.mark.parametrize("with_log", [True, False])
def test_what_a_task_printed_and_logged_last_is_kept_wherever_its_log_is(
    run: SmallScheduler, tmp_path: Path, with_log: bool
) -> None:
    found = certified(run, tmp_path, Plan(tasks.speak_at_length_and_fail), log_dir=str(tmp_path) if with_log else None)
    assert len(found.tail.encode()) <= LONGEST_TAIL_BYTES
    lines = found.tail.splitlines()
    assert set(lines[:-1]) == {"\x1b[31mred line"}
    assert lines[-1] == "the last line"
    assert "Traceback" not in found.tail


@pytest.mark.parametrize("with_log", [True, False])
def test_a_crash_is_certified_by_its_signal_with_the_last_words(
    run: SmallScheduler, tmp_path: Path, with_log: bool
) -> None:
    found = certified(run, tmp_path, Plan(tasks.crash), log_dir=str(tmp_path) if with_log else None)
    assert (found.ended_by, found.type_name) == ("SIGSEGV", "overnight.errors.TaskDied")
    assert found.tail.count("last words") == 1
    assert found.peak_memory > 1e6


def test_a_death_tells_what_its_log_ended_with_and_nothing_of_the_attempt_before(
    run: SmallScheduler, tmp_path: Path
) -> None:
    run.submit([Plan(tasks.log_and_die)], tmp_path, context={"log_dir": str(tmp_path)})
    for attempt in (1, 2):
        run.dispatch(0)
        run.wait_for(lambda count=attempt: len(certificates(run)) == count)  # type: ignore[misc]
        run.settle_again(0)
    first, second = certificates(run)
    assert [first.attempt, second.attempt] == [1, 2]
    assert first.tail.count("about to die") == second.tail.count("about to die") == 1


def test_a_death_tells_what_a_task_has_printed_and_not_flushed(run: SmallScheduler, tmp_path: Path) -> None:
    assert certified(run, tmp_path, Plan(tasks.print_and_die)).tail == "not flushed"


def test_a_death_tells_nothing_of_what_an_earlier_run_has_logged(
    running: tuple[str, WorkerProcess], tmp_path: Path
) -> None:
    for call in (tasks.log_and_die, tasks.kill_itself):
        run = SmallScheduler(running[0])
        found = certified(run, tmp_path, Plan(call), log_dir=str(tmp_path))
        run.close()
    assert (found.ended_by, found.tail) == ("SIGKILL", "")


def test_exit_and_time_limits_are_certified_as_such(run: SmallScheduler, tmp_path: Path) -> None:
    plans = [
        Plan(tasks.leave, (7,)),
        Plan(tasks.sleep, (60.0,), timeout=0.2),
        Plan(tasks.block_in_c, (60,), timeout=0.2),
    ]
    run.submit(plans, tmp_path)
    for task in range(3):
        run.dispatch(task)
    run.wait_ended()
    assert [certificates(run, task)[0].ended_by for task in range(3)] == ["exit status 7", *[BY_TIME_LIMIT] * 2]


def test_a_success_has_no_certificate(run: SmallScheduler, tmp_path: Path) -> None:
    run.submit([Plan(tasks.answer)], tmp_path)
    run.dispatch(0)
    run.wait_ended()
    assert run.state(0) is TaskState.DONE
    assert certificates(run) == []
