"""Machines that sleep and tasks that kill what they run in (ADVERSITY 7, rows 27 and 53)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from overnight.local_fleet import ensure_fleet
from overnight.state_dir import wait_until
from tests.support.command import Desk, desk, finished
from tests.support.ledgers import read_ledger

GRAPHS = "tests.support.graphs"
LEASE_SECONDS = 1.5
COMPRESSED = {"OVERNIGHT_LEASE_SECONDS": str(LEASE_SECONDS), "OVERNIGHT_HEARTBEAT_SECONDS": "0.5"}


@pytest.fixture(scope="module")
def quick(short_directory: Path) -> Iterator[Desk]:
    """A desk whose local processes have compressed times and stay from command to command."""
    patch = pytest.MonkeyPatch()
    for name, value in COMPRESSED.items():
        patch.setenv(name, value)
    with desk(short_directory / "nights") as given:
        given.environ |= COMPRESSED
        lease = ensure_fleet(given.state_dir, workers=2)
        yield given
        lease.close(stop=False)
    patch.undo()


def family(*roots: psutil.Process) -> list[psutil.Process]:
    """These processes and all their descendants."""
    return [*roots, *(child for root in roots for child in root.children(recursive=True))]


def processes_of(given: Desk) -> list[psutil.Process]:
    """All processes of the desk's fleet, its server too."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if str(given.state_dir) in " ".join([*process.cmdline(), process.environ().get("OVERNIGHT_STATE_DIR", "")]):
                found.append(process)
    return family(*found)


def test_a_laptop_that_slept_goes_on_and_nothing_is_done_twice(quick: Desk) -> None:
    """Row 53: every process, server and client too, is stopped for longer than a lease."""
    ledger = quick.directory / "slept.ledger"
    words = ("run", f"{GRAPHS}:ledger_chain", "-p", f"ledger={ledger}", "-p", "n=12", "-p", "seconds=0.25")
    client = quick.start(*words, "-d", "slept")

    def has_begun() -> bool:
        return ledger.exists() and any(event == "end" for event, _ in read_ledger(ledger))

    assert wait_until(has_begun, 60)
    asleep = {process.pid: process for process in [*processes_of(quick), *family(psutil.Process(client.pid))]}
    assert len(asleep) >= 7, "keeper, server, scheduler, two workers and their children, and the client"
    for process in asleep.values():
        process.suspend()
    assert sum(event == "end" for event, _ in read_ledger(ledger)) < 12, "the run was over before it fell asleep"
    time.sleep(2 * LEASE_SECONDS)  # what is tested is the passing of time
    for process in reversed(asleep.values()):
        with suppress(psutil.NoSuchProcess):
            process.resume()
    found = finished(client)
    assert found.status == 0, found.err
    assert "Traceback" not in found.err
    starts = Counter(task_id for event, task_id in read_ledger(ledger) if event == "start")
    assert len(starts) == 12
    assert sum(starts.values()) <= 12 + 2, "only what each worker ran as it fell asleep may start again"


def test_a_task_that_kills_its_worker_fails_after_three_losses_and_the_rest_is_done(quick: Desk) -> None:
    """Row 27, P10, O7."""
    ledger = quick.directory / "losses"
    found = quick.run("run", f"{GRAPHS}:kills_its_parent", "-p", f"ledger={ledger}", "--keep-going", "--json")
    assert found.status == 1, found.err
    assert "Traceback" not in found.err
    assert found.facts["counts"] == {"done": 1, "failed": 1, "skipped": 1}
    [failed] = found.facts["failed"]
    assert (failed["task"], failed["type"].rpartition(".")[2]) == ("culprit", "TaskDied")
    assert "lost" in failed["message"]
    assert len(ledger.read_text().split()) == 3
