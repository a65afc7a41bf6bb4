"""Other task queues beside plain RQ, those that are installed (``pip install '.[peers]'``).

Each has two worker processes and a server of its own that keeps an append-only file, and stores the result of every
task, as RQ does. That all have ended is seen from the number of stored results, which costs the workers nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from overnight.state_dir import wait_until
from tests.benchmarks import workloads
from tests.benchmarks.measuring import SLEEP_SECONDS, Sample, System, stopwatch
from tests.benchmarks.processes import peak_of, with_children
from tests.benchmarks.workloads import WORKERS, Sizes
from tests.support.servers import connect, running_server, server_binaries

ROOT = Path(__file__).resolve().parents[2]
LONGEST_SECONDS = 300


@dataclass(frozen=True)
class Peer:
    """A task queue. `send` enqueues so many calls of a task; `ended` counts stored results.

    `send_chain` enqueues a chain of so many. Those of Huey and Dramatiq hold each link inside the one before it: 500
    are too deep for their encoders.
    """

    name: str
    module: str
    command: Sequence[str]
    send: Callable[[Any, str, tuple[Any, ...], int], None]
    send_chain: Callable[[Any, int], None] | None
    ended: Callable[[redis.Redis, redis.Redis], int]


def _send_huey(tasks: Any, name: str, args: tuple[Any, ...], count: int) -> None:
    for _ in range(count):
        getattr(tasks, name)(*args)


def _send_celery(tasks: Any, name: str, args: tuple[Any, ...], count: int) -> None:
    with tasks.app.producer_pool.acquire(block=True) as producer:
        for _ in range(count):
            getattr(tasks, name).apply_async(args, producer=producer)


def _chain_celery(tasks: Any, length: int) -> None:
    from celery import chain

    chain(*(tasks.one_more.s() for _ in range(length))).apply_async()


def _send_dramatiq(tasks: Any, name: str, args: tuple[Any, ...], count: int) -> None:
    for _ in range(count):
        getattr(tasks, name).send(*args)


PEERS = (
    Peer(
        "huey",
        "tests.benchmarks.huey_tasks",
        ("-m", "huey.bin.huey_consumer", "tests.benchmarks.huey_tasks.huey", "-w", str(WORKERS), "-k", "process", "-q"),
        _send_huey,
        None,
        lambda first, _: int(first.hlen("huey.results.bench")),
    ),
    Peer(
        "celery",
        "tests.benchmarks.celery_tasks",
        ("-m", "celery", "-A", "tests.benchmarks.celery_tasks", "worker", "-c", str(WORKERS), "-l", "ERROR"),
        _send_celery,
        _chain_celery,
        lambda _, second: int(second.dbsize()),
    ),
    Peer(
        "dramatiq",
        "tests.benchmarks.dramatiq_tasks",
        ("-m", "dramatiq", "tests.benchmarks.dramatiq_tasks", "--processes", str(WORKERS), "--threads", "1"),
        _send_dramatiq,
        None,
        lambda _, second: int(second.dbsize()),
    ),
)


def installed() -> list[Peer]:
    """Return the peers whose library is here."""
    return [peer for peer in PEERS if importlib.util.find_spec(peer.name) is not None]


@contextmanager
def peer_queue(peer: Peer, sizes: Sizes, place: Path) -> Iterator[System]:
    """A peer with its workers up and warm; leaving kills them and the server."""
    binary = next(iter(server_binaries().values()))
    directory = place / peer.name
    with running_server(binary, directory, tcp=True, appendonly="yes", appendfsync="everysec") as url:
        address = url.removesuffix("/0")
        os.environ["BENCH_URL"] = address
        tasks = importlib.import_module(peer.module)
        with _workers(peer, directory) as workers, connect(url) as first, connect(f"{address}/1") as second:

            def drained(enqueue: Callable[[], None], results: int) -> Sample:
                first.flushall()
                with stopwatch() as clock:
                    enqueue()
                    if not wait_until(lambda: peer.ended(first, second) >= results, LONGEST_SECONDS):
                        raise RuntimeError(f"{peer.ended(first, second)} of {results} tasks of {peer.name} ended.")
                return Sample(results, clock.seconds)

            def run(name: str, args: tuple[Any, ...], count: int) -> Callable[[], Sample]:
                return lambda: drained(lambda: peer.send(tasks, name, args, count), count)

            run("noop", (), 100)()
            runs = {
                workloads.WIDE.name: run("noop", (), sizes.rq_wide),
                workloads.SLEEP.name: run("pause", (SLEEP_SECONDS,), sizes.sleeps),
            }
            chain = peer.send_chain
            if chain is not None:
                runs[workloads.CHAIN.name] = lambda: drained(lambda: chain(tasks, sizes.chain), sizes.chain)
            yield System(peer.name, runs, lambda: peak_of(with_children([workers.pid])))


@contextmanager
def _workers(peer: Peer, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (directory / "workers.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *peer.command], cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
