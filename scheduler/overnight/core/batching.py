"""How long a function's tasks take, and how many of them go into one batch.

A duration is a running mean that forgets: the latest value weighs a fifth or more, and a value above five times the
mean counts as five times the mean, so that one task that hung says little and ten say enough. A task of unknown or
long duration goes alone; so does one that may have killed its worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Final

_LEAST_WEIGHT: Final = 0.2
_LEAST_WEIGHT_FROM: Final = 4  # values known before, from which on the plain mean weighs the next one less
_HIGHEST_FACTOR: Final = 5.0
# Of tasks that take next to nothing, the handling is what takes time: about this many are little work.
_FEW_TASKS: Final = 20
# Means below this are noise of the clock; a value is never clipped below five times of it.
_SHORTEST_SECONDS: Final = 50e-6


class Durations:
    """The expected seconds of each function's tasks, learned from those that succeeded."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[float, int]] = {}

    def learn(self, function: int, seconds: float) -> None:
        """Take one more measured duration into account. What is not a duration is ignored."""
        if not 0 <= seconds < inf:
            return
        mean, count = self._known.get(function, (seconds, 0))
        ceiling = _HIGHEST_FACTOR * max(_SHORTEST_SECONDS, mean)
        weight = _LEAST_WEIGHT if count > _LEAST_WEIGHT_FROM else 1 / (count + 1)
        self._known[function] = (mean + weight * (min(ceiling, seconds) - mean), count + 1)

    def expected(self, function: int) -> float | None:
        """Return the expected seconds of one task of the function, None if nothing is known."""
        known = self._known.get(function)
        return None if known is None else known[0]

    def export(self) -> dict[int, tuple[float, int]]:
        """Return what was learned: function -> (mean seconds, number of tasks it comes from)."""
        return dict(self._known)

    def load(self, learned: Mapping[int, tuple[float, int]]) -> None:
        """Add what was learned elsewhere; what this run has learned by itself stays."""
        self._known = {**learned, **self._known}


def fair_share(ready: int, offers: int) -> int:
    """Return how many of the ready tasks the first of so many offers may take, at least one."""
    return max(1, -(-ready // offers))


class Room:
    """What is left of an offer: a number of tasks and an expected time in seconds.

    Up to `least_seconds` of work is little: to spread it over several batches would cost more than it saves.
    """

    __slots__ = ("_few_below", "_little_below", "_longest", "seconds", "tasks")

    def __init__(self, tasks: int, seconds: float, least_seconds: float = 0.0) -> None:
        self.tasks = tasks
        self.seconds = seconds
        self._longest = seconds
        self._few_below = tasks - _FEW_TASKS
        self._little_below = seconds - least_seconds

    @property
    def holds_little(self) -> bool:
        """Tell whether what is seated so far is not worth a batch of its own."""
        return self.tasks > self._few_below and self.seconds > self._little_below

    def seat(self, cost: float | None) -> bool:
        """Give a task of this expected duration a place if half of it fits: as many come nearest to the time offered.
        One that takes longer than that by itself has none, nor has None: they go alone."""
        if cost is None or self.tasks < 1 or cost > min(2 * self.seconds, self._longest):
            return False
        self.tasks -= 1
        self.seconds -= cost
        return True
