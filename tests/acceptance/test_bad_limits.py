"""Tasks that take more than their share of memory, processes or log (ADVERSITY 7, rows 28, 29 and 32)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.support.command import Desk, desk
from tests.support.servers import running_server, server_binary

GRAPHS = "tests.support.graphs"
LOG_BYTES = 100_000


@pytest.fixture(scope="module", params=["warm", "task"])
def bounded(request: pytest.FixtureRequest, short_directory: Path) -> Iterator[Desk]:
    """A desk whose one worker, in either isolation, has a limit of each kind."""
    directory = short_directory / f"bounded-{request.param}"
    limits = ("--isolation", request.param, "--memory-limit", "300", "--process-limit", "40")
    with running_server(server_binary("valkey"), directory / "server") as url, desk(directory) as given:
        given.environ |= {"OVERNIGHT_REDIS_URL": url, "OVERNIGHT_TASK_LOG_BYTES": str(LOG_BYTES)}
        processes = [
            given.start(*words, stdout=None, stderr=None) for words in (("scheduler",), ("worker", "--", *limits))
        ]
        yield given
        assert [process.poll() for process in processes] == [None, None], "a culprit took more along"
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)


@dataclass(frozen=True)
class Beyond:
    """A graph of `culprits` and how its culprit is told to have ended."""

    words: tuple[str, ...]
    message: str


BEYOND = {
    "row 28: more memory than the worker's limit": Beyond(
        (f"{GRAPHS}:holds", "-p", "megabytes=450"),
        r"was killed by its worker, out of memory, seen with \d{3} MB, above the worker's limit of 300 MB\. "
        r"Let the task hold less at once, or raise --memory-limit\.",
    ),
    "row 28: the memory of what it started counts": Beyond(
        (f"{GRAPHS}:holds", "-p", "megabytes=180", "-p", "copies=3"), r"out of memory, seen with \d{3} MB, above"
    ),
    "row 29: more processes than the worker's limit": Beyond(
        (f"{GRAPHS}:forks", "-p", "copies=60"),
        r"was killed by its worker, too many processes, \d+ above the worker's limit of 40\. "
        r"Let the task start fewer processes at once, or raise --process-limit\.",
    ),
    "row 29: each in a session of its own": Beyond(
        (f"{GRAPHS}:forks", "-p", "copies=60", "-p", "sessions=true"), "too many processes"
    ),
}


@pytest.mark.parametrize("beyond", BEYOND.values(), ids=BEYOND.keys())
def test_a_task_beyond_a_limit_of_its_worker_fails_alone(bounded: Desk, tmp_path: Path, beyond: Beyond) -> None:
    ledger = tmp_path / "ledger"
    found = bounded.run("run", *beyond.words, "-p", f"ledger={ledger}", "--keep-going", "--json")
    assert found.status == 1, found.err
    assert "Traceback" not in found.err
    assert found.facts["counts"] == {"done": 1, "failed": 1, "skipped": 1}
    [failed] = found.facts["failed"]
    assert (failed["task"], failed["type"].rpartition(".")[2]) == ("culprit", "TaskDied")
    assert re.search(beyond.message, failed["message"]), failed["message"]
    assert not [pid for pid in map(int, ledger.read_text().split()) if psutil.pid_exists(pid)]


def test_a_log_ends_with_a_notice_where_its_room_is_full_and_the_task_is_done(bounded: Desk) -> None:
    """Row 32: what a task says and does beyond that is not disturbed, and nothing grows."""
    words = ("run", f"{GRAPHS}:shouts", "-p", "megabytes=5", "--task-log-dir", "logs")
    assert bounded.run(*words).status == 0
    log = (bounded.directory / "logs" / "log_culprit.log").read_text()
    assert LOG_BYTES < len(log) < LOG_BYTES + 1000
    first, *_, last = log.splitlines()
    assert first.startswith("---- culprit run ")
    assert last.startswith(f"---- The log ends here: the task wrote more than OVERNIGHT_TASK_LOG_BYTES={LOG_BYTES};")
