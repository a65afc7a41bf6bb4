"""The edges of a graph and the set of its ready tasks, both kept up to date with each change.

An edge lives under the id of the dependency until that dependency completes. Edges to a node that left the graph
in another way stay behind, are skipped, and are swept once they outnumber the live ones; the heap of ready tasks
treats its entries likewise. So each change costs what it touches, on average over a sequence of changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

from overnight.graph_node import TaskNode
from overnight.task import Task

_SWEEP_ABOVE = 1000


class Dependants:
    """The edges: for each dependency that has not completed, the nodes that wait for it, in insertion order."""

    __slots__ = ("_left_behind", "_live", "_nodes_by_dependency")

    def __init__(self) -> None:
        #: A single node stands for itself, which spares a list for each task of a chain.
        self._nodes_by_dependency: dict[str, TaskNode | list[TaskNode]] = {}
        self._live = 0
        self._left_behind = 0

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._nodes_by_dependency

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes_by_dependency)

    def of(self, task_id: str) -> list[TaskNode]:
        """Return the nodes of the graph that wait for the task, in insertion order."""
        return _alive(self._nodes_by_dependency.get(task_id, ()))

    def connect(self, node: TaskNode) -> None:
        """Add the edges from the node's remaining dependencies."""
        by_dependency = self._nodes_by_dependency
        for dep in node.remaining:
            task_id = dep.task_id
            waiting = by_dependency.get(task_id)
            if waiting is None:
                by_dependency[task_id] = node
            elif isinstance(waiting, TaskNode):
                by_dependency[task_id] = [waiting, node]
            else:
                waiting.append(node)
        self._live += node.unmet

    def pop(self, task_id: str) -> list[TaskNode]:
        """Remove the edges from the task and return the nodes that waited for it."""
        waiting = self._nodes_by_dependency.pop(task_id, ())
        alive = _alive(waiting)
        self._live -= len(alive)
        self._left_behind -= (1 if isinstance(waiting, TaskNode) else len(waiting)) - len(alive)
        return alive

    def leave_behind(self, edges: int) -> None:
        """Give up so many edges to a node that has left the graph with dependencies unmet."""
        self._live -= edges
        self._left_behind += edges
        if self._left_behind > self._live + _SWEEP_ABOVE:
            self.sweep()

    def sweep(self) -> None:
        """Forget the edges to nodes that have left."""
        self._left_behind = 0
        swept = [(task_id, self.of(task_id)) for task_id in self._nodes_by_dependency]
        self._live = sum(len(nodes) for _, nodes in swept)
        self._nodes_by_dependency = {
            task_id: nodes[0] if len(nodes) == 1 else nodes for task_id, nodes in swept if nodes
        }


def _alive(waiting: TaskNode | Sequence[TaskNode]) -> list[TaskNode]:
    if isinstance(waiting, TaskNode):
        return [waiting] if waiting.alive else []
    return [node for node in waiting if node.alive]


class ReadyTasks:
    """The nodes without remaining dependencies: a heap of ranks, in which those that left are skipped."""

    __slots__ = ("_heap", "_nodes")

    def __init__(self) -> None:
        self._nodes: dict[int, TaskNode] = {}
        self._heap: list[int] = []

    def add(self, node: TaskNode) -> None:
        """Add a node that has become ready."""
        self._nodes[node.rank] = node
        heappush(self._heap, node.rank)

    def discard(self, node: TaskNode) -> None:
        """Remove a node that leaves the graph."""
        if self._nodes.pop(node.rank, None) is None:
            return
        if self._heap[0] == node.rank:
            heappop(self._heap)
        elif len(self._heap) > 2 * len(self._nodes) + _SWEEP_ABOVE:
            self._heap = sorted(self._nodes)

    def first(self, limit: int) -> list[Task]:
        """Return the first `limit` tasks in order, all for 0."""
        if not limit or limit >= len(self._nodes):
            return [self._nodes[rank].task for rank in sorted(self._nodes)]
        ranks: list[int] = []
        while len(ranks) < limit:
            rank = heappop(self._heap)
            if rank in self._nodes:
                ranks.append(rank)
        for rank in ranks:
            heappush(self._heap, rank)
        return [self._nodes[rank].task for rank in ranks]
