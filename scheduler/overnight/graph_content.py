"""The content of a TaskGraph and the changes it can undergo, each linear in what it touches.

Nodes, unmet edges, ready tasks and suspects of the cycle check change together here and nowhere else. A cycle
needs an edge to a task that is added after its dependant, so only such additions are suspects. Nothing here
locks: `TaskGraph` does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

from overnight.errors import DuplicateTask, UnknownTask, nearest
from overnight.graph_edges import Edges, ReadyTasks
from overnight.graph_node import NOT_HELD, SEQUENCE_BITS, TaskNode
from overnight.graph_order import refuse_cycle, with_ancestors
from overnight.task import Task, bounded_task


class GraphContent:
    """Nodes by id, the edges between them, and which are ready.

    `finished` holds the Tasks whose ids are refused because they have finished in the active run (G11).
    `additions` counts the tasks ever added.
    """

    __slots__ = ("_ready", "_suspects", "additions", "edges", "finished", "nodes")

    def __init__(self, nodes: Iterable[TaskNode] = ()) -> None:
        self.nodes: dict[str, TaskNode] = {}
        self.edges = Edges(self.nodes)
        self.additions = 0
        self.finished: Container[Task] = ()
        self._ready = ReadyTasks()
        self._suspects: list[str] = []
        for node in nodes:
            self._insert(node)

    def node(self, task: Task | str) -> TaskNode:
        """Return the node of a task; raise UnknownTask with the nearest known id."""
        named = bounded_task(Task(task) if isinstance(task, str) else task)
        node = self.nodes.get(named.task_id)
        if node is None:
            raise UnknownTask(f"No task {named.task_id!r} is in the graph{nearest(named.task_id, list(self.nodes))}")
        return node

    def distinct_nodes(self, tasks: Iterable[Task]) -> list[TaskNode]:
        """Return the nodes of the tasks; raise UnknownTask, or DuplicateTask for one that is named twice."""
        known = self.nodes
        nodes = []
        for task in tasks:
            nodes.append(known.get(task.task_id) or self.node(task))  # noqa: PERF401 - most often there is one
        if len(nodes) > 1 and len(set(nodes)) < len(nodes):
            twice = next(node for node, times in Counter(nodes).items() if times > 1)
            raise DuplicateTask(f"Task {twice.task.task_id!r} is named twice.")
        return nodes

    def added_after(self, additions: int) -> list[Task]:
        """Return the tasks in the graph that were added after the first `additions` ones, in order."""
        added: list[Task] = []
        for node in reversed(self.nodes.values()):
            if node.sequence <= additions:
                break
            added.append(node.task)
        return added[::-1]

    def add(self, nodes: Collection[TaskNode]) -> None:
        """Add all nodes, or none: raise DuplicateTask for an id that is taken (G9, G10, G11)."""
        batch: set[str] = set()
        for node in nodes:
            self._refuse_taken(node.task)
            if node.task.task_id in batch:
                raise DuplicateTask(f"Task {node.task.task_id!r} is twice in one batch of additions.")
            batch.add(node.task.task_id)
        for node in nodes:
            self._insert(node)

    def add_one(self, node: TaskNode) -> None:
        """Add a node; raise DuplicateTask for an id that is taken."""
        if node.task.task_id in self.nodes or self.finished:
            self._refuse_taken(node.task)
        self._insert(node)

    def _refuse_taken(self, task: Task) -> None:
        if task.task_id in self.nodes:
            raise DuplicateTask(f"Task {task.task_id!r} is already in the graph. Choose another id.")
        if self.finished and task in self.finished:
            raise DuplicateTask(f"Task {task.task_id!r} has already finished in this run. Choose another id.")

    def _insert(self, node: TaskNode) -> None:
        task_id = node.task.task_id
        self.additions = additions = self.additions + 1
        priority = node.options.priority
        node.rank = additions - (priority << SEQUENCE_BITS) if priority else additions
        self.nodes[task_id] = node
        if self.edges.absent:
            self.edges.take_over(node)
        if not node.unmet:
            self._ready.add(node)
        elif self.edges.connect(node):
            self._suspects.append(task_id)

    def check(self) -> None:
        """Raise CyclicGraph if dependencies form a cycle; free of cost where no suspect was added (G12)."""
        if self._suspects:
            refuse_cycle(self.nodes, self._suspects)
            self._suspects.clear()

    def ready(self, limit: int) -> list[Task]:
        """Return up to `limit` (0: all) ready tasks in order. Raises CyclicGraph."""
        if self._suspects:
            self.check()
        return self._ready.first(limit)

    def remove(self, nodes: Iterable[TaskNode]) -> None:
        """Take nodes out; tasks that depend on them go on waiting."""
        ready = edges = 0
        for node in nodes:
            del self.nodes[node.task.task_id]
            node.alive = False
            if node.waiting is not None:
                self.edges.disconnect(node)
            if node.unmet:
                edges += node.unmet
            else:
                ready += 1
        if ready:
            self._ready.forget(ready)
        if edges:
            self.edges.leave_behind(edges)

    def complete(self, task: Task, value: Any = NOT_HELD) -> None:
        """Remove a task that succeeded and satisfy its dependants, with its value if it is given."""
        edges = self.edges
        task_id = task.task_id
        if task_id not in edges.absent:
            task_id = self._remove_if_there(task)
        for dependant in edges.pop(task_id):
            dependant.settle(task_id, value)
            if not dependant.unmet:
                self._ready.add(dependant)

    def _remove_if_there(self, task: Task) -> str:
        """Take out a task that may have left already; return its bounded id."""
        task_id = bounded_task(task).task_id
        node = self.nodes.get(task_id)
        if node is not None:
            self.remove([node])
        return task_id

    def fail(self, task: Task) -> list[Task]:
        """Remove a task and its transitive dependants; return these, nearest first."""
        removed: list[TaskNode] = []
        self._skip(self.edges.pop(self._remove_if_there(task)), removed)
        for above in removed:
            self._skip(self.edges.pop(above.task.task_id), removed)
        return [node.task for node in removed]

    def _skip(self, dependants: Iterable[TaskNode], removed: list[TaskNode]) -> None:
        """Take out the nodes that waited for a task whose edges are gone, and add them to `removed`."""
        for node in dependants:
            del self.nodes[node.task.task_id]
            node.alive = False
            self.edges.disconnect(node)
            self.edges.leave_behind(node.unmet - 1)
            removed.append(node)

    def prune(self, names: Sequence[Task | str]) -> None:
        """Keep the named tasks and their ancestors, in unchanged order (G24)."""
        kept = with_ancestors(self.nodes, [self.node(name).task.task_id for name in names])
        self.remove([node for task_id, node in self.nodes.items() if task_id not in kept])
        self.edges.sweep()

    def fill_in(self, results: Mapping[Task, Any]) -> None:
        """Give each node the values of its completed dependencies that only `results` holds."""
        for node in self.nodes.values():
            node.fill_in(results)


class NodesByTask(Mapping[Task, TaskNode]):
    """The live mapping Task -> node of a content, in insertion order (G20)."""

    def __init__(self, content: GraphContent) -> None:
        self._content = content

    def __getitem__(self, task: Task) -> TaskNode:
        return self._content.nodes[bounded_task(task).task_id]

    def __iter__(self) -> Iterator[Task]:
        return (node.task for node in self._content.nodes.values())

    def __len__(self) -> int:
        return len(self._content.nodes)
