"""The edges of the graph, in flat arrays: 12 bytes an edge and 12 a task, whatever the shape.

An edge is a position in the array of all dependencies, task after task. The edges that leave one task are chained
through `_next` in the order of their addition, so dependants come in insertion order and an edge costs the same
whether its ends were added together or hours apart.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

from overnight.errors import MissingDependency

_MOST_PASSES = 10


class Edges:
    """Dependencies and dependants of every task. `len()` is the number of tasks."""

    def __init__(self) -> None:
        self._dependencies = array("i")
        self._start = array("i", (0,))
        self._target = array("i")
        self._next = array("i")
        self._first = array("i")
        self._last = array("i")

    def __len__(self) -> int:
        return len(self._first)

    def extend(self, lists: Iterable[Sequence[int]]) -> None:
        """Append tasks, each given by its dependencies, which are added before or in this call. All or nothing.

        Raises:
            MissingDependency: a dependency is neither in the graph nor in this addition.
        """
        known = len(self)
        try:
            self._append(lists)
            self._demand_known(known)
        except BaseException:
            self._cut_back(known)
            raise
        self._link(known)

    def dependencies(self, task: int) -> Sequence[int]:
        """Return what the task depends on, in the given order."""
        return self._dependencies[self._start[task] : self._start[task + 1]]

    def degree(self, task: int) -> int:
        """Return the number of dependencies of the task."""
        return self._start[task + 1] - self._start[task]

    def dependants(self, task: int, most: int | None = None) -> Sequence[int]:
        """Return what depends on the task, in insertion order; the first `most` of them if that is given."""
        edge = self._first[task]
        if edge < 0:
            return ()
        target, following = self._target, self._next
        found: list[int] = []
        while edge >= 0 and len(found) != most:
            found.append(target[edge])
            edge = following[edge]
        return found

    @property
    def number(self) -> int:
        """How many edges there are."""
        return len(self._dependencies)

    def longest_ways(self, costs: Sequence[float]) -> Sequence[float]:
        """Return for each task its own cost and the highest sum of costs along any way through its dependants.

        Exact where dependencies were added before what depends on them, as far as it is not a matter of many passes.
        """
        dependencies, start = self._dependencies, self._start
        ways = array("d", costs)
        for _ in range(_MOST_PASSES):
            is_exact = True
            for task in range(len(costs) - 1, -1, -1):
                first, end = start[task], start[task + 1]
                way = ways[task]
                for edge in range(first, end):
                    dependency = dependencies[edge]
                    longer = way + costs[dependency]
                    if longer > ways[dependency]:
                        ways[dependency] = longer
                        is_exact = is_exact and dependency < task
            if is_exact:
                break
        return ways

    def _append(self, lists: Iterable[Sequence[int]]) -> None:
        all_dependencies, start = self._dependencies, self._start
        for dependencies in lists:
            if dependencies:
                all_dependencies.extend(dependencies)
            start.append(len(all_dependencies))

    def _demand_known(self, known: int) -> None:
        added = self._dependencies[self._start[known] :]
        total = len(self._start) - 1
        if not added or (min(added) >= 0 and max(added) < total):
            return
        for task in range(known, total):
            for dependency in self.dependencies(task):
                if not 0 <= dependency < total:
                    raise MissingDependency(f"Task {task} depends on task {dependency}, which has not been added.")

    def _cut_back(self, known: int) -> None:
        del self._start[known + 1 :]
        del self._dependencies[self._start[known] :]

    def _link(self, known: int) -> None:
        """Chain the edges of the tasks from `known` on to the tasks that they leave."""
        total, edges = len(self._start) - 1, len(self._dependencies)
        nothing = array("i", (-1,))
        self._first.extend(nothing * (total - known))
        self._last.extend(nothing * (total - known))
        self._next.extend(nothing * (edges - len(self._next)))
        dependencies, start, following, target = self._dependencies, self._start, self._next, self._target
        first, last = self._first, self._last
        for task in range(known, total):
            for edge in range(start[task], start[task + 1]):
                dependency = dependencies[edge]
                before = last[dependency]
                if before < 0:
                    first[dependency] = edge
                else:
                    following[before] = edge
                last[dependency] = edge
                target.append(task)
