"""`overnight logs` and `status` of a task that runs where its log cannot be seen."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.local_fleet import ensure_fleet
from tests.support.command import Desk, Finished, desk, finished

FLOW = """
import logging, os, signal, time
from pathlib import Path
from overnight import TaskGraph


def wait_for(path):
    while not Path(path).exists():
        time.sleep(0.02)


def waits(gate):
    print("has begun\\x1b[31m")
    wait_for(gate + ".more")
    logging.getLogger("flow").warning("a warning of the task")
    wait_for(gate)
    print("has ended")


def dies_once(gate):
    first = not Path(gate + ".died").exists()
    print("first" if first else "second", "attempt has begun")
    wait_for(gate + (".more" if first else ""))
    if first:
        Path(gate + ".died").touch()
        print("about to die")
        os.kill(os.getpid(), signal.SIGKILL)


def logs_first(gate):
    logging.getLogger("flow").warning("a warning of the task")
    print("nap 1")
    wait_for(gate + ".more")
    print("nap 2")
    wait_for(gate)
    print("has ended")


def is_silent(gate):
    logging.getLogger("flow").info("dropped")
    wait_for(gate)


def build(*, gate, what="waits"):
    graph = TaskGraph()
    what = {"waits": waits, "dies_once": dies_once, "logs_first": logs_first, "is_silent": is_silent}[what]
    graph.create_task("the task", what, args=[gate], retries=1)
    return graph
"""
HEAD = (
    r"---- the task run \S+ attempt %d "
    r"\(from the server: it runs on \S+, process \d+(, \d+ MB)?; its last lines there\)\n"
)


@pytest.fixture(scope="module")
def place(short_directory: Path) -> Iterator[Desk]:
    """A desk with one worker, which gives a sign of life twice a second; no command asks for another."""
    with pytest.MonkeyPatch.context() as patch, desk(short_directory / "running") as given:
        for name, value in (("OVERNIGHT_HEARTBEAT_SECONDS", "0.5"), ("OVERNIGHT_LEASE_SECONDS", "5")):
            patch.setenv(name, value)
            given.environ[name] = value
        (given.directory / "flow.py").write_text(FLOW)
        lease = ensure_fleet(given.state_dir, workers=1)
        yield given
        lease.close(stop=False)


class Night:
    """A run of one task that waits at a gate, its log where its worker is, out of the sight of some commands."""

    def __init__(self, place: Desk, directory: Path, what: str) -> None:
        self.place, self.gate, self.logs = place, directory / "gate", directory / "logs"
        words = ["-p", f"gate={self.gate}", "-p", f"what={what}", "--task-log-dir", str(self.logs), "-f", "-j", "1"]
        assert place.run("submit", "flow.py:build", *words).status == 0

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command on a machine that has an empty directory in place of that of the logs."""
        self.logs.mkdir(exist_ok=True)
        hidden = ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs none "{self.logs}" && exec "$@"', "sh")
        return self.place.start(*words, inside=hidden)

    def run(self, *words: str) -> Finished:
        return finished(self.start(*words))

    def opens(self, suffix: str = "") -> None:
        """Let the task go on."""
        Path(f"{self.gate}{suffix}").touch()


def read_until(follower: subprocess.Popen[str], words: str) -> str:
    assert follower.stdout is not None
    said = ""
    while words not in said:
        line = follower.stdout.readline()
        assert line, said
        said += line
    return said


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a mount of its own takes root")


def test_the_last_lines_of_a_running_task_are_followed_from_a_machine_that_cannot_see_its_log(
    place: Desk, tmp_path: Path
) -> None:
    """N6."""
    night = Night(place, tmp_path, "waits")
    follower = night.start("logs", "last", "the task", "-f")
    said = read_until(follower, "has begun")
    assert re.fullmatch(HEAD % 1 + r"has begun\\x1b\[31m\n", said), said
    assert re.fullmatch(HEAD % 1 + r"has begun\\x1b\[31m\n", night.run("logs", "last", "the task").out)
    [attempt] = night.run("logs", "last", "the task", "--json").facts["attempts"]
    assert (attempt["attempt"], attempt["from"]) == (1, "server")
    night.opens(".more")
    said = read_until(follower, "a warning of the task")
    assert re.fullmatch(r"the task: \S+ \S+ flow WARNING a warning of the task\n", said), said
    assert follower.poll() is None
    told = night.run("status", "last", "the task")
    assert re.search(
        r"\n  running for [0-9.:]+ s on \S+, process \d+, \d+ MB\n"
        r"    \| has begun\\x1b\[31m\n    \| the task: .*a warning of the task\n",
        told.out,
    ), told.out
    running = night.run("status", "last", "the task", "--json").facts["running"]
    assert running["last_lines"].startswith("has begun\x1b[31m\n")
    night.opens()
    ended = finished(follower)
    assert (ended.status, ended.out) == (0, "")
    lines = ended.err.splitlines()
    assert re.fullmatch(
        rf"Task 'the task' is done; what it wrote after these lines is in {night.logs}/\S+\.log on \S+\.", lines[-1]
    ), lines
    assert "has ended" in place.run("logs", "last", "the task").out


def test_an_attempt_that_ends_is_told_to_its_end_and_the_next_one_follows(place: Desk, tmp_path: Path) -> None:
    """N6."""
    night = Night(place, tmp_path, "dies_once")
    follower = night.start("logs", "last", "the task", "-f")
    said = read_until(follower, "attempt has begun")
    night.opens(".more")
    said += read_until(follower, "second attempt has begun")
    assert re.fullmatch(
        HEAD % 1
        + r"first attempt has begun\nabout to die\nthe task: ended by SIGKILL after .*: TaskDied: .*\n(.*\n)*"
        + HEAD % 2
        + r"second attempt has begun\n",
        said,
    ), said
    night.opens()
    ended = finished(follower)
    assert (ended.status, ended.out) == (0, "")
    assert said.count("about to die") == 1


def test_lines_told_by_the_server_are_not_printed_again_when_the_log_has_them(place: Desk, tmp_path: Path) -> None:
    """What a task prints reaches its log with the first record, or at the end."""
    night = Night(place, tmp_path, "waits")
    follower = place.start("logs", "last", "the task", "-f")
    read_until(follower, "has begun")
    night.opens(".more")
    said = read_until(follower, "a warning of the task")
    assert "has begun" not in said
    night.opens()
    ended = finished(follower)
    assert (ended.status, ended.out) == (0, "has ended\n")


def test_what_a_task_prints_after_its_first_record_is_told_as_it_comes_and_once(place: Desk, tmp_path: Path) -> None:
    """N6: its log has the record alone until it ends."""
    night = Night(place, tmp_path, "logs_first")
    follower = place.start("logs", "last", "the task", "-f")
    said = read_until(follower, "nap 1")
    assert re.fullmatch(r"---- the task run \S+ attempt 1 [-+: 0-9]+\nthe task: .*a warning of the task\nnap 1\n", said)
    plain = place.run("logs", "last", "the task")
    assert plain.out == said
    attempts = place.run("logs", "last", "the task", "--json").facts["attempts"]
    assert [(one["attempt"], one["from"]) for one in attempts] == [(1, "file"), (1, "server")]
    night.opens(".more")
    assert read_until(follower, "nap 2") == "nap 2\n"
    night.opens()
    ended = finished(follower)
    assert (ended.status, ended.out) == (0, "has ended\n")


def test_a_task_that_is_cancelled_is_followed_to_its_end_and_status_shows_what_it_wrote(
    place: Desk, tmp_path: Path
) -> None:
    """N5, N6."""
    night = Night(place, tmp_path, "logs_first")
    follower = place.start("logs", "last", "the task", "-f")
    read_until(follower, "nap 1")
    night.opens(".more")
    assert place.run("cancel", "last").status == 0
    ended = finished(follower)
    assert ended.status == 0
    assert re.fullmatch(r"(nap 2\n)?the task: the process of the task was killed by worker .*\n", ended.out), ended.out
    log = place.run("logs", "last", "the task").out
    assert log.endswith(ended.out)
    assert log.count("nap 1\n") == 1
    told = place.run("status", "last", "the task")
    assert re.search(r"\n  started: [-: 0-9]+\n", told.out), told.out
    assert re.search(
        r"\n  it wrote last:\n    \| the task: .*a warning of the task\n    \| nap 1\n(    \| nap 2\n)?"
        r"    \| the task: the process of the task was killed by worker .*\n",
        told.out,
    ), told.out
    facts = place.run("status", "last", "the task", "--json").facts
    assert facts["last_lines"].startswith("the task: ")
    assert facts["started"] is not None


def test_a_task_that_logs_nothing_that_is_kept_is_told_of_the_option_that_keeps_it(place: Desk, tmp_path: Path) -> None:
    """N1: without -v, records below WARNING are dropped."""
    night = Night(place, tmp_path, "is_silent")
    follower = place.start("logs", "last", "the task", "-f")
    assert follower.stderr is not None
    waiting = follower.stderr.readline()
    assert re.fullmatch(r"Nothing is logged yet; the task is \w+\. Of what tasks log, .* run -v\.\n", waiting), waiting
    so_far = place.run("logs", "last", "the task")
    assert so_far.status == 5
    assert "has written no log so far; it is" in so_far.err
    assert "records below WARNING are kept with run -v" in so_far.err
    night.opens()
    ended = finished(follower)
    assert (ended.status, ended.out) == (0, "")
    assert "wrote nothing to its log. Of what tasks log, records below WARNING are kept with run -v." in ended.err
