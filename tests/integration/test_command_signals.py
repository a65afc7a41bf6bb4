"""Signals and deaths while `overnight run` watches: what stops, what goes on, what the same command does next."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.embedded import EmbeddedServer
from overnight.local_fleet import ensure_fleet
from tests.support.command import Desk, Finished, desk, finished
from tests.support.graphs import read_ledger
from tests.support.servers import connect


@pytest.fixture(scope="module")
def place(short_directory: Path) -> Iterator[Desk]:
    """A desk whose local processes stay from command to command, because this process uses them too."""
    with desk(short_directory / "signals") as given:
        lease = ensure_fleet(given.state_dir, workers=2)
        yield given
        lease.close(stop=False)


class Gated:
    """A run whose first task waits for a gate that this test opens; two further tasks follow it."""

    def __init__(self, place: Desk, name: str) -> None:
        self._place = place
        self.ledger = place.directory / f"{name}.ledger"
        self._fifo = place.directory / f"{name}.fifo"
        os.mkfifo(self._fifo)
        parameters = ["-p", f"fifo={self._fifo}", "-p", f"ledger={self.ledger}", "-p", "n=2"]
        self.target = ["tests.support.graphs:gated", *parameters]

    def start(self, verb: str = "run", *more: str) -> subprocess.Popen[str]:
        return self._place.start(verb, *self.target, *more)

    def reach(self) -> int:
        """Wait until the gate's task runs; return what opens the gate when it is closed."""
        return os.open(self._fifo, os.O_WRONLY)

    def starts(self) -> list[str]:
        return [task_id for event, task_id in read_ledger(self.ledger) if event == "start"]


def said(process: subprocess.Popen[str], text: str) -> str:
    """Read what a command prints until a line holds `text`; return that line."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f"it never said {text!r}; on stderr: {process.communicate()[1]}")


def test_the_first_signal_lets_running_tasks_finish_and_the_same_command_continues(place: Desk) -> None:
    """QX7, P15."""
    gated = Gated(place, "once")
    process = gated.start()
    gate = gated.reach()
    process.send_signal(signal.SIGINT)
    said(process, "Stopping: nothing new starts; what runs has 10 s.")
    os.close(gate)
    ended = finished(process)
    assert ended.status == 130
    assert "cancelled after" in ended.out
    assert ended.out.splitlines()[-1].startswith("Stopped by a signal; what is finished is kept. This continues: ")
    assert gated.starts() == ["gate"]
    continued = finished(gated.start())
    assert continued.status == 0
    assert sorted(gated.starts()) == ["entry 0", "entry 1", "gate"]


def test_the_second_signal_stops_what_runs(place: Desk) -> None:
    gated = Gated(place, "twice")
    process = gated.start()
    gate = gated.reach()
    process.send_signal(signal.SIGTERM)
    said(process, "nothing new starts")
    process.send_signal(signal.SIGTERM)
    ended = finished(process)
    os.close(gate)
    assert ended.status == 143
    assert read_ledger(gated.ledger) == [("start", "gate")]


def test_a_run_that_no_scheduler_serves_is_left_at_once(tmp_path: Path, redis_url: str) -> None:
    """QX7: nothing can end it, so nothing is waited for; the next scheduler does."""
    with desk(tmp_path / "unattended") as place:
        process = place.start("run", "tests.support.graphs:diamond", "-u", redis_url)
        assert process.stderr is not None
        assert "No scheduler serves this server" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        ended = finished(process)
    assert ended.status == 130
    assert ended.out.splitlines()[-1].startswith("Stopped; the next scheduler ends run ")


def test_a_wait_for_an_earlier_run_to_end_is_told_and_can_be_stopped(tmp_path: Path, redis_url: str) -> None:
    """QX7: a command that was stopped where no scheduler is waits for one when it is given again."""
    with desk(tmp_path / "again") as place:
        diamond = ("run", "tests.support.graphs:diamond", "-u", redis_url)
        first = place.start(*diamond)
        assert first.stderr is not None
        assert "No scheduler serves this server" in first.stderr.readline()
        first.send_signal(signal.SIGINT)
        assert finished(first).status == 130
        again = place.start(*diamond)
        assert again.stderr is not None
        line = again.stderr.readline()
        assert "is still being cancelled; its end is waited for. No scheduler is there to end it: overnight sch" in line
        again.send_signal(signal.SIGTERM)
        ended = finished(again)
    assert ended.status == 143
    assert ended.out.splitlines()[-1].startswith("Stopped while no run of it was in place. This continues: overnight ")


def test_a_killed_client_lets_the_run_go_on_and_the_same_command_attaches(place: Desk) -> None:
    """QX7: it is not started a second time."""
    gated = Gated(place, "killed")
    process = gated.start()
    gate = gated.reach()
    process.kill()
    finished(process)
    again = gated.start()
    said(again, "Attached to run")
    said(again, "Stopping this command (Ctrl-C) stops the run.")
    os.close(gate)
    assert finished(again).status == 0
    assert sorted(gated.starts()) == ["entry 0", "entry 1", "gate"]


def test_a_forced_command_is_refused_beside_its_run_without_force_and_attaches_to_its_own(place: Desk) -> None:
    """ADVERSITY 7, number 41."""
    gated = Gated(place, "forced")
    process = gated.start()
    gate = gated.reach()
    forced = finished(gated.start("run", "-f"))
    assert forced.status == 5
    assert f"is in use by run {place.run('status', '--json').facts['run']} " in forced.sentence
    os.close(gate)
    assert finished(process).status == 0
    process = gated.start("run", "-f")
    gate = gated.reach()
    again = gated.start("run", "-f")
    said(again, "Attached to run")
    os.close(gate)
    assert (finished(process).status, finished(again).status) == (0, 0)
    assert gated.starts().count("gate") == 2


def test_attaching_lets_go_on_what_a_killed_client_had_paused(place: Desk) -> None:
    gated = Gated(place, "paused")
    process = gated.start()
    gate = gated.reach()
    process.send_signal(signal.SIGINT)
    said(process, "nothing new starts")
    while not place.run("status", "--json").facts["paused"]:
        pass
    process.kill()
    finished(process)
    again = gated.start()
    said(again, "It was paused and goes on.")
    os.close(gate)
    assert finished(again).status == 0


def test_a_hang_up_lets_the_run_go_on(place: Desk) -> None:
    gated = Gated(place, "hangup")
    process = gated.start()
    gate = gated.reach()
    process.send_signal(signal.SIGHUP)
    assert finished(process).status == 129
    os.close(gate)
    assert place.run("follow").status == 0
    assert sorted(gated.starts()) == ["entry 0", "entry 1", "gate"]


def test_a_run_cancelled_from_elsewhere_exits_with_5(place: Desk) -> None:
    gated = Gated(place, "cancelled")
    process = gated.start()
    gate = gated.reach()
    assert place.run("cancel").status == 0
    ended = finished(process)
    os.close(gate)
    assert ended.status == 5
    assert "cancelled from elsewhere" in ended.out


def test_a_run_that_redis_forgets_is_put_in_place_again(place: Desk) -> None:
    """P9: what the flags prove is kept."""
    ledger = place.directory / "forgotten.ledger"
    first = ("run", "tests.support.graphs:ledger_chain", "-p", f"ledger={ledger}", "-p", "n=30", "-p", "seconds=0.1")
    process = place.start(*first)
    said(process, "tasks to run")
    while len(read_ledger(ledger)) < 10:
        pass
    with connect(EmbeddedServer(place.state_dir).url) as connection:
        connection.flushall()
    said(process, "Redis no longer knows the run; what is recorded as finished is kept.")
    assert finished(process).status == 0
    assert read_ledger(ledger).count(("start", "entry 0")) == 1
    assert len({task for event, task in read_ledger(ledger) if event == "end"}) == 30


@pytest.mark.parametrize("lost", ["specs", "meta"])
def test_a_run_of_which_redis_forgets_a_part_comes_to_its_end(place: Desk, lost: str) -> None:
    """P9: found at once, or when its results are checked."""
    gated = Gated(place, f"half-{lost}")
    process = gated.start()
    gate = gated.reach()
    with connect(EmbeddedServer(place.state_dir).url) as connection:
        keys = list(connection.scan_iter(f"*:{lost}"))
        assert connection.delete(*keys)
    os.close(gate)
    ended = finished(process)
    assert ended.status == 0, ended
    assert {task for event, task in read_ledger(gated.ledger) if event == "end"} == {"gate", "entry 0", "entry 1"}


def test_a_signal_before_anything_is_started_says_so(place: Desk) -> None:
    slow = place.directory / "slow_to_import.py"
    slow.write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    process = place.start("run", "slow_to_import:build")
    said(process, "importing")
    process.send_signal(signal.SIGINT)
    ended: Finished = finished(process)
    assert (ended.status, ended.sentence) == (130, "overnight: Interrupted before anything was started.")
