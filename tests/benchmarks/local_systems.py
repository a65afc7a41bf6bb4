"""Work of one process without any server: deciding what must run, and operations of large graphs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from overnight.cache import FileTaskCache
from overnight.inspection import decide
from tests.benchmarks import graph_million, status_100k, workloads
from tests.benchmarks.measuring import Sample, System, stopwatch
from tests.benchmarks.workloads import Sizes

LOCAL = "overnight"


@contextmanager
def local(sizes: Sizes, place: Path) -> Iterator[System]:
    """Overnight without an executor."""
    yield System(
        LOCAL,
        {
            workloads.STATUS.name: lambda: _status(sizes.status, place),
            workloads.GRAPH.name: lambda: _graph(sizes.graph),
        },
    )


def _status(tasks: int, place: Path) -> Sample:
    """Decide what must run in a graph half of whose tasks have flags."""
    with tempfile.TemporaryDirectory(dir=place) as directory:
        graph = status_100k.built(tasks)
        status_100k.written(graph, directory, tasks // 2)
        with stopwatch() as clock:
            decide(graph, FileTaskCache(directory))
    return Sample(tasks, clock.seconds)


def _graph(tasks: int) -> Sample:
    """Build, order and drain a chain."""
    steps = dict(graph_million.timed(graph_million.chain, [f"task-{number}" for number in range(tasks)]))
    return Sample(tasks, sum(steps.values()))
