"""How far it is from each task to the end of the run, by learned durations: of ready tasks, the farthest starts first.

The way of a task is its own expected duration and the longest way of what depends on it. It is kept as a rank of two
bytes, on a scale of equal ratios, so that equal ways have equal ranks and tasks of these start in the order of their
addition. Ways are computed for all tasks at once, when tasks were added or durations have changed by more than half
since, and not before so much time has passed that this takes a small share of it: a task costs the same however many
there are.

A way is *critical* if it is about as long as the rest of the run would take, were all else shared among the workers.
"""

from __future__ import annotations

from array import array
from math import inf, log2
from typing import Final

from overnight.core.batching import Durations
from overnight.core.edges import Edges
from overnight.core.rulebook import HIGHEST_RANK, Rulebook

#: Seconds between two computations: at least so many, and so many for each task.
LEAST_INTERVAL: Final = 0.1
INTERVAL_PER_TASK: Final = 30e-6
#: Of a function that has never run. Beside known ones it counts as the longest of them: so it is tried early.
UNKNOWN_SECONDS: Final = 1.0
_UNIT: Final = 1e-4  # shorter ways are all alike
_STEPS: Final = 256  # ranks for each doubling of a way
_CHANGED: Final = 1.5
_CRITICAL_SHARE: Final = 0.5


class Paths:
    """The ways of all tasks of a run, as far as they are known."""

    def __init__(self, rulebook: Rulebook, edges: Edges, durations: Durations) -> None:
        self._rulebook = rulebook
        self._edges = edges
        self._durations = durations
        self._costs: dict[int, float] = {}
        self._known = 0
        self._next_at = -inf
        #: Expected seconds of work that is left, in all.
        self._work = 0.0

    def refresh(self, now: float) -> bool:
        """Compute all ways again if that is due; tell whether any rank may have changed."""
        total = len(self._edges)
        if now < self._next_at or not total:
            return False
        costs = self._expected()
        if total == self._known and not self._have_changed(costs):
            return False
        self._next_at = now + max(LEAST_INTERVAL, INTERVAL_PER_TASK * total)
        self._known, self._costs = total, costs
        return self._compute()

    def spend(self, function: int) -> None:
        """Note that a task of this function has ended."""
        self._work -= self._costs.get(function, 0.0)

    def is_critical(self, task: int, workers: int) -> bool:
        """Tell whether the way of the task decides when the run ends on so many workers."""
        rank = self._rulebook.ranks[task]
        way = (2 ** (rank / _STEPS) - 1) * _UNIT
        return rank > 0 and way * workers >= _CRITICAL_SHARE * self._work

    def _expected(self) -> dict[int, float]:
        """Return the expected seconds of each function that tasks of the run have."""
        known = {function: self._durations.expected(function) for function in self._rulebook.functions_in_use}
        longest = max((seconds for seconds in known.values() if seconds is not None), default=UNKNOWN_SECONDS)
        return {function: longest if seconds is None else seconds for function, seconds in known.items()}

    def _have_changed(self, costs: dict[int, float]) -> bool:
        return any(
            max(seconds, _UNIT) > _CHANGED * max(self._costs[function], _UNIT)
            or max(self._costs[function], _UNIT) > _CHANGED * max(seconds, _UNIT)
            for function, seconds in costs.items()
        )

    def _compute(self) -> bool:
        functions, costs, ranks = self._rulebook.functions, self._costs, self._rulebook.ranks
        if not self._edges.number:
            self._work = sum(map(costs.__getitem__, functions))
            if len(costs) == 1:
                return False
            by_function = {function: rank_of(seconds) for function, seconds in costs.items()}
            ranks[:] = array("H", map(by_function.__getitem__, functions))
            return True
        ways = self._edges.longest_ways([costs[function] for function in functions])
        self._work = sum(map(costs.__getitem__, functions))
        ranks[:] = array("H", map(rank_of, ways))
        return True


def rank_of(seconds: float) -> int:
    """Return the rank of a way of so many seconds."""
    return min(HIGHEST_RANK, int(_STEPS * log2(1.0 + seconds / _UNIT)))
