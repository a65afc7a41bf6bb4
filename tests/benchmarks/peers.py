"""What overnight is compared with: plain RQ on a server of its own, and the standard library's process pool."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from rq import Queue
from rq.job import Dependency, Job
from rq.registry import FinishedJobRegistry
from rq.results import Result

from overnight.state_dir import wait_until
from tests.benchmarks import workloads
from tests.benchmarks.measuring import SLEEP_SECONDS, Sample, System, stopwatch
from tests.benchmarks.processes import peak_of, started_here
from tests.benchmarks.workloads import WORKERS, Sizes
from tests.support.functions import noop, one_more, pause, total, total_size, value_of, zeros
from tests.support.servers import connect, running_server, server_binaries

RQ = "plain RQ"
POOL = "process pool"
QUEUE_NAME = "bench"
COUNTER = "bench:ended"
ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def plain_rq(sizes: Sizes, place: Path) -> Iterator[System]:
    """RQ with two SimpleWorkers, on a server that keeps an append-only file as overnight's embedded one does."""
    binary = next(iter(server_binaries().values()))
    with (
        running_server(binary, place / "rq", appendonly="yes", appendfsync="everysec") as url,
        _workers(url, place / "rq"),
        connect(url) as client,
    ):
        queue = Queue(QUEUE_NAME, connection=client)
        _drained(client, lambda: _enqueue(queue, [(noop, ())] * 100))
        runs = {
            workloads.WIDE.name: lambda: _drained(client, lambda: _enqueue(queue, [(noop, ())] * sizes.rq_wide)),
            workloads.CHAIN.name: lambda: _drained(client, lambda: _enqueue_chain(queue, sizes.chain)),
            workloads.SLEEP.name: lambda: _drained(
                client, lambda: _enqueue(queue, [(pause, (SLEEP_SECONDS,))] * sizes.sleeps)
            ),
            workloads.FANIN.name: lambda: _fan_in(client, queue, sizes.rq_wide),
            workloads.BIGRESULT.name: lambda: _big_results(client, queue, sizes),
        }
        yield System(RQ, runs, lambda: peak_of(started_here(str(place / "rq"))))


@contextmanager
def _workers(url: str, place: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "tests.benchmarks.rq_worker", url, QUEUE_NAME]
    with (place / "workers.log").open("wb") as log:
        started = [subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log) for _ in range(WORKERS)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def _enqueue(queue: Queue, calls: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]]) -> list[Job]:
    """Enqueue all calls in pipelines of a thousand: the fastest way that RQ offers."""
    jobs: list[Job] = []
    for first in range(0, len(calls), 1000):
        part = [Queue.prepare_data(func, args, result_ttl=600) for func, args in calls[first : first + 1000]]
        jobs += queue.enqueue_many(part)
    return jobs


def _enqueue_chain(queue: Queue, length: int) -> list[Job]:
    jobs: list[Job] = []
    for _ in range(length):
        jobs.append(queue.enqueue(one_more, depends_on=jobs[-1] if jobs else None, result_ttl=600))
    return jobs


def _drained(client: redis.Redis, enqueue: Callable[[], list[Job]]) -> Sample:
    """Enqueue jobs and wait until RQ has finished all of them; RuntimeError if one failed."""
    client.flushall()
    with stopwatch() as clock:
        jobs = enqueue()
        registry = f"rq:finished:{QUEUE_NAME}"
        if not wait_until(lambda: client.zcard(registry) == len(jobs), 120):
            raise RuntimeError(f"{client.zcard(registry)} of {len(jobs)} RQ jobs finished.")
    return Sample(len(jobs), clock.seconds)


def _fan_in(client: redis.Redis, queue: Queue, parts: int) -> Sample:
    """The parts, then one job that depends on all of them and reads their results."""

    def enqueue() -> list[Job]:
        jobs = _enqueue(queue, [(value_of, (number,)) for number in range(parts)])
        last = queue.enqueue(total_of_jobs, [job.id for job in jobs], depends_on=Dependency(jobs), result_ttl=600)
        return [*jobs, last]

    return _drained(client, enqueue)


def _big_results(client: redis.Redis, queue: Queue, sizes: Sizes) -> Sample:
    """Large results, then one job that reads them, and all of them back in this process."""

    def enqueue() -> list[Job]:
        jobs = _enqueue(queue, [(zeros, (sizes.big_bytes,))] * sizes.big)
        last = queue.enqueue(size_of_jobs, [job.id for job in jobs], depends_on=Dependency(jobs), result_ttl=600)
        return [*jobs, last]

    with stopwatch() as clock:
        drained = _drained(client, enqueue)
        jobs = Job.fetch_many(FinishedJobRegistry(QUEUE_NAME, connection=client).get_job_ids(), connection=client)
        total_size([value for value in _values(jobs) if isinstance(value, bytes)])
    return Sample(drained.tasks, clock.seconds)


def total_of_jobs(ids: Sequence[str]) -> int:
    """Sum the results of finished jobs (runs in an RQ worker)."""
    return total(_results_of(ids))


def size_of_jobs(ids: Sequence[str]) -> int:
    """Sum the sizes of the results of finished jobs (runs in an RQ worker)."""
    return total_size(_results_of(ids))


def _results_of(ids: Sequence[str]) -> list[Any]:
    from rq import get_current_job

    current = get_current_job()
    if current is None:
        raise RuntimeError("This runs in an RQ worker only.")
    return _values(Job.fetch_many(list(ids), connection=current.connection))


def _values(jobs: Sequence[Job | None]) -> list[Any]:
    results = [Result.fetch_latest(job) for job in jobs if job is not None]
    return [result.return_value for result in results if result is not None]


@contextmanager
def process_pool(sizes: Sizes) -> Iterator[System]:
    """The standard library's pool: no persistence, no graph; for orientation."""
    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(noop_of, range(100)))
        yield System(
            POOL,
            {
                workloads.WIDE.name: lambda: _pooled(pool, noop, [()] * sizes.wide),
                workloads.CHAIN.name: lambda: _hopped(pool, sizes.chain),
                workloads.SLEEP.name: lambda: _pooled(pool, pause, [(SLEEP_SECONDS,)] * sizes.sleeps),
            },
        )


def noop_of(_number: int) -> None:
    """Do nothing with a number."""


def _pooled(pool: ProcessPoolExecutor, func: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Sample:
    with stopwatch() as clock:
        for future in [pool.submit(func, *args) for args in calls]:
            future.result()
    return Sample(len(calls), clock.seconds)


def _hopped(pool: ProcessPoolExecutor, length: int) -> Sample:
    """A chain: each call is submitted with the result of the one before."""
    with stopwatch() as clock:
        value = -1
        for _ in range(length):
            value = pool.submit(one_more, value).result()
    return Sample(length, clock.seconds)
