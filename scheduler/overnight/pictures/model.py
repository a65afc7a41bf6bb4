"""What a picture shows: nodes with the states of their tasks, and edges between them.

A graph of few tasks is shown task by task. A larger one is folded: tasks of one function at one level become one node.
A task's level counts the changes of function on the way to it, so that map -> merge -> map are three nodes, a chain of
one function is one, and the folded graph has no cycle. Where that leaves too many nodes, each function becomes one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: Colours by state: fill, border. Lightness differs too, so that they are told apart without colours.
COLOURS: Mapping[str, tuple[str, str]] = {
    "done": ("#b7e1bd", "#2f7d3b"),
    "cached": ("#e3f3e5", "#7aa881"),
    "up to date": ("#e3f3e5", "#7aa881"),
    "would run": ("#ffe2a8", "#b57a00"),
    "failed": ("#f4a9a3", "#a3241b"),
    "skipped": ("#d9cfe3", "#75608c"),
    "cancelled": ("#d5d5d5", "#707070"),
    "running": ("#8fc1f0", "#1f5f9e"),
    "queued": ("#d3e6f8", "#6d95bb"),
    "pending": ("#ffffff", "#9a9a9a"),
    "tried": ("#f9d9b0", "#b57a00"),
}
#: More dependencies than so many for each task that may be shown hide each other.
_MOST_EDGES = 8


@dataclass(frozen=True, slots=True)
class TaskInPicture:
    """A task to be shown; `dependencies` are places in the sequence of tasks, all before its own."""

    task_id: str
    function: str
    state: str
    dependencies: Sequence[int]


@dataclass(frozen=True, slots=True)
class Node:
    """One task, or all tasks of a function that are shown as one. `note` says more of it."""

    label: str
    counts: Mapping[str, int]
    note: str

    @property
    def tasks(self) -> int:
        """How many tasks it stands for."""
        return sum(self.counts.values())

    @property
    def state(self) -> str:
        """The state that most of its tasks have; a failure counts above all."""
        return "failed" if self.counts.get("failed") else max(self.counts, key=lambda state: self.counts[state])


@dataclass(frozen=True, slots=True)
class Picture:
    """Nodes, and edges as (from, to) -> for how many dependencies it stands."""

    title: str
    nodes: Sequence[Node]
    edges: Mapping[tuple[int, int], int]
    is_folded: bool

    @property
    def counts(self) -> Mapping[str, int]:
        """The number of tasks by state, in the order of `COLOURS`."""
        total: Counter[str] = Counter()
        for node in self.nodes:
            total.update(node.counts)
        return {state: total[state] for state in COLOURS if total[state]}


def make_picture(title: str, tasks: Sequence[TaskInPicture], fold_above: int) -> Picture:
    """Return the picture of a graph; more tasks than `fold_above`, or far more dependencies, are folded."""
    if len(tasks) <= fold_above and sum(len(task.dependencies) for task in tasks) <= _MOST_EDGES * fold_above:
        nodes = [Node(task.task_id, {task.state: 1}, f"{_short(task.function)}, {task.state}") for task in tasks]
        edges = {(dep, number): 1 for number, task in enumerate(tasks) for dep in task.dependencies}
        return Picture(title, nodes, edges, is_folded=False)
    folded = _folded(title, tasks, [(task.function, level) for task, level in zip(tasks, _levels(tasks), strict=True)])
    if len(folded.nodes) > fold_above:
        return _folded(title, tasks, [(task.function, 0) for task in tasks])
    return folded


def _levels(tasks: Sequence[TaskInPicture]) -> list[int]:
    levels: list[int] = []
    for task in tasks:
        function = task.function
        levels.append(max((levels[dep] + (tasks[dep].function != function) for dep in task.dependencies), default=0))
    return levels


def _folded(title: str, tasks: Sequence[TaskInPicture], groups: Sequence[tuple[str, int]]) -> Picture:
    """Return the picture with a node for each group. Edges within one are told by its note."""
    places: dict[tuple[str, int], int] = {}
    node_of = [places.setdefault(group, len(places)) for group in groups]
    first = {node: task.task_id for node, task in zip(reversed(node_of), reversed(tasks), strict=True)}
    counts: list[Counter[str]] = [Counter() for _ in places]
    edges: Counter[tuple[int, int]] = Counter()
    for number, task in enumerate(tasks):
        node = node_of[number]
        counts[node][task.state] += 1
        for dep in task.dependencies:
            edges[node_of[dep], node] += 1
    inner = {node: edges.pop((node, node), 0) for node in places.values()}
    nodes = [
        Node(
            f"{_short(function)} x {number:,}" if (number := counts[node].total()) > 1 else first[node],
            _ordered(counts[node]),
            _note(function, counts[node], inner[node]),
        )
        for (function, _), node in places.items()
    ]
    return Picture(title, nodes, dict(edges), is_folded=True)


def _ordered(counts: Mapping[str, int]) -> dict[str, int]:
    return {state: counts[state] for state in COLOURS if counts.get(state)}


def _note(function: str, counts: Mapping[str, int], inner: int) -> str:
    chained = f"; {inner:,} of its dependencies are among themselves" if inner else ""
    return f"{function}: {counts_text(_ordered(counts))}{chained}"


def counts_text(counts: Mapping[str, int]) -> str:
    """Return the number of tasks by state in words."""
    return ", ".join(f"{number:,} {state}" for state, number in counts.items())


def _short(function: str) -> str:
    """Return the names of a task's functions without their modules."""
    return " | ".join(name.rpartition(":")[2] for name in function.split(" | "))
