"""A scheduler or a worker that is started by hand without a URL: its embedded server lives as long as it does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from overnight.embedded import EmbeddedServer
from overnight.fleet_files import fleet_files
from overnight.local_fleet import IDLE_VARIABLE
from overnight.state_dir import wait_until
from tests.support.command import Desk, desk
from tests.support.servers import connect

SECONDS = 30.0
PROGRAMS = {
    "scheduler": ["-m", "overnight.commands", "scheduler"],
    "worker": ["-m", "overnight.commands", "worker", "-j", "2"],
}


@contextmanager
def started(program: str, state_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, IDLE_VARIABLE: "0.5", "OVERNIGHT_STATE_DIR": str(state_dir)}
    environment.pop("OVERNIGHT_REDIS_URL", None)
    process = subprocess.Popen([sys.executable, *PROGRAMS[program]], env=environment, cwd=state_dir.parent)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(SECONDS)


@pytest.mark.parametrize("program", PROGRAMS)
def test_its_server_comes_back_after_a_kill_and_ends_after_the_last_user(program: str, tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "state")
    with started(program, tmp_path / "state") as process:
        assert wait_until(server.is_running, SECONDS)
        with connect(server.url) as client:
            first = client.info("server")["process_id"]
        os.kill(first, signal.SIGKILL)
        assert wait_until(lambda: server.is_running() and server_pid(server) != first, SECONDS)
        assert process.poll() is None
    assert process.returncode == 0
    assert wait_until(lambda: not server.is_present(), SECONDS)


def test_workers_that_were_started_by_hand_are_given_none_beside_them(short_directory: Path) -> None:
    """Who follows or retries a run that they serve wants no others, which would lack their limits."""
    with desk(short_directory / "hand") as given, started("worker", given.state_dir):
        assert wait_until(lambda: len(workers_of(given)) == 2, SECONDS)
        by_hand = workers_of(given)
        assert given.run("submit", "tests.support.graphs:raises", "-k", "-j", "0").status == 0
        assert given.run("follow").status == 1
        assert given.run("retry").status == 0
        assert given.run("follow").status == 1
        assert workers_of(given) == by_hand
        assert not [slot for slot in fleet_files(given.state_dir, None).known_slots() if slot.startswith("worker")]


def workers_of(given: Desk) -> set[int]:
    found = given.run("workers", "--json")
    return {worker["pid"] for worker in found.facts} if found.status == 0 else set()


def server_pid(server: EmbeddedServer) -> int:
    with connect(server.url) as client:
        return int(client.info("server")["process_id"])


def test_a_queue_without_a_name_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "overnight.commands", "worker", "-q", ""]
    run = subprocess.run(
        command, env={**os.environ, "OVERNIGHT_STATE_DIR": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (2, "overnight worker: A queue needs a name: -q was given an empty one.\n")


@pytest.mark.parametrize("words", [["--isolatoin", "task"], ["--isolation", "none"], ["--tasks-per-child", "x"]])
def test_what_was_typed_wrongly_for_a_worker_is_one_sentence(tmp_path: Path, words: list[str]) -> None:
    command = [sys.executable, "-m", "overnight.commands", "worker", *words]
    run = subprocess.run(
        command, env={**os.environ, "OVERNIGHT_STATE_DIR": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    [line] = run.stderr.splitlines()
    assert line.startswith("overnight: ")
    assert line.endswith("'overnight worker --help' shows what can be given.")
