"""Measures TaskGraph with a million tasks: seconds per step and bytes per task.

Run as ``python -m tests.benchmarks.graph_million [TASKS]``. Times and memory are measured in separate passes,
because tracing allocations slows a pass down. Bytes count what the graph adds above the caller's ids.
"""

from __future__ import annotations

import gc
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator

from overnight.graph import Task, TaskGraph

BATCH = 1000
Build = Callable[[list[str]], TaskGraph]


def identity(value: object) -> object:
    return value


def collect(*values: object) -> int:
    return len(values)


def chain(ids: list[str]) -> TaskGraph:
    """Each task takes the result of the one before it."""
    graph = TaskGraph()
    before: Task | None = None
    for task_id in ids:
        before = graph.create_task(task_id, identity, args=[before])
    return graph


def fan_in(ids: list[str]) -> TaskGraph:
    """The last task takes the results of all others."""
    graph = TaskGraph()
    parts = [graph.create_task(task_id, identity, args=[1]) for task_id in ids[:-1]]
    graph.create_task(ids[-1], collect, args=parts)
    return graph


def diamonds(ids: list[str]) -> TaskGraph:
    """Each task waits for two of the hundred before it."""
    graph = TaskGraph()
    tasks: list[Task] = []
    for at, task_id in enumerate(ids):
        deps = [tasks[at - 50], tasks[at - 100]] if at >= 100 else []
        tasks.append(graph.create_task(task_id, identity, args=[at], deps=deps))
    return graph


def drain(graph: TaskGraph) -> int:
    done = 0
    while not graph.empty():
        descs = graph.extract_tasks(graph.ready_tasks(BATCH))
        graph.process_completed_tasks([(desc.task, None) for desc in descs])
        done += len(descs)
    return done


def timed(build: Build, ids: list[str]) -> Iterator[tuple[str, float]]:
    gc.collect()
    started = time.perf_counter()
    graph = build(ids)
    built = time.perf_counter()
    yield "build", built - started
    order = graph.topological_order()
    ordered = time.perf_counter()
    yield "order", ordered - built
    assert len(order) == len(ids)
    assert drain(graph) == len(ids)
    yield "drain", time.perf_counter() - ordered


def seconds_to_prune(build: Build, ids: list[str]) -> float:
    graph = build(ids)
    started = time.perf_counter()
    graph.prune([ids[len(ids) // 2]])
    return time.perf_counter() - started


def seconds_to_fail(build: Build, ids: list[str]) -> float:
    graph = build(ids)
    started = time.perf_counter()
    graph.process_completed_tasks([(Task(ids[0]), ValueError("first"))])
    return time.perf_counter() - started


def bytes_per_task(build: Build, ids: list[str]) -> float:
    tracemalloc.start()
    graph = build(ids)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return used / len(graph)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    ids = [f"task-{number}" for number in range(count)]
    print(f"{count} tasks; seconds, bytes per task")
    print("shape      build  order  drain    sum  prune   fail  bytes")
    for build in (chain, fan_in, diamonds):
        steps = dict(timed(build, ids))
        prune, fail = seconds_to_prune(build, ids), seconds_to_fail(build, ids)
        row = [steps["build"], steps["order"], steps["drain"], sum(steps.values()), prune, fail]
        print(
            f"{build.__name__:9}" + "".join(f" {value:6.2f}" for value in row) + f" {bytes_per_task(build, ids):6.0f}"
        )


if __name__ == "__main__":
    main()
