"""The queue executor in a driver of one's own: the same results as in sequence, each pair once, whatever is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from overnight.cache import NO_TASK_CACHE, FileTaskCache, TaskCache
from overnight.core.states import TaskState
from overnight.errors import RunCancelled
from overnight.graph import Task, TaskGraph
from overnight.queue_executor import QueueExecutor
from overnight.sequential_executor import SequentialExecutor
from overnight.state_dir import wait_until
from overnight.store.records import Request
from tests.support import tasks
from tests.support.command import ROOT
from tests.support.graphs import ledger_graph, ledger_values
from tests.support.ledgers import read_ledger
from tests.support.rollback import Saved
from tests.support.sites import SECONDS, Entries, Site, finish, killed
from tests.support.worker_tasks import wait_for_file

LARGE = 200_000


@pytest.fixture(params=["flags", "no flags"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> TaskCache:
    """Both ways of recording outcomes."""
    return FileTaskCache(str(tmp_path / "status")) if request.param == "flags" else NO_TASK_CACHE


def queue_executor(site: Site, directory: Path, cache: TaskCache = NO_TASK_CACHE) -> QueueExecutor:
    return QueueExecutor(task_cache=cache, state_dir=site.state_dir, workers=2, task_log_dir=str(directory / "logs"))


def collected(pairs: Any) -> dict[str, Any]:
    """Return pairs as id -> result; no task may come twice."""
    results: dict[str, Any] = {}
    for task, result in pairs:
        assert task.task_id not in results
        results[task.task_id] = result
    return results


@pytest.mark.parametrize("seed", range(4))
def test_the_same_graph_gives_the_same_results_in_sequence_and_through_the_queue(
    site: Site, tmp_path: Path, seed: int
) -> None:
    """X4, QX3."""
    graphs = [ledger_graph(ledger=str(tmp_path / name), n=60, edges=3, seed=seed) for name in ("one", "other")]
    with SequentialExecutor(task_log_dir=str(tmp_path / "logs")) as executor:
        expected = collected(executor.execute(graphs[0]))
    with queue_executor(site, tmp_path) as executor:
        found = collected(executor.execute(graphs[1]))
    assert found == expected == ledger_values(n=60, edges=3, seed=seed)
    assert sorted(read_ledger(tmp_path / "one")) == sorted(read_ledger(tmp_path / "other"))


def test_a_server_that_forgets_everything_costs_no_pair_and_no_finished_task(
    site: Site, tmp_path: Path, cache: TaskCache
) -> None:
    """P9: the executor puts its run in place again, with what is finished."""
    ledger = tmp_path / "ledger"
    graph = ledger_graph(ledger=str(ledger), n=40, seconds=0.05)
    results: dict[str, Any] = {}
    with queue_executor(site, tmp_path, cache) as executor:
        for task, result in executor.execute(graph):
            assert task.task_id not in results
            results[task.task_id] = result
            if len(results) == 10:
                with site.client() as connection:
                    connection.flushall()
        assert executor.summary is not None
        assert executor.summary.ok
    assert results == ledger_values(n=40)
    starts = [task_id for event, task_id in read_ledger(ledger) if event == "start"]
    assert [task_id for task_id in list(results)[:10] if starts.count(task_id) > 1] == []


def test_a_result_that_is_lost_before_it_was_yielded_is_computed_again(site: Site, tmp_path: Path) -> None:
    """P12, B15: large results lie outside of Redis; what is gone there is invalidated, and comes after all."""
    ledger = tmp_path / "ledger"
    graph = TaskGraph()
    first = graph.create_task("first", tasks.give, args=[1])
    graph.create_task("large", make_large, args=[str(ledger)], deps=[first])
    with queue_executor(site, tmp_path) as executor:
        pairs = executor.execute(graph)
        assert next(pairs) == (first, 1)
        assert wait_until(lambda: _states(site)[1] is TaskState.DONE, SECONDS)
        [blob] = (site.state_dir / "blobs").iterdir()
        blob.unlink()
        assert collected(pairs) == {"large": b"x" * LARGE}
    assert tasks.noted(ledger) == ["made", "made"]


def test_a_task_that_lacks_a_lost_input_runs_again_with_it(site: Site, tmp_path: Path, cache: TaskCache) -> None:
    """P12, C16: the input had been yielded and is not yielded again; its dependant does not fail for want of it."""
    ledger, gate = tmp_path / "ledger", tmp_path / "gate"
    os.mkfifo(gate)
    graph = TaskGraph()
    large = graph.create_task("large", make_large, args=[str(ledger)])
    opened = graph.create_task("opened", tasks.give_after_gate, args=[str(gate), 1])
    size = graph.create_task("size", len, args=[large], deps=[opened])
    graph.create_task("sum", sum, args=[[size, opened]])
    with queue_executor(site, tmp_path, cache) as executor:
        pairs = executor.execute(graph)
        assert next(pairs)[0] == large
        for place in (site.state_dir / "blobs", tmp_path / "status"):
            for path in place.glob("*") if place.exists() else ():
                path.write_bytes(path.read_bytes()[:-1] + b"?")
        tasks.open_gate(gate)
        assert collected(pairs) == {"opened": 1, "size": LARGE, "sum": LARGE + 1}
    assert tasks.noted(ledger) == ["made", "made"]


def test_a_run_that_somebody_cancels_ends_with_that(site: Site, tmp_path: Path) -> None:
    """QX7."""
    graph = ledger_graph(ledger=str(tmp_path / "ledger"), n=40, edges=1, seconds=0.05)
    with queue_executor(site, tmp_path) as executor:
        pairs = executor.execute(graph)
        next(pairs)
        with site.store() as store:
            store.request(store.runs()[0].run_id, Request.CANCEL)
        with pytest.raises(RunCancelled):
            list(pairs)
        assert len(graph) > 0


def test_a_killed_script_attaches_to_its_run_and_is_given_what_it_has_not_seen(site: Site) -> None:
    """QX7, X4: the run goes on although it had been paused; no task starts twice, none on record is yielded."""
    entries = Entries(site, "script")
    script = _script(entries)
    entries.wait_for(ended=8)
    killed(script)
    with site.store() as store:
        run_id = store.runs()[0].run_id
        store.request(run_id, Request.PAUSE)
    before = entries.recorded()
    printed = finish(_script(entries)).splitlines()
    with site.store() as store:
        assert store.runs()[0].run_id == run_id
    assert dict(_id_and_value(line) for line in printed).items() <= ledger_values(n=entries.total).items()
    assert not {_id_and_value(line)[0] for line in printed} & before.tasks
    assert len(printed) == len(set(printed)) > 0
    assert set(entries.starts().values()) == {1}
    assert len(entries.starts()) == entries.total
    assert finish(_script(entries)) == ""


def _script(entries: Entries) -> subprocess.Popen[str]:
    script = str(Path(__file__).parents[1] / "support" / "queue_client.py")
    return subprocess.Popen(
        [sys.executable, "-P", script, str(entries.ledger), str(entries.flags)],
        cwd=entries.site.directory,
        env={**entries.site.environment(), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _id_and_value(line: str) -> tuple[str, int]:
    task_id, _, value = line.rpartition(" ")
    return task_id, int(value)


def _states(site: Site) -> list[TaskState]:
    with site.store() as store:
        return [TaskState(code) for code in store.states(store.runs()[0].run_id)[::2]]


def make_large(ledger: str) -> bytes:
    tasks.note(ledger, "made")
    return b"x" * LARGE


def test_additions_that_the_server_lost_while_it_ran_are_made_again(
    site: Site, tmp_path: Path, cache: TaskCache
) -> None:
    """P9, Y2: no restart shows; what had been added comes all the same, each task once."""
    gate = tmp_path / "gate"
    graph = TaskGraph()
    first = graph.create_task("first", tasks.give, args=[1])
    graph.create_task("opened", wait_for_file, args=[str(gate)])
    results: dict[Task, Any] = {}
    with queue_executor(site, tmp_path, cache) as executor, site.client() as connection:
        pairs = executor.execute(graph)
        results.update([next(pairs)])
        assert list(results) == [first]
        before = Saved(connection, b"scheduler", b"workers", b":rq:")
        follows = graph.create_task("follows", tasks.give, args=[2], deps=[first])
        graph.create_task("added", wait_for_file, args=[str(gate)], deps=[follows])
        results.update([next(pairs)])
        assert list(results)[1:] == [follows]
        before.fall_back()
        gate.touch()
        results.update(pairs)
    waited = {"opened": "waited", "added": "waited"}
    assert {task.task_id: result for task, result in results.items()} == {"first": 1, "follows": 2, **waited}


def test_a_task_added_below_a_large_result_finds_it(site: Site, tmp_path: Path, cache: TaskCache) -> None:
    """Y2, B15: the value goes from where it lies to the worker, not through the driver."""
    graph = TaskGraph()
    large = graph.create_task("large", make_large, args=[str(tmp_path / "ledger")])
    with queue_executor(site, tmp_path, cache) as executor:
        results = {}
        for task, result in executor.execute(graph):
            results[task] = result
            if task == large:
                graph.create_task("size", len, args=[large])
    assert results[Task("size")] == LARGE
