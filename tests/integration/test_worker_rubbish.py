"""Whoever may write to the server can damage a run; a worker says so and takes the next batch (A2, P17)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from overnight.state_dir import wait_until
from overnight.store.keys import RUN_KEYS
from overnight.task import Task
from overnight.transport.rq import rq_prefix
from tests.support import worker_tasks as tasks
from tests.support.rubbish import JUNK, VALUES, Damage, of_run
from tests.support.small_scheduler import Plan, SmallScheduler, WorkerProcess, worker

SECONDS = 60.0
PREFIX = "{overnight}:run:"
#: A worker that does not fit a run waits a second before it looks at the next entry: a few of those are enough.
MOST_CONTEXTS = 3
#: Of what a batch needs: the run, the claim, messages, functions, results of dependencies.
NAMES = tuple(key.name for key in RUN_KEYS if key.name not in ("context", "specs", "events", "errors"))
OTHER_TYPES = ("meta", "context", "blobs", "messages", "states", "digests", "results", "facts", "inflight", "batches",
               "holds", "events")  # fmt: skip


@contextmanager
def submitted(url: str, directory: Path, *plans: Plan) -> Iterator[SmallScheduler]:
    """A run of these tasks, nothing of it dispatched."""
    scheduler = SmallScheduler(url)
    scheduler.submit(list(plans), directory)
    yield scheduler
    scheduler.close()


def a_chain(url: str, directory: Path) -> SmallScheduler:
    """A run whose first task is done and whose second, which takes its result, is queued."""
    scheduler = SmallScheduler(url)
    scheduler.submit([Plan(tasks.answer), Plan(tasks.plus, (Task("0"), 1), (0,))], directory)
    return scheduler


def sound_run_is_served(url: str, directory: Path, process: WorkerProcess) -> None:
    """A run that nobody touched goes on."""
    with submitted(url, directory, Plan(tasks.answer)) as sound:
        sound.dispatch(0)
        sound.wait_ended(seconds=SECONDS)
        assert sound.result(0) == 42
    assert process.process.poll() is None


@pytest.mark.timeout(300)
def test_damaged_runs_end_no_worker_and_hold_none_up(redis_url: str, tmp_path: Path) -> None:
    """Each key that a batch needs in every way, one way a run; then a run that nobody touched."""
    model = a_chain(redis_url, tmp_path)
    with worker(redis_url, tmp_path):
        model.dispatch(0)
        model.wait_ended(0)
    result = model.store.read_results(model.run_id, [0])[0]
    model.dispatch(1, push=False)
    damages = list(of_run(model.client, f"{PREFIX}{model.run_id}:", NAMES))
    damages += list(islice(of_run(model.client, f"{PREFIX}{model.run_id}:", ("context",)), MOST_CONTEXTS))
    assert len(damages) > 200
    assert result
    for damage in damages:
        run = a_chain(redis_url, tmp_path)
        run.dispatch(0, 1, queue="bad")
        damage.put(run.client, f"{PREFIX}{run.run_id}:")
        run.close()
    with worker(redis_url, tmp_path, "-q", "default", "-q", "bad") as process:
        assert wait_until(
            lambda: model.transport.depth("bad") <= MOST_CONTEXTS or process.process.poll() is not None, SECONDS
        ), process.log.read_text()[-3000:]
        sound_run_is_served(redis_url, tmp_path, process)
    model.close()


@pytest.mark.timeout(300)
def test_a_run_that_is_damaged_while_its_task_runs_holds_no_worker_up(redis_url: str, tmp_path: Path) -> None:
    """What is finished finds no place to be told; the next batch of another run does."""
    with worker(redis_url, tmp_path) as process:
        for name in OTHER_TYPES:
            gate = tmp_path / name
            with submitted(redis_url, tmp_path, Plan(tasks.wait_for_file, (str(gate),)), Plan(tasks.answer)) as run:
                run.dispatch(0, 1)
                assert wait_until(Path(f"{gate}.begun").exists, SECONDS), process.log.read_text()[-3000:]
                Damage(name, "type", value="list").put(run.client, f"{PREFIX}{run.run_id}:")
                gate.touch()
        sound_run_is_served(redis_url, tmp_path, process)


def test_rubbish_on_its_queue_ends_no_worker(redis_url: str, tmp_path: Path) -> None:
    """Entries without a job, with jobs of another type, and with any text in each of a job's fields."""
    with submitted(redis_url, tmp_path, Plan(tasks.answer)) as run, worker(redis_url, tmp_path) as process:
        client, jobs, queue = run.client, f"{rq_prefix('overnight')}:job:", f"{rq_prefix('overnight')}:queue:default"
        run.dispatch(0, queue="other")
        (name,) = client.scan_iter(f"{jobs}*")
        fields: dict[bytes, bytes] = client.hgetall(name)  # type: ignore[assignment]
        for at, (field, value) in enumerate((f, v) for f in fields for v in VALUES):
            changed: dict[Any, Any] = {**fields, field: value}
            client.hset(f"{jobs}j{at}", mapping=changed)
            client.rpush(queue, f"j{at}")
        client.set(f"{jobs}text", JUNK)
        client.rpush(queue, "text", "nothing", JUNK, "")
        assert wait_until(lambda: run.transport.depth("default") == 0 or process.process.poll() is not None, SECONDS)
        sound_run_is_served(redis_url, tmp_path, process)


@pytest.mark.parametrize("name", ["leases", "workers", "workers:records"])
def test_a_shared_key_of_another_type_is_named_once_by_a_worker_which_goes_on_when_it_is_gone(
    redis_url: str, tmp_path: Path, name: str
) -> None:
    with submitted(redis_url, tmp_path, Plan(tasks.answer)) as run:
        run.dispatch(0)
        key = f"{{overnight}}:{name}"
        run.client.delete(key)
        run.client.rpush(key, JUNK)
        with worker(redis_url, tmp_path) as process:
            assert wait_until(lambda: process.said(f"The key {key} on"), SECONDS), process.log.read_text()
            run.client.delete(key)
            run.wait_ended(seconds=SECONDS)
            log = process.log.read_text()
    lines = [line for line in log.splitlines() if f"The key {key} on" in line]
    assert len({line.partition("WARNING")[2] for line in lines}) == len(lines), log
    assert "WRONGTYPE" not in log
