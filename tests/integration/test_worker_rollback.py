"""Workers on a server that was rolled back: what has a flag does not run again (ADVERSITY P3, "Look first")."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import worker_tasks as tasks
from tests.support.rollback import Saved
from tests.support.small_scheduler import Plan, SmallScheduler, worker


@pytest.fixture
def run(redis_url: str) -> Iterator[SmallScheduler]:
    scheduler = SmallScheduler(redis_url)
    yield scheduler
    scheduler.close()


def test_a_batch_from_before_the_fall_back_does_not_run_what_is_finished(
    run: SmallScheduler, tmp_path: Path, redis_url: str
) -> None:
    """It was dispatched for the first time, as far as the server knows, and nobody could mark it."""
    ledger, status = tmp_path / "ledger", tmp_path / "status"
    status.mkdir(mode=0o700)
    plans = [Plan(tasks.note, [str(ledger), 42]), Plan(tasks.note, [str(ledger), 43], needs=[0])]
    run.submit(plans, tmp_path, context={"status_dir": str(status)})
    run.dispatch(0, 1)
    before = Saved(run.client)
    with worker(redis_url, tmp_path):
        run.wait_ended()
    before.fall_back()
    assert not run.outcome_is_in(0)
    with worker(redis_url, tmp_path):
        run.wait_ended()
    assert (run.result(0), run.result(1)) == (42, 43)
    assert len(ledger.read_text().splitlines()) == 2
