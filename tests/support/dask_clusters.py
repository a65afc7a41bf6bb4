"""Real Dask clusters for tests: shared local ones, and a scheduler and workers that are started by their commands."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import dask.config
from distributed import Client, LocalCluster

from overnight.base_executor import TaskGraphExecutorBase
from overnight.dask_executor import DaskExecutor

WORKERS = 2
START_SECONDS = 60


@cache
def shared_cluster(*, processes: bool) -> LocalCluster:
    """Return a cluster of two workers with one thread each, which ends with this process."""
    cluster = local_cluster(processes=processes)
    atexit.register(cluster.close)
    return cluster


def local_cluster(*, processes: bool, workers: int = WORKERS, allowed_failures: int = 0) -> LocalCluster:
    """Start a local cluster as `dask_cluster` does."""
    with dask.config.set({"distributed.scheduler.allowed-failures": allowed_failures}):
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=processes,
            dashboard_address="127.0.0.1:0",
            memory_limit=0,
        )


@contextmanager
def dask_executor(cluster: Any, directory: Path, **keywords: Any) -> Iterator[TaskGraphExecutorBase]:
    """Give an executor with a client of its own; leaving closes the client and leaves the shared cluster alone."""
    with Client(cluster, set_as_default=False) as client:
        yield DaskExecutor(client, **{"task_log_dir": str(directory / "logs"), **keywords})
        assert list(client.futures) == [], "a run left futures behind"


@dataclass
class StartedCluster:
    """A scheduler and workers in processes of their own."""

    address: str
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)


@contextmanager
def started_cluster(directory: Path, *, workers: int = WORKERS, nanny: bool = False) -> Iterator[StartedCluster]:
    """Start `dask scheduler` and `dask worker` processes on the loopback; end them by their ids."""
    file = directory / "scheduler.json"
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes.append(
            _started(directory, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
                     "--scheduler-file", str(file), "--no-show")
        )  # fmt: skip
        for number in range(workers):
            processes.append(
                _started(directory, "worker", "--scheduler-file", str(file), "--nthreads", "1", "--name", f"w{number}",
                         "--no-dashboard", "--nanny" if nanny else "--no-nanny", "--local-directory", str(directory))
            )  # fmt: skip
        with Client(scheduler_file=str(file), timeout=START_SECONDS, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=START_SECONDS)
        address = json.loads(file.read_text(encoding="utf-8"))["address"]
        yield StartedCluster(address, processes[0], processes[1:])
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
        for process in reversed(processes):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _started(directory: Path, *arguments: str) -> subprocess.Popen[bytes]:
    with (directory / "dask.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            cwd=directory, env={**os.environ, "DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE": "False"},
        )  # fmt: skip
