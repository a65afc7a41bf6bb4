"""What a run of many small tasks takes of its server's and its scheduler's memory (P16)."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from overnight.client import Client
from overnight.core.states import RunPhase
from tests.benchmarks.processes import fleet
from tests.support.graphs import noops
from tests.support.servers import connect

TASKS = 30_000
MOST_BYTES_A_TASK = 1000


def scheduler_of(state_dir: Path) -> psutil.Process:
    """The scheduler among a state directory's processes."""
    [scheduler] = [process for process in fleet(state_dir) if "overnight.service" in process.cmdline()]
    return scheduler


@pytest.mark.timeout(240)
def test_a_task_takes_less_than_a_kilobyte_of_the_server_and_of_the_scheduler(short_directory: Path) -> None:
    """Both after the run, when nothing of it has expired, over what a run of a few tasks takes."""
    state_dir = short_directory / "growth"
    with Client(state_dir=state_dir, workers=2) as client, connect(client.deployment.url) as server:
        client.submit(noops(n=100))
        assert client.wait() is RunPhase.SUCCEEDED
        scheduler = scheduler_of(state_dir)
        stored, held = server.info("memory")["used_memory"], scheduler.memory_info().rss
        client.submit(noops(n=TASKS))
        assert client.wait() is RunPhase.SUCCEEDED
        assert (server.info("memory")["used_memory"] - stored) / TASKS < MOST_BYTES_A_TASK
        assert (scheduler.memory_info().rss - held) / TASKS < MOST_BYTES_A_TASK
