"""How long work is expected to take: its sum, its longest chain, and from these a range for so many workers.

With `n` workers no order of the tasks is faster than the higher of the longest chain and the n-th part of the sum; none
that leaves no worker idle while a task is ready is slower than the n-th part of the sum and the part of the longest
chain that the others do not cover (Graham, "Bounds for certain multiprocessing anomalies", 1966).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Chains:
    """The work of the tasks added so far, in seconds, and the longest chain of them; dependants are added first."""

    def __init__(self) -> None:
        self.work = 0.0
        self.longest = 0.0
        self._after: dict[int, float] = {}

    def add(self, task: int, seconds: float, dependencies: Sequence[int]) -> None:
        """Add a task. Dependencies that are not added are there already."""
        chain = seconds + self._after.get(task, 0.0)
        self.work += seconds
        self.longest = max(self.longest, chain)
        for dependency in dependencies:
            if chain > self._after.get(dependency, 0.0):
                self._after[dependency] = chain


class Forecast(NamedTuple):
    """Seconds that tasks are expected to take together, seconds of the longest chain, and how many are unknown."""

    work: float
    longest: float
    known: int
    unknown: int

    def on(self, workers: int) -> tuple[float, float] | None:
        """Return the shortest and the longest time on so many workers, None if nothing is known or nobody works."""
        return bounds(self, workers) if workers >= 1 and self.known else None


def bounds(tasks: Chains | Forecast, workers: int) -> tuple[float, float]:
    """Return the shortest and the longest time, in seconds, that tasks take on so many workers."""
    share = tasks.work / workers
    return max(tasks.longest, share), share + tasks.longest * (1 - 1 / workers)


def forecast(seconds: Mapping[int, float | None], dependencies: Sequence[Sequence[int]]) -> Forecast:
    """Return what the tasks in `seconds` (in dependency order) are expected to take; None: unknown.

    Tasks are numbers. One of unknown duration counts as nothing and is counted apart.
    """
    chains = Chains()
    for task in reversed(list(seconds)):
        chains.add(task, seconds[task] or 0.0, dependencies[task])
    unknown = sum(known is None for known in seconds.values())
    return Forecast(chains.work, chains.longest, len(seconds) - unknown, unknown)
