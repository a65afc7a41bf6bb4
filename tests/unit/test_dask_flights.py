"""What the death of a Dask worker means for the batches that were on it (BEHAVIOUR DK3, O7)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from distributed import KilledWorker

from overnight.base_executor import RunFacts
from overnight.dask_collecting import BatchEnded
from overnight.dask_flights import Flight, Flights
from overnight.dask_run import GIVEN_BACK, BatchedLaunch
from overnight.errors import TaskDied
from overnight.graph import make_task
from overnight.naming import log_name
from tests.support import tasks

WORKER = "tcp://127.0.0.1:4001"


@pytest.fixture
def flights(tmp_path: Path) -> Flights:
    facts = RunFacts(run_id="r", log_dir=str(tmp_path), verbosity=0, fork_tasks=False, max_workers=None)
    return Flights(facts)


def lost_together(flights: Flights, *ids: str, allowed_failures: int = 0) -> dict[str, Any]:
    """Send each task as a batch of its own and let the worker of all die; return how their attempts ended."""
    messages = []
    for index, task_id in enumerate(ids):
        launch = BatchedLaunch(hash(task_id), task_id, 1, make_task(task_id, tasks.give, args=[index]), [index], {})
        flights.add(Flight(task_id, 0, waiting={0: launch}))
        worker: Any = SimpleNamespace(address=WORKER)
        error = KilledWorker(task_id, worker, allowed_failures)
        messages.append(BatchEnded(task_id, error=error))
    return {launch.task.task_id: outcome for launch, outcome in flights.judged(messages)}


def test_what_is_lost_together_for_the_first_time_is_given_back(flights: Flights) -> None:
    assert lost_together(flights, "a", "b") == {"a": GIVEN_BACK, "b": GIVEN_BACK}


def test_a_task_that_is_lost_alone_is_charged_with_each_worker_that_died(flights: Flights, tmp_path: Path) -> None:
    ended = lost_together(flights, "killer", allowed_failures=2)["killer"]
    assert isinstance(ended.value, TaskDied)
    assert ended.value.worker == WORKER


def test_a_suspect_that_always_has_company_dies_by_name_of_its_worker(flights: Flights, tmp_path: Path) -> None:
    """Its companions are others each time, as in a graph with many short tasks."""
    assert lost_together(flights, "killer", "a")["killer"] is GIVEN_BACK
    assert lost_together(flights, "killer", "b")["killer"] is None
    assert lost_together(flights, "killer", "c")["killer"] is None
    ended = lost_together(flights, "killer", "d")
    assert ended["d"] is GIVEN_BACK
    assert isinstance(ended["killer"].value, TaskDied)
    assert ended["killer"].value.worker == WORKER
    assert "died" in (tmp_path / log_name("killer")).read_text(encoding="utf-8")
