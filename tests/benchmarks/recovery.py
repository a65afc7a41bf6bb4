"""How long a restarted scheduler takes until it dispatches again, with a large run in flight.

The scheduler is killed while workers drain the run; its keeper starts another. The time is that from the start of the
new process, its interpreter and imports included, to the claim of the first batch that was not in flight when the old
one died. Both are told by the clock of this machine.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil

from overnight.client import Client
from overnight.core.states import TaskState
from overnight.state_dir import wait_until
from overnight.store.records import Happening, RunEvent
from tests.benchmarks.measuring import Sample
from tests.benchmarks.processes import fleet
from tests.support import graphs

_MODULE = "overnight.service"


def until_dispatching_again(state: Path, tasks: int, workers: int) -> Sample:
    """Submit so many tasks of a millisecond, and kill the scheduler; the run is cancelled afterwards."""
    with Client(state_dir=state, workers=workers) as client:
        run = client.submit(graphs.sleeps(seconds=0.001, n=tasks))
        wait_until(lambda: client.status(run).counts.get(TaskState.DONE, 0) > 0, 60)
        former = scheduler_of(state)
        os.kill(former.pid, signal.SIGKILL)
        store = client.deployment.store
        snapshot = store.load_run(run)
        left = len(snapshot.states[::2]) - snapshot.states[::2].count(TaskState.DONE)
        if left < tasks // 2:
            raise RuntimeError(f"Only {left} of {tasks} tasks were left when the scheduler was killed.")
        known = {flight.batch for flight in snapshot.flights}
        claimed = next(
            event
            for event in _events(client, run, snapshot.cursor)
            if event.what is Happening.CLAIMED and event.batch not in known
        )
        begun = scheduler_of(state).create_time()
        client.cancel(run)
        client.wait(run)
    return Sample(left, int(claimed.cursor.split("-")[0]) / 1000 - begun)


def _events(client: Client, run: str, cursor: str) -> Iterator[RunEvent]:
    while True:
        for event in client.deployment.store.follow(run, cursor, 1.0):
            cursor = event.cursor
            yield event


def scheduler_of(state: Path) -> psutil.Process:
    """Return the scheduler's process of a state directory."""
    return next(process for process in fleet(state) if _MODULE in process.cmdline())
