"""Runs that share workers: a small one beside a large one, and a resource that bounds all of them (O6)."""

from __future__ import annotations

import fcntl
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.client import Client
from overnight.core.states import RunPhase, TaskState
from overnight.graph import TaskGraph
from overnight.messages import StoredResult
from overnight.pickling import loads
from overnight.store.records import Happening, RunEvent
from tests.support.graphs import sleeps
from tests.support.sites import COMPRESSED, SCHEDULER, WORKER, Site, open_site

WORKERS = 2


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A site whose scheduler has one ``db`` for all runs."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ov-") as directory:
        for name, value in {**COMPRESSED, "TEST_SITE": directory, "OVERNIGHT_RESOURCE_LIMITS": "db=1"}.items():
            patch.setenv(name, value)
        with open_site(Path(directory)) as opened:
            yield opened


@pytest.fixture
def client(site: Site) -> Iterator[Client]:
    with Client(state_dir=site.state_dir, workers=WORKERS) as opened:
        yield opened


def was_alone(path: str, seconds: float) -> bool:
    """Hold a lock for a while; tell whether nobody else held it. It ends with its process."""
    with Path(path).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        time.sleep(seconds)
        return True


def holders(path: Path, name: str, *, tasks: int = 15, resources: dict[str, float] | None) -> TaskGraph:
    graph = TaskGraph()
    for number in range(tasks):
        graph.create_task(f"{name} {number}", was_alone, args=[str(path), 0.05], resources=resources)
    return graph


def answers(client: Client, run: str) -> list[bool]:
    """Return what the tasks of a run that has succeeded found."""
    assert client.wait(run) is RunPhase.SUCCEEDED
    store, total = client.deployment.store, client.status(run).run.total
    found = []
    for task, record in store.read_results(run, range(total)).items():
        body = StoredResult.opened(record, run, task, client.deployment.keyring).body
        found.append(loads(body or b""))
    assert len(found) == total
    return found


def test_without_the_resource_they_run_at_once(client: Client, tmp_path: Path) -> None:
    """What the next test would see, and does not."""
    runs = [client.submit(holders(tmp_path / "held", name, resources=None), name) for name in ("free", "freer")]
    assert not all(answer for run in runs for answer in answers(client, run))


def test_a_resource_of_the_scheduler_holds_across_runs_whatever_is_killed(
    site: Site, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "held"
    runs = [client.submit(holders(path, name, resources={"db": 1}), name) for name in ("one", "other")]
    site.wait(lambda: done(client, runs[0]) > 2)
    os.kill(site.slot(SCHEDULER).pid, signal.SIGKILL)
    site.wait(lambda: done(client, runs[0]) > 5)
    os.kill(site.slot(WORKER).pid, signal.SIGKILL)
    assert all(answer for run in runs for answer in answers(client, run))


def test_a_run_that_needs_more_than_there_is_says_so_and_can_be_cancelled(
    site: Site, client: Client, tmp_path: Path
) -> None:
    run = client.submit(holders(tmp_path / "held", "greedy", tasks=2, resources={"db": 2}))
    site.wait(lambda: "has only 1 for all runs" in client.status(run).run.note)
    client.cancel(run)
    assert client.wait(run) is RunPhase.CANCELLED


def test_a_large_run_delays_a_small_one_by_no_more_than_a_batch(site: Site, client: Client) -> None:
    client.wait(client.submit(sleeps(seconds=0.001, n=20), "learn"))
    large = client.submit(sleeps(seconds=0.001, n=20_000), "large")
    site.wait(lambda: done(client, large) > 500)
    small = client.submit(sleeps(seconds=0.001, n=10), "small")
    assert client.wait(small) is RunPhase.SUCCEEDED
    client.cancel(large)
    client.wait(large)
    told = events(client, small)
    added, begun = moment(told[0]), [moment(event) for event in told if event.what is Happening.CLAIMED]
    taken = [moment(event) for event in events(client, large) if event.what is Happening.CLAIMED]
    # All of the small run is begun when each worker has taken what waited already when it came, and one more.
    meanwhile = [at for at in taken if added < at <= begun[-1]]
    assert len(meanwhile) <= 2 * WORKERS, (len(meanwhile), len(taken))


def done(client: Client, run: str) -> int:
    return client.status(run).counts.get(TaskState.DONE, 0)


def events(client: Client, run: str) -> list[RunEvent]:
    found: list[RunEvent] = []
    while more := client.deployment.store.follow(run, found[-1].cursor if found else "0", 0.0):
        found += more
    return found


def moment(event: RunEvent) -> int:
    """Return when an event was told, in milliseconds of the server's clock."""
    return int(event.cursor.split("-")[0])
