"""Orders over the nodes of a graph: generations, ancestors, cycles. Pure, linear, with their own stacks."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from graphlib import TopologicalSorter

from overnight.errors import CyclicGraph
from overnight.graph_node import TaskNode, Waiting
from overnight.task import Task, TaskDesc

Nodes = Mapping[str, TaskNode]


def by_generation(nodes: Nodes, absent: Mapping[str, Waiting]) -> list[Task]:
    """Return the tasks of an acyclic graph, sources first by id, each next generation as it is freed (G18)."""
    order: list[Task] = []
    walk: list[Waiting | None] = []
    for task_id in sorted([*(task_id for task_id, node in nodes.items() if not node.unmet), *absent]):
        source = nodes.get(task_id)
        if source is not None:
            order.append(source.task)
        walk.append(absent[task_id] if source is None else source.waiting)
    unmet: dict[TaskNode, int] = {}
    for waiting in walk:
        if waiting is None:
            continue
        for dependant in (waiting,) if type(waiting) is TaskNode else waiting:
            left = dependant.unmet - 1
            if left:
                unmet[dependant] = left = unmet.get(dependant, left + 1) - 1
            if not left and dependant.alive:
                order.append(dependant.task)
                walk.append(dependant.waiting)
    return order


def with_ancestors(nodes: Nodes, task_ids: Iterable[str]) -> set[str]:
    """Return the ids together with those of all remaining dependencies in the graph, at any distance."""
    kept = set(task_ids)
    waiting = list(kept)
    while waiting:
        for task_id in _dependencies_within(nodes, waiting.pop()):
            if task_id not in kept:
                kept.add(task_id)
                waiting.append(task_id)
    return kept


def refuse_cycle(nodes: Nodes, suspects: Sequence[str]) -> None:
    """Raise CyclicGraph if a cycle passes through one of the suspects or their ancestors (G12)."""
    finished: set[str] = set()
    for suspect in suspects:
        if suspect in nodes and suspect not in finished:
            _refuse_cycle_above(nodes, suspect, finished)


def _refuse_cycle_above(nodes: Nodes, start: str, finished: set[str]) -> None:
    path = {start: _dependencies_within(nodes, start)}
    while path:
        task_id = _next_ancestor(path, finished)
        if task_id is None:
            finished.add(path.popitem()[0])
        elif task_id in path:
            cycle = list(path)[list(path).index(task_id) :]
            raise CyclicGraph(_in_running_order(nodes, cycle))
        else:
            path[task_id] = _dependencies_within(nodes, task_id)


def _next_ancestor(path: dict[str, Iterator[str]], finished: Container[str]) -> str | None:
    left = path[next(reversed(path))]
    return next((task_id for task_id in left if task_id not in finished), None)


def _in_running_order(nodes: Nodes, cycle: list[str]) -> list[str]:
    """Turn a walk from dependant to dependency round, to begin with the task that was added first."""
    cycle.reverse()
    first = min(range(len(cycle)), key=lambda at: nodes[cycle[at]].sequence)
    return cycle[first:] + cycle[:first]


def _dependencies_within(nodes: Nodes, task_id: str) -> Iterator[str]:
    return (dep.task_id for dep in nodes[task_id].remaining if dep.task_id in nodes)


def dependencies_first(descs: Sequence[TaskDesc]) -> list[Task]:
    """Return the tasks in their given order if that will do, as it mostly does; sorted otherwise."""
    to_come = {desc.task for desc in descs}
    for desc in descs:
        if not to_come.isdisjoint(desc.deps):
            break
        to_come.discard(desc.task)
    else:
        return [desc.task for desc in descs]
    edges = {desc.task: desc.deps for desc in descs}
    return [task for task in TopologicalSorter(edges).static_order() if task in edges]
