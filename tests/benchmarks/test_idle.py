"""What overnight takes of a machine while there is nothing to do (ADVERSITY 2, P12, P16)."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from overnight.client import Client
from overnight.core.states import RunPhase
from tests.benchmarks.processes import fleet
from tests.support.graphs import noops

RUNS = 100
WATCHED_SECONDS = 15.0
MOST_OF_A_CORE = 0.01


@pytest.mark.timeout(180)
def test_a_hundred_runs_that_wait_take_no_time_of_anybody(short_directory: Path) -> None:
    """All processes together, the server and its keeper too: nothing is asked for again and again."""
    state_dir = short_directory / "idle"
    with Client(state_dir=state_dir, workers=2) as client:
        client.submit(noops(n=1))
        assert client.wait() is RunPhase.SUCCEEDED
        runs = [client.submit(noops(n=2 + number), queue=f"nobody-{number % 10}") for number in range(RUNS)]
        for run in runs:
            assert client.status(run).run.phase is RunPhase.ACTIVE
        watched = fleet(state_dir)
        began, before = time.monotonic(), [used(process) for process in watched]
        time.sleep(WATCHED_SECONDS)  # what is measured is this time
        spent = [used(process) - first for process, first in zip(watched, before, strict=True)]
        taken = sum(spent)
        assert taken / (time.monotonic() - began) < MOST_OF_A_CORE
        for run in runs:
            client.cancel(run)


def used(process: psutil.Process) -> float:
    """Return the seconds of processor time that a process has used."""
    return sum(process.cpu_times()[:2])
