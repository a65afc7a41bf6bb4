"""Tasks that ask for more memory than there is (ADVERSITY 7, row 28, and P10; BEHAVIOUR O7, QX4).

The kernel's own kills, in a memory cgroup that each test makes and removes. A machine must offer a cgroup hierarchy
with a memory controller, of version 1 or 2, in which tests may make a directory below or beside the group they run in:
as root, or where one is delegated to them. Elsewhere these tests are skipped and say what is missing; that a task is
refused memory within a limit of its process is tested everywhere.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Desk, Finished, desk, finished
from tests.support.hungry import INNOCENT
from tests.support.memory_group import MemoryGroup, memory_group, why_none

GRAPHS = "tests.support.hungry"
MB = 1_000_000
_KILLED = re.compile(
    r"The process of the task on worker \S+:(?P<pid>\d+) was killed by the kernel, out of memory "
    r"\(SIGKILL, peak memory (?P<peak>\d+) MB, limit of its cgroup (?P<limit>\d+) MB\)\. "
    r"Let the task hold less at once, run fewer tasks beside it \(-j\), or raise the limit\."
)


@pytest.fixture(scope="module")
def possible() -> None:
    missing = why_none()
    if missing is not None:
        pytest.skip(missing)


@contextmanager
def cramped(directory: Path, limit: int, **environ: str) -> Iterator[tuple[Desk, MemoryGroup]]:
    """A desk and a group for its commands."""
    with memory_group(limit) as group, desk(directory) as given:
        given.environ |= environ
        yield given, group


def run_inside(given: Desk, group: MemoryGroup, *words: str) -> Finished:
    """Carry out ``overnight run``; it and all that it starts is in the group."""
    return finished(given.start("run", *words, preexec_fn=group.enter))


def starts(ledger: Path) -> list[str]:
    """The process of each start of the hungry task."""
    return ledger.read_text().split()


def log_of(given: Desk, name: str) -> str:
    """What a process of the fleet has logged."""
    return (given.state_dir / "logs" / f"{name}.log").read_text()


@pytest.mark.usefixtures("possible")
def test_the_kernels_kill_is_told_in_one_sentence_and_costs_its_task_alone(
    short_directory: Path, tmp_path: Path
) -> None:
    """Row 28, QX4: the task is named, and what may be done; the worker and all innocent tasks live on."""
    ledger = tmp_path / "ledger"
    with cramped(short_directory / "oom", 400 * MB) as (given, group):
        words = (f"{GRAPHS}:unbounded", "-p", f"ledger={ledger}", "-k", "-j", "2")
        found = run_inside(given, group, *words)
        assert found.status == 1, found.err
        assert "Traceback" not in found.out + found.err
        assert f"{INNOCENT} done, 1 failed, 1 skipped" in found.out
        (line,) = [line for line in found.out.splitlines() if "failed: " in line]
        assert line.strip().startswith("failed: hungry: TaskDied: ")
        told = _KILLED.search(line)
        assert told, line
        assert int(told["limit"]) == 400
        assert 20 < int(told["peak"]) < 400
        assert len(starts(ledger)) == 1
        # The worker lived until the fleet was stopped.
        assert "restarting" not in log_of(given, "keeper")
        assert any(f":{told['pid']} has stopped" in log_of(given, f"worker-default-{number}") for number in (1, 2))
        again = run_inside(given, group, *words, "-n")
        assert f"2 of {INNOCENT + 2} tasks would run" in again.out


@pytest.mark.usefixtures("possible")
def test_a_killed_task_uses_up_its_retries(short_directory: Path, tmp_path: Path) -> None:
    """P10, O7: the kill of a task's own process is that task's fault."""
    ledger = tmp_path / "ledger"
    with cramped(short_directory / "oom-again", 400 * MB) as (given, group):
        words = (f"{GRAPHS}:unbounded", "-p", f"ledger={ledger}", "-p", "retries=1", "-k", "-j", "1", "--json")
        found = run_inside(given, group, *words)
    assert found.status == 1
    assert found.facts["counts"] == {"done": INNOCENT, "failed": 1, "skipped": 1}
    assert _KILLED.match(found.facts["failed"][0]["message"])
    assert len(set(starts(ledger))) == 2


@pytest.mark.usefixtures("possible")
def test_the_kernel_takes_the_process_of_the_task_before_a_larger_one(short_directory: Path, tmp_path: Path) -> None:
    """Row 28: here the client holds more than the task, and would go first were all alike to the kernel."""
    ledger = tmp_path / "ledger"
    with cramped(short_directory / "oom-large", 600 * MB) as (given, group):
        words = (f"{GRAPHS}:unbounded", "-p", f"ledger={ledger}", "-p", "ballast=250", "-k", "-j", "2", "--json")
        found = run_inside(given, group, *words)
    assert found.status == 1, found.err
    assert found.facts["counts"] == {"done": INNOCENT, "failed": 1, "skipped": 1}
    told = _KILLED.match(found.facts["failed"][0]["message"])
    assert told
    assert int(told["peak"]) < 250, "the task was larger than the client: the limit is too high for this test"


@pytest.mark.usefixtures("possible")
def test_a_supervisor_that_the_kernel_kills_costs_the_task_no_retry(short_directory: Path, tmp_path: Path) -> None:
    """O7: such a loss is the worker's; the task, which has no retries, runs again on the next one."""
    ledger = tmp_path / "ledger"
    quick = {"OVERNIGHT_LEASE_SECONDS": "1.5", "OVERNIGHT_HEARTBEAT_SECONDS": "0.5"}
    with cramped(short_directory / "oom-worker", 400 * MB, **quick) as (given, group):
        words = (f"{GRAPHS}:takes_its_supervisor_along", "-p", f"ledger={ledger}", "-j", "1", "--json")
        found = run_inside(given, group, *words)
        assert "worker-default-1 (pid " in log_of(given, "keeper")
        assert "ended: SIGKILL; restarting" in log_of(given, "keeper")
    assert found.status == 0, found.err
    assert found.facts["counts"] == {"done": INNOCENT + 2}
    assert len(starts(ledger)) == 1


@contextmanager
def worker_apart(directory: Path, url: str, enter: Callable[[], None], *options: str) -> Iterator[Desk]:
    """A desk with a scheduler and, behind `enter`, a worker of its own on a server."""
    with desk(directory) as given:
        given.environ["OVERNIGHT_REDIS_URL"] = url
        output: dict[str, Any] = {"stdout": None, "stderr": None}
        processes = [
            given.start("scheduler", **output),
            given.start("worker", *options, preexec_fn=enter, **output),
        ]
        try:
            yield given
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(30)


@pytest.mark.usefixtures("possible")
def test_a_task_in_a_process_of_its_own_is_told_likewise(short_directory: Path, tmp_path: Path, redis_url: str) -> None:
    """Row 28, B17."""
    words = (f"{GRAPHS}:unbounded", "-p", f"ledger={tmp_path / 'ledger'}", "-k", "--json")
    with (
        memory_group(200 * MB) as group,
        worker_apart(tmp_path, redis_url, group.enter, "--isolation", "task", "--name", "here:1") as given,
    ):
        found = given.run("run", *words)
    assert found.status == 1, found.err
    assert found.facts["counts"] == {"done": INNOCENT, "failed": 1, "skipped": 1}
    assert _KILLED.match(found.facts["failed"][0]["message"])


@pytest.mark.parametrize("isolation", ["warm", "task"])
def test_a_task_that_is_refused_memory_fails_and_says_how_much_it_had(
    tmp_path: Path, redis_url: str, isolation: str
) -> None:
    """Row 28: a limit of the process, as by ``ulimit -v``, is Python's MemoryError and an ordinary failure."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (700 * MB, 700 * MB))

    words = (f"{GRAPHS}:unbounded", "-p", f"ledger={tmp_path / 'ledger'}", "-k", "--json")
    with worker_apart(tmp_path, redis_url, limited, "--isolation", isolation) as given:
        found = given.run("run", *words)
    assert found.status == 1, found.err
    assert found.facts["counts"] == {"done": INNOCENT, "failed": 1, "skipped": 1}
    (failed,) = found.facts["failed"]
    assert failed["type"].endswith("MemoryError")
    assert re.search(r"gave the task no more memory \(peak memory \d+ MB, ulimit 700 MB\)", failed["message"])
