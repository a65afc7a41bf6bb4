"""The executors under test: one entry each, so that a new executor joins the conformance suite by one line here."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from overnight.base_executor import TaskGraphExecutorBase
from overnight.local_fleet import ensure_fleet
from overnight.process_pool_executor import ProcessPoolTaskExecutor
from overnight.queue_executor import QueueExecutor
from overnight.sequential_executor import SequentialExecutor
from tests.support.dask_clusters import dask_executor, shared_cluster
from tests.support.servers import running_server, server_binary

Executor = AbstractContextManager[TaskGraphExecutorBase]


@dataclass(frozen=True)
class ExecutorKind:
    """How to make one kind of executor, and what the suite must know of it.

    `crosses_process`: results are pickled even without fork_tasks. `one_at_a_time`: tasks start strictly in order.
    `in_driver`: tasks run in the driver's process, so one that kills its process ends the tests.
    `make(directory, **keywords)` returns a context whose value is the executor; its files go below `directory`.
    """

    name: str
    make: Callable[..., Executor]
    crosses_process: bool = False
    one_at_a_time: bool = False
    in_driver: bool = False


def make_sequential(directory: Path, **keywords: Any) -> Executor:
    """Return a SequentialExecutor that logs below the directory."""
    return SequentialExecutor(**{"task_log_dir": str(directory / "logs"), **keywords})


def make_forking(directory: Path, **keywords: Any) -> Executor:
    """Return a SequentialExecutor that runs each attempt in a child."""
    return make_sequential(directory, **{"fork_tasks": True, **keywords})


def make_pool(directory: Path, **keywords: Any) -> Executor:
    """Return a ProcessPoolTaskExecutor of two processes that logs below the directory."""
    return ProcessPoolTaskExecutor(**{"task_log_dir": str(directory / "logs"), "max_workers": 2, **keywords})


def make_forking_pool(directory: Path, **keywords: Any) -> Executor:
    """Return such a pool that runs each attempt in a child of its processes."""
    return make_pool(directory, **{"fork_tasks": True, **keywords})


def make_queue(directory: Path, **keywords: Any) -> Executor:
    """Return a QueueExecutor on two workers that all of these share."""
    return QueueExecutor(
        **{"task_log_dir": str(directory / "logs"), "state_dir": shared_state_dir(), "workers": 2, **keywords}
    )


@cache
def shared_state_dir() -> Path:
    """Return a state directory whose processes run until this process ends."""
    directory = tempfile.TemporaryDirectory(prefix="ov-shared-", ignore_cleanup_errors=True)
    atexit.register(directory.cleanup)
    lease = ensure_fleet(directory.name, workers=2)
    atexit.register(lease.close, stop=True)
    return Path(directory.name)


def make_queue_on_redis(directory: Path, **keywords: Any) -> Executor:
    """Return a QueueExecutor on a Redis server over TCP, with two workers, that all of these share."""
    state_dir, url = shared_redis()
    return QueueExecutor(
        url, **{"task_log_dir": str(directory / "logs"), "state_dir": state_dir, "workers": 2, **keywords}
    )


@cache
def shared_redis() -> tuple[Path, str]:
    """Return a state directory and the URL of a server with a password; both run until this process ends."""
    stack = ExitStack()
    atexit.register(stack.close)
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ov-redis-", ignore_cleanup_errors=True)))
    server = running_server(server_binary("redis"), directory / "server", tcp=True, password="not a secret")
    url = stack.enter_context(server)
    lease = ensure_fleet(directory / "state", workers=2, redis_url=url)
    stack.callback(lease.close, stop=True)
    return directory / "state", url


def make_dask_processes(directory: Path, **keywords: Any) -> Executor:
    """Return a DaskExecutor with a client of its own on two worker processes that all of these share."""
    return dask_executor(shared_cluster(processes=True), directory, **keywords)


def make_dask_threads(directory: Path, **keywords: Any) -> Executor:
    """Return a DaskExecutor with a client of its own on two threads of this process that all of these share."""
    return dask_executor(shared_cluster(processes=False), directory, **keywords)


EXECUTORS = [
    ExecutorKind("sequential", make_sequential, one_at_a_time=True, in_driver=True),
    ExecutorKind("sequential-forked", make_forking, crosses_process=True, one_at_a_time=True),
    ExecutorKind("process-pool", make_pool, crosses_process=True),
    ExecutorKind("process-pool-forked", make_forking_pool, crosses_process=True),
    ExecutorKind("queue", make_queue, crosses_process=True),
    ExecutorKind("queue-on-redis", make_queue_on_redis, crosses_process=True),
    ExecutorKind("dask-processes", make_dask_processes, crosses_process=True),
    ExecutorKind("dask-threads", make_dask_threads, crosses_process=True, in_driver=True),
]
