"""What a worker tells of the log of a task that runs for long."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import overnight_worker.answers
from overnight.config import read_settings
from overnight.core.states import TaskState
from overnight.keyring import Keyring
from overnight.log_tails import LONGEST_TAIL_BYTES, opened_tail
from overnight.messages import RunContext, TaskFacts
from overnight.naming import log_name
from overnight.store.memory import MemoryStore
from overnight.store.records import Claim, RunRecord
from overnight_worker.batch import ClaimedBatch, Member
from overnight_worker.child_process import ChildProcess
from overnight_worker.last_lines import LastLines
from overnight_worker.post import Post
from tests.support import worker_tasks as tasks
from tests.support.servers import connect
from tests.support.small_scheduler import Plan, SmallScheduler, worker

RUN = RunRecord("r1", "name", "key", "", "me", "here", "3.11", 1, 2, "default", "overnight run x")
BATCH = ClaimedBatch(
    Claim(RUN, "batch", "default", (0,), (2,), (b"",), (b"",), b"", 15.0),
    [Member(0, 0, 2, b"", TaskFacts("a task", "f", "", (), (), (), ()), b"")],
)


@pytest.fixture
def child() -> Iterator[ChildProcess]:
    """A child that has been told to have begun its first task long ago."""
    process = ChildProcess("w")
    process.progress.start(0)
    yield process
    process.kill()
    process.end()


def lines(heartbeat_seconds: float = 0.0) -> LastLines:
    return LastLines(
        Post(MemoryStore(), Keyring(), replace(read_settings(), heartbeat_seconds=heartbeat_seconds), (), "w")
    )


def context(log_dir: Path | None) -> RunContext:
    return RunContext("/", 0o022, {}, [], None if log_dir is None else str(log_dir), 0, None, None)


def told(found: bytes | None) -> str:
    assert found
    return opened_tail(found, "r1", 0, 2, Keyring())


def printed(child: ChildProcess, text: bytes) -> None:
    output = child.output_copy()
    os.write(output, text)
    os.close(output)


def test_nothing_is_read_of_a_task_before_it_has_run_for_a_heartbeat(child: ChildProcess) -> None:
    printed(child, b"a line\n")
    assert lines(heartbeat_seconds=3600).record(child, BATCH, context(None)) == b""
    assert told(lines().record(child, BATCH, context(None))) == "a line\n"
    child.progress.clear()
    assert lines().record(child, BATCH, context(None)) == b""
    assert lines().record(None, BATCH, context(None)) == b""


def test_what_an_attempt_has_logged_goes_before_what_it_has_printed_since(child: ChildProcess, tmp_path: Path) -> None:
    log = tmp_path / log_name("a task")
    log.write_text("---- a task run r1 attempt 1 now\nof the first\n---- a task run r1 attempt 2 now\nlogged\n")
    printed(child, b"printed\n")
    assert told(lines().record(child, BATCH, context(tmp_path))) == "logged\nprinted\n"
    log.write_text("---- a task run r0 attempt 2 now\nof an earlier run\n")
    assert told(lines().record(child, BATCH, context(tmp_path))) == "printed\n"
    log.write_text("---- a task run r1 attempt 2 now\n" + "x" * 79 + "\n" + 10_000 * "a long log\n")
    found = told(lines().record(child, BATCH, context(tmp_path)))
    assert found.endswith("a long log\nprinted\n")
    assert LONGEST_TAIL_BYTES / 2 < len(found) <= LONGEST_TAIL_BYTES


def test_what_is_told_of_much_that_was_printed_begins_with_a_line(child: ChildProcess) -> None:
    """So that it meets what was told before."""
    printed(child, b"".join(b"line %d\n" % number for number in range(2000)))
    assert told(lines().record(child, BATCH, context(None))).startswith("line ")


def test_a_log_that_cannot_be_read_keeps_nobody_waiting(
    child: ChildProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file server that does not answer."""
    answers, asked = threading.Event(), []

    def end_of_log(path: str, _most: int) -> tuple[str, float]:
        asked.append(path)
        assert answers.wait(60)
        return "", 0.0

    monkeypatch.setattr(overnight_worker.answers, "end_of_log", end_of_log)
    printed(child, b"printed\n")
    reader = lines()
    began = time.monotonic()
    assert [reader.record(child, BATCH, context(tmp_path)) for _ in range(20)] == [None] * 20
    assert len(asked) == 1
    assert time.monotonic() - began < 10
    answers.set()
    while (found := reader.record(child, BATCH, context(tmp_path))) is None:
        assert time.monotonic() - began < 60
    assert told(found) == "printed\n"


def test_a_worker_tells_the_last_lines_of_a_long_task_as_they_come_and_forgets_them(
    redis_server: str, tmp_path: Path
) -> None:
    with connect(redis_server) as connection:
        connection.flushall()
    run, gate, logs = SmallScheduler(redis_server), tmp_path / "gate", tmp_path / "logs"
    logs.mkdir()

    def last_lines() -> str:
        for one in run.store.workers():
            if one.task == 0 and (record := run.store.read_tail(one.instance)):
                return opened_tail(record, run.run_id, 0, 1, run.keyring)
        return ""

    with worker(redis_server, tmp_path):
        run.submit([Plan(tasks.speak_until, (str(gate),))], tmp_path, context={"log_dir": str(logs)})
        run.dispatch(0)
        run.wait_for(lambda: last_lines().endswith("has begun\n"))
        gate.with_suffix(".more").touch()
        run.wait_for(lambda: "a warning of the task" in last_lines())
        assert last_lines().startswith("has begun\n")
        assert run.client.hlen("{overnight}:workers:tails") == 1
        assert run.client.ttl("{overnight}:workers:tails") > 0
        gate.touch()
        run.wait_ended(0)
        assert run.state(0) is TaskState.DONE
        run.wait_for(lambda: not run.client.exists("{overnight}:workers:tails"))
    run.close()
