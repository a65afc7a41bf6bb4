"""The Dask executor beside plain Dask, on one cluster: `client.map`, and `client.submit` hop by hop."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distributed import Client

from overnight.dask_executor import DaskExecutor
from tests.benchmarks import workloads
from tests.benchmarks.measuring import Sample, System, stopwatch
from tests.benchmarks.overnight_systems import execute
from tests.benchmarks.workloads import WORKERS, Sizes
from tests.support import graphs
from tests.support.dask_clusters import local_cluster
from tests.support.functions import one_more
from tests.support.tasks import give

PLAIN = "plain Dask"
EXECUTOR = "overnight Dask"


@contextmanager
def plain_and_executor(sizes: Sizes, place: Path) -> Iterator[list[System]]:
    """Both systems on one cluster of two worker processes, warm."""
    with (
        local_cluster(processes=True, workers=WORKERS) as cluster,
        Client(cluster, set_as_default=False) as client,
        tempfile.TemporaryDirectory(dir=place) as logs,
    ):
        executor = DaskExecutor(client, task_log_dir=logs)
        execute(executor, graphs.noops(n=100))
        _mapped(client, 100)
        plain = {
            workloads.DASKMAP.name: lambda: _mapped(client, sizes.dask_wide),
            workloads.DASKCHAIN.name: lambda: _hopped(client, sizes.chain),
        }
        ours = {
            workloads.DASKMAP.name: lambda: execute(executor, graphs.noops(n=sizes.dask_wide)),
            workloads.DASKCHAIN.name: lambda: execute(executor, graphs.chain(n=sizes.chain)),
        }
        yield [System(PLAIN, plain), System(EXECUTOR, ours)]


def _mapped(client: Client, tasks: int) -> Sample:
    with stopwatch() as clock:
        client.gather(client.map(give, range(tasks), pure=False))
    return Sample(tasks, clock.seconds)


def _hopped(client: Client, tasks: int) -> Sample:
    value = 0
    with stopwatch() as clock:
        for _ in range(tasks):
            value = client.submit(one_more, value, pure=False).result()
    return Sample(tasks, clock.seconds)
