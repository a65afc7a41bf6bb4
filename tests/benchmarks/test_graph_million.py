"""The graph costs as much for each task of a large graph as of a smaller one, up to caches (BEHAVIOUR G27)."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.benchmarks.graph_million import Build, chain, diamonds, drain, fan_in

#: Neither fits into the caches of one processor.
FEW, MANY = 80_000, 800_000
#: Memory is slower than caches; a step that looked at every task for each one would cost ten times as much.
MOST_RATIO = 2.0
#: What else uses the memory slows some rounds, and none is quicker than it can be.
ROUNDS = 3


def seconds_per_task(build: Build, count: int) -> float:
    """Return the processor time to build, order and drain a graph, for each task."""
    ids = [f"task-{number}" for number in range(count)]
    started = time.process_time()
    graph = build(ids)
    assert len(graph.topological_order()) == count
    assert drain(graph) == count
    return (time.process_time() - started) / count


def ratio(build: Build) -> float:
    """Return how much dearer a task of the larger graph is, in the best of a few interleaved rounds."""
    rounds = [(seconds_per_task(build, FEW), seconds_per_task(build, MANY)) for _ in range(ROUNDS)]
    few, many = (min(seconds) for seconds in zip(*rounds, strict=True))
    return float(many / few)


@pytest.mark.parametrize("build", [chain, fan_in, diamonds])
def test_a_task_of_a_graph_ten_times_as_large_costs_about_as_much(build: Build) -> None:
    """G27: in a process of its own, as full collections walk through all that a process holds."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        assert fresh.submit(ratio, build).result() <= MOST_RATIO
