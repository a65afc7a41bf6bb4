"""Ctrl-C in a driver of one's own: what runs has its time, a second one ends it, the same command continues (QX7)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.command import ROOT
from tests.support.ledgers import read_ledger
from tests.support.sites import SECONDS, Site

CLIENT = Path(__file__).parents[1] / "support" / "gated_client.py"


class Script:
    """A driver whose first task waits for a gate that the test opens."""

    def __init__(self, site: Site, directory: Path) -> None:
        self._site = site
        self._fifo = directory / "gate"
        self.ledger = directory / "ledger"
        self._flags = directory / "flags"
        os.mkfifo(self._fifo)

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", str(CLIENT), str(self._fifo), str(self.ledger), str(self._flags)],
            cwd=self._site.directory,
            env={**self._site.environment(), "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def reach(self) -> int:
        """Wait until the gate's task runs; return what opens the gate when it is closed."""
        return os.open(self._fifo, os.O_WRONLY)


def ended(process: subprocess.Popen[str]) -> list[str]:
    """Wait for the end; return the lines that were logged and not read yet."""
    return process.communicate(timeout=SECONDS)[1].splitlines()


def interrupted_line(process: subprocess.Popen[str]) -> str:
    """Send an interrupt and return what is logged next."""
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    return process.stderr.readline()


def test_an_interrupt_lets_running_tasks_finish_and_the_same_script_continues(site: Site, tmp_path: Path) -> None:
    """QX7: nothing new starts, and what ended in its time is recorded."""
    script = Script(site, tmp_path)
    process = script.start()
    gate = script.reach()
    assert interrupted_line(process) == "Stopping: nothing new starts; what runs has 10 s. Interrupt again to end it.\n"
    os.close(gate)
    lines = ended(process)
    assert process.returncode == 130
    assert lines[-1] == "Stopped by an interrupt; what is finished is recorded, and the same command continues."
    assert read_ledger(script.ledger) == [("start", "gate"), ("end", "gate")]
    again = script.start()
    ended(again)
    assert again.returncode == 0
    assert sorted(task_id for event, task_id in read_ledger(script.ledger) if event == "start") == [
        "entry 0",
        "entry 1",
        "gate",
    ]


def test_a_second_interrupt_ends_what_runs(site: Site, tmp_path: Path) -> None:
    """QX7."""
    script = Script(site, tmp_path)
    process = script.start()
    gate = script.reach()
    assert interrupted_line(process).startswith("Stopping: ")
    process.send_signal(signal.SIGINT)
    lines = ended(process)
    os.close(gate)
    assert process.returncode == 130
    assert "the same command continues" in lines[-1]
    assert read_ledger(script.ledger) == [("start", "gate")]
