"""The edges of a graph and the set of its ready tasks, both kept up to date with each change.

An edge lives under the id of the dependency until that dependency completes. Edges to a node that left the graph
in another way stay behind, are skipped, and are swept once they outnumber the live ones; the heap of ready tasks
treats its entries likewise. So each change costs what it touches, on average over a sequence of changes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from itertools import islice

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

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes_by_dependency)

    def of(self, task_id: str) -> list[TaskNode]:
        """Return the nodes of the graph that wait for the task, in insertion order."""
        return _alive(self._nodes_by_dependency.get(task_id, ()))

    def connect(self, node: TaskNode) -> bool:
        """Add the edges from the node's remaining dependencies; tell whether a node waits for this one."""
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
        return node.task.task_id in by_dependency

    def pop(self, task_id: str) -> Sequence[TaskNode]:
        """Remove the edges from the task and return the nodes that waited for it."""
        waiting = self._nodes_by_dependency.pop(task_id, None)
        if waiting is None:
            return ()
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
    """The nodes without remaining dependencies, by rank.

    Ranks that come in order, as they mostly do, stand in `_ascending`, and all others in `_heap`. Those of nodes that
    have left are skipped, and swept as edges are.
    """

    __slots__ = ("_ascending", "_heap", "_nodes")

    def __init__(self) -> None:
        self._nodes: dict[int, TaskNode] = {}
        self._ascending: deque[int] = deque()
        self._heap: list[int] = []

    def add(self, node: TaskNode) -> None:
        """Add a node that has become ready."""
        rank = node.rank
        self._nodes[rank] = node
        if not self._ascending or rank > self._ascending[-1]:
            self._ascending.append(rank)
        else:
            heappush(self._heap, rank)

    def discard(self, node: TaskNode) -> None:
        """Remove a node that leaves the graph."""
        rank = node.rank
        if self._nodes.pop(rank, None) is None:
            return
        if self._ascending and self._ascending[0] == rank:
            self._ascending.popleft()
        elif self._heap and self._heap[0] == rank:
            heappop(self._heap)
        elif len(self._ascending) + len(self._heap) > 2 * len(self._nodes) + _SWEEP_ABOVE:
            self._ascending, self._heap = deque(sorted(self._nodes)), []

    def first(self, limit: int) -> list[Task]:
        """Return the first `limit` tasks in order, all for 0."""
        nodes = self._nodes
        if limit and limit < len(nodes):
            ranks = sorted([*self._first_ascending(limit), *self._first_of_heap(limit)])[:limit]
        else:
            ranks = sorted(nodes)
        return [nodes[rank].task for rank in ranks]

    def _first_ascending(self, limit: int) -> Iterator[int]:
        ranks, nodes = self._ascending, self._nodes
        while ranks and ranks[0] not in nodes:
            ranks.popleft()
        return islice((rank for rank in ranks if rank in nodes), limit)

    def _first_of_heap(self, limit: int) -> list[int]:
        ranks: list[int] = []
        while self._heap and len(ranks) < limit:
            rank = heappop(self._heap)
            if rank in self._nodes:
                ranks.append(rank)
        for rank in ranks:
            heappush(self._heap, rank)
        return ranks
