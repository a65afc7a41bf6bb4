"""Overnight's own executors as systems under measurement.

A sample lasts from the call of `execute` to the end of its generator: submission, every task, every result back in
this process. Server, scheduler and workers are up and warm before; the graph is built before.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from overnight.cache import FileTaskCache
from overnight.client import Client
from overnight.core.states import TaskState
from overnight.executor import TaskGraphExecutor
from overnight.graph import TaskGraph
from overnight.process_pool_executor import ProcessPoolTaskExecutor
from overnight.queue_executor import QueueExecutor
from overnight.sequential_executor import SequentialExecutor
from overnight.state_dir import wait_until
from tests.benchmarks import workloads
from tests.benchmarks.measuring import SLEEP_SECONDS, Sample, System, stopwatch
from tests.benchmarks.processes import await_end, peak_memory, peak_of, started_here
from tests.benchmarks.recovery import until_dispatching_again
from tests.benchmarks.workloads import WORKERS, Sizes
from tests.support import graphs

QUEUE = "overnight queue"
POOL = "overnight process pool"
SEQUENTIAL = "overnight sequential"


def _graphs(sizes: Sizes) -> dict[str, Callable[[], TaskGraph]]:
    return {
        workloads.WIDE.name: lambda: graphs.noops(n=sizes.wide),
        workloads.CHAIN.name: lambda: graphs.chain(n=sizes.chain),
        workloads.LAYERS.name: lambda: graphs.layers(k=sizes.layers, n=sizes.layer),
        workloads.SLEEP.name: lambda: graphs.sleeps(seconds=SLEEP_SECONDS, n=sizes.sleeps),
        workloads.FANIN.name: lambda: graphs.fan_in(n=sizes.wide),
        workloads.BIGRESULT.name: lambda: graphs.large_results(n=sizes.big, size=sizes.big_bytes),
    }


def execute(executor: TaskGraphExecutor, graph: TaskGraph) -> Sample:
    """Run a graph to its end; RuntimeError if not every task succeeded."""
    tasks = len(graph)
    with stopwatch() as clock:
        results = list(executor.execute(graph))
    failed = [result for _, result in results if isinstance(result, BaseException)]
    if failed or len(results) != tasks:
        raise RuntimeError(f"{len(results)} of {tasks} tasks ended, {len(failed)} failed: {failed[:1]}")
    return Sample(tasks, clock.seconds)


def _run(executor: TaskGraphExecutor, make: Callable[[], TaskGraph]) -> Callable[[], Sample]:
    return lambda: execute(executor, make())


def _with_flags(make_executor: Callable[[FileTaskCache], TaskGraphExecutor], sizes: Sizes, place: Path) -> Sample:
    """Run WIDE into a fresh status directory, on the disk where `place` is. It goes with that place.

    Were it removed now, ext4 would pass over the inodes just freed, one by one, for each flag of the next round.
    """
    directory = tempfile.mkdtemp(dir=place)
    return execute(make_executor(FileTaskCache(directory)), graphs.noops(n=sizes.wide))


@contextmanager
def sequential(sizes: Sizes, place: Path) -> Iterator[System]:
    """The sequential executor, in this process."""
    skipped = {workloads.SLEEP.name}
    runs = {name: _run(SequentialExecutor(), make) for name, make in _graphs(sizes).items() if name not in skipped}
    runs[workloads.FLAGS.name] = lambda: _with_flags(SequentialExecutor, sizes, place)
    yield System(SEQUENTIAL, runs)


@contextmanager
def process_pool(sizes: Sizes, place: Path) -> Iterator[System]:
    """The process pool, its processes up and warm."""
    keywords = {"max_workers": WORKERS, "task_log_dir": str(place / "logs")}
    with ProcessPoolTaskExecutor(**keywords) as warm:
        execute(warm, graphs.noops(n=100))
        runs = {name: _run(warm, make) for name, make in _graphs(sizes).items()}
        yield System(POOL, runs, lambda: peak_of(started_here("overnight.pool_worker")))


@contextmanager
def queue(sizes: Sizes, place: Path) -> Iterator[System]:
    """The queue executor on an embedded server of its own; leaving stops the server and all processes."""
    state = place / "state"

    def executor(cache: FileTaskCache) -> QueueExecutor:
        made = QueueExecutor(task_cache=cache, state_dir=state, workers=WORKERS)
        made._deployment = warm._deployment  # one fleet serves all of them
        return made

    with QueueExecutor(state_dir=state, workers=WORKERS) as warm:
        warm_up(warm, state)
        runs = {name: _run(warm, make) for name, make in _graphs(sizes).items()}
        runs[workloads.FLAGS.name] = lambda: _with_flags(executor, sizes, place)
        runs[workloads.MILLION.name] = _run(warm, lambda: graphs.noops(n=sizes.million))
        runs[workloads.RECOVER.name] = lambda: until_dispatching_again(state, sizes.submit, WORKERS)
        runs[workloads.SUBMIT.name] = lambda: until_first_start(state, sizes.submit)
        yield System(QUEUE, runs, lambda: peak_memory(state))
    await_end(state)


def warm_up(executor: QueueExecutor, state: Path) -> None:
    """Wait until all workers have a child and every function of the workloads has a known duration."""
    with Client(state_dir=state, workers=0) as client:
        for graph in (graphs.noops(n=200), graphs.chain(n=20), graphs.sleeps(n=20), graphs.fan_in(n=20)):
            execute(executor, graph)
        store = client.deployment.store
        if not wait_until(lambda: len(store.workers()) >= WORKERS, 30):
            raise TimeoutError("The workers did not come up.")
    execute(executor, graphs.noops(n=2000))


def until_first_start(state: Path, tasks: int) -> Sample:
    """Submit so many no-ops; the seconds until the first one of them was started by a worker. The run is cancelled."""
    graph = graphs.noops(n=tasks)
    with Client(state_dir=state, workers=WORKERS) as client:
        began = time.time()
        run = client.submit(graph)
        store = client.deployment.store
        wait_until(lambda: client.status(run).counts.get(TaskState.DONE, 0) > 0, 60)
        client.cancel(run)
        client.wait(run)
        done = [number for number, code in enumerate(store.states(run)[::2]) if code == TaskState.DONE]
        facts = [json.loads(view.facts) for view in store.tasks(run, done[:5000]) if view.facts]
    return Sample(tasks, min(float(fact["started"]) for fact in facts) - began)
