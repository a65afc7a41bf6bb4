"""Orders over the nodes of a graph: generations, ancestors, cycles. Pure, linear, with their own stacks."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from overnight.errors import CyclicGraph
from overnight.graph_edges import Dependants
from overnight.graph_node import TaskNode
from overnight.task import Task

Nodes = Mapping[str, TaskNode]


def by_generation(nodes: Nodes, dependants: Dependants) -> list[Task]:
    """Return the tasks of an acyclic graph, sources first by id, each next generation as it is freed (G18)."""
    outside = [task_id for task_id in dependants if task_id not in nodes]
    generation = sorted([*(task_id for task_id, node in nodes.items() if not node.unmet), *outside])
    order: list[Task] = []
    unmet: dict[TaskNode, int] = {}
    while generation:
        freed: list[str] = []
        for task_id in generation:
            if task_id in nodes:
                order.append(nodes[task_id].task)
            for dependant in dependants.of(task_id):
                left = unmet.pop(dependant, dependant.unmet) - 1
                if left:
                    unmet[dependant] = left
                else:
                    freed.append(dependant.task.task_id)
        generation = freed
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
