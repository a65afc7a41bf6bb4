"""Which rules and which function belong to a task: one number each, as most tasks of a run share them.

Tasks that compete for the same room, those of one queue and one demand for resources, share a *lane*; the ready
tasks of a lane stand in one order, and one decision on resources is good for all of them.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Final

from overnight.core.events import DEFAULT_RULES, NewTask, TaskRules
from overnight.errors import InvalidTask

#: The bits of a place that hold the index of the task, and those above them that hold the rank.
INDEX_BITS: Final = 40
RANK_BITS: Final = 16
HIGHEST_RANK: Final = (1 << RANK_BITS) - 1

Resources = tuple[tuple[str, float], ...]


class Rulebook:
    """Rules, function and lane of every task. Lane `i` is the pair (queue, resources) in `lanes[i]`."""

    def __init__(self, limits: Mapping[str, float]) -> None:
        self._limits = limits
        self._numbers: dict[TaskRules, int] = {}
        self._lane_numbers: dict[tuple[str | None, Resources], int] = {}
        self._known: list[TaskRules] = []
        self._lane_of: list[int] = []
        self._place_of: list[int] = []
        self._kinds = array("i")
        self.functions = array("q")
        self.functions_in_use: set[int] = set()
        #: By task: what starts first among tasks of one priority; 0 where nothing is known.
        self.ranks = array("H")
        self.lanes: list[tuple[str | None, Resources]] = []

    def extend(self, tasks: Sequence[NewTask]) -> None:
        """Append the rules and functions of new tasks. All or nothing.

        Raises:
            InvalidTask: a task asks for more of a resource than there is in all (BEHAVIOUR O6).
        """
        known = len(self._kinds)
        try:
            self._append(tasks)
        except BaseException:
            self.cut_back(known)
            raise

    def cut_back(self, known: int) -> None:
        """Forget all tasks but the first `known`."""
        del self._kinds[known:]
        del self.functions[known:]
        del self.ranks[known:]

    def rules(self, task: int) -> TaskRules:
        """Return the rules of the task."""
        return self._known[self._kinds[task]]

    def lane(self, task: int) -> int:
        """Return the number of the task's lane."""
        return self._lane_of[self._kinds[task]]

    def place(self, task: int) -> int:
        """Return the task's place in the order of all: by priority, rank, and index, which is its low bits."""
        return self._place_of[self._kinds[task]] - (self.ranks[task] << INDEX_BITS) + task

    def _append(self, tasks: Sequence[NewTask]) -> None:
        kinds, functions = self._kinds, self.functions
        last, kind = DEFAULT_RULES, self._number(DEFAULT_RULES)
        for new in tasks:
            if new.rules is not last:
                last, kind = new.rules, self._number(new.rules)
            kinds.append(kind)
            functions.append(new.function)
        self.ranks.extend(array("H", (0,)) * len(tasks))
        self.functions_in_use.update([new.function for new in tasks])

    def _number(self, rules: TaskRules) -> int:
        number = self._numbers.get(rules)
        if number is None:
            demand_possible(rules, self._limits)
            number = self._numbers[rules] = len(self._known)
            self._known.append(rules)
            self._place_of.append((HIGHEST_RANK << INDEX_BITS) - (rules.priority << (INDEX_BITS + RANK_BITS)))
            self._lane_of.append(self._lane_number((rules.queue, tuple(sorted(rules.resources)))))
        return number

    def _lane_number(self, lane: tuple[str | None, Resources]) -> int:
        number = self._lane_numbers.setdefault(lane, len(self.lanes))
        if number == len(self.lanes):
            self.lanes.append(lane)
        return number


def demand_possible(rules: TaskRules, limits: Mapping[str, float], who: str = "A task") -> None:
    """Raise InvalidTask if a task, `who`, asks for more of a resource than there is in all (BEHAVIOUR O6)."""
    for name, amount in rules.resources:
        if amount > limits.get(name, amount):
            raise InvalidTask(
                f"{who} needs {amount:g} of {name!r}, and there are only {limits[name]:g}. "
                "Raise the limit or lower the task's need."
            )
