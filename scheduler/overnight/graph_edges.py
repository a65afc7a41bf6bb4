"""The edges of a graph and the set of its ready tasks, both kept up to date with each change.

An edge lives at the dependency until that completes: in its node while it is in the graph, under its id otherwise.
Edges to a node that left the graph in another way stay behind, are skipped, and are swept once they outnumber what a
sweep looks at; the set of ready tasks treats its nodes likewise. So each change costs what it touches, on average
over a sequence of changes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import islice

from overnight.graph_node import TaskNode, Waiting
from overnight.task import Task

_SWEEP_ABOVE = 1000


class Edges:
    """The edges between the nodes of `nodes`, a live mapping of ids that its owner keeps.

    `absent` has, for each task that is not in the graph and has not completed, the nodes that wait for it.
    """

    __slots__ = ("_left_behind", "_live", "_nodes", "absent")

    def __init__(self, nodes: dict[str, TaskNode]) -> None:
        self.absent: dict[str, Waiting] = {}
        self._nodes = nodes
        self._live = 0
        self._left_behind = 0

    def take_over(self, node: TaskNode) -> None:
        """Give a new node the edges that stood under its id."""
        node.waiting = self.absent.pop(node.task.task_id, None)

    def connect(self, node: TaskNode) -> bool:
        """Add the edges from the dependencies of a new node; tell whether a node waits for this one."""
        nodes = self._nodes
        unmet = node.unmet
        for dep in node.deps if unmet == len(node.deps) else node.remaining:
            holder = nodes.get(dep.task_id)
            if holder is None:
                self._wait_for_absent(dep.task_id, node)
            elif holder.waiting is None:
                holder.waiting = node
            else:
                holder.waiting = _joined(holder.waiting, node)
        self._live += unmet
        return node.waiting is not None

    def _wait_for_absent(self, task_id: str, node: TaskNode) -> None:
        waiting = self.absent.get(task_id)
        self.absent[task_id] = node if waiting is None else _joined(waiting, node)

    def disconnect(self, node: TaskNode) -> None:
        """Keep the edges from a node that leaves the graph under its id."""
        if node.waiting is not None:
            self.absent[node.task.task_id] = node.waiting
            node.waiting = None

    def pop(self, task_id: str) -> Sequence[TaskNode]:
        """Remove the edges from a task that is not in the graph and return the nodes that waited for it."""
        waiting = self.absent.pop(task_id, None)
        if waiting is None:
            return ()
        if type(waiting) is TaskNode and waiting.alive:
            self._live -= 1
            return (waiting,)
        alive = alive_among(waiting)
        self._live -= len(alive)
        self._left_behind -= (1 if type(waiting) is TaskNode else len(waiting)) - len(alive)
        return alive

    def leave_behind(self, edges: int) -> None:
        """Give up so many edges to a node that has left the graph with dependencies unmet."""
        self._live -= edges
        self._left_behind += edges
        if self._left_behind > self._live + len(self._nodes) + _SWEEP_ABOVE:
            self.sweep()

    def sweep(self) -> None:
        """Forget the edges to nodes that have left."""
        self._left_behind = 0
        self._live = 0
        for node in self._nodes.values():
            if node.waiting is not None:
                node.waiting = self._swept(node.waiting)
        swept = ((task_id, self._swept(waiting)) for task_id, waiting in self.absent.items())
        self.absent = {task_id: waiting for task_id, waiting in swept if waiting is not None}

    def _swept(self, waiting: Waiting) -> Waiting | None:
        alive = alive_among(waiting)
        self._live += len(alive)
        if len(alive) > 1:
            return alive
        return alive[0] if alive else None


def _joined(waiting: Waiting, node: TaskNode) -> list[TaskNode]:
    if isinstance(waiting, list):
        waiting.append(node)
        return waiting
    return [waiting, node]


def alive_among(waiting: Waiting) -> list[TaskNode]:
    """Return those of the nodes that are in the graph."""
    if type(waiting) is TaskNode:
        return [waiting] if waiting.alive else []
    return [node for node in waiting if node.alive]


class ReadyTasks:
    """The nodes without remaining dependencies, by rank.

    Nodes that come in the order of their ranks, as they mostly do, stand in `_ascending`, and all others in `_heap`.
    Those that have left the graph are skipped where they do not stand first, and swept as edges are.
    """

    __slots__ = ("_ascending", "_heap", "_ready")

    def __init__(self) -> None:
        self._ready = 0
        self._ascending: deque[TaskNode] = deque()
        self._heap: list[tuple[int, TaskNode]] = []

    def add(self, node: TaskNode) -> None:
        """Add a node that has become ready."""
        self._ready += 1
        ascending = self._ascending
        if not ascending or node.rank > ascending[-1].rank:
            ascending.append(node)
        else:
            heappush(self._heap, (node.rank, node))

    def forget(self, left: int) -> None:
        """Let go of so many ready nodes that are no longer alive."""
        self._ready = ready = self._ready - left
        ascending, heap = self._ascending, self._heap
        if not ready:
            ascending.clear()
            heap.clear()
            return
        while ascending and not ascending[0].alive:
            ascending.popleft()
        while heap and not heap[0][1].alive:
            heappop(heap)
        if len(ascending) + len(heap) > 2 * ready + _SWEEP_ABOVE:
            self._ascending, self._heap = deque(self._sorted()), []

    def first(self, limit: int) -> list[Task]:
        """Return the first `limit` tasks in order, all for 0."""
        ready, ascending = self._ready, self._ascending
        if not self._heap and ready == len(ascending):
            if ready == 1:
                return [ascending[0].task]
            return [node.task for node in (islice(ascending, limit) if limit else ascending)]
        if not limit or limit >= ready:
            return [node.task for node in self._sorted()]
        ranked = [(node.rank, node) for node in islice((node for node in ascending if node.alive), limit)]
        return [node.task for _, node in sorted([*ranked, *self._first_of_heap(limit)])[:limit]]

    def _sorted(self) -> list[TaskNode]:
        ranked = [*((node.rank, node) for node in self._ascending), *self._heap]
        return [node for _, node in sorted(ranked) if node.alive]

    def _first_of_heap(self, limit: int) -> list[tuple[int, TaskNode]]:
        heap = self._heap
        ranked: list[tuple[int, TaskNode]] = []
        while heap and len(ranked) < limit:
            entry = heappop(heap)
            if entry[1].alive:
                ranked.append(entry)
        for entry in ranked:
            heappush(heap, entry)
        return ranked
