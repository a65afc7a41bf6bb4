"""How long work is expected to take: its sum, its longest chain, and from these a range for so many workers.

Tasks are numbers, dependencies smaller than their dependants. A task of unknown duration counts as nothing and is
counted apart. With `n` workers no order of the tasks is faster than the higher of the longest chain and the n-th part
of the sum; none that leaves no worker idle while a task is ready is slower than the longest chain and the n-th part of
the rest (Graham, "Bounds for certain multiprocessing anomalies", 1966).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Forecast(NamedTuple):
    """Seconds that tasks are expected to take together, seconds of the longest chain, and how many are unknown."""

    work: float
    longest: float
    known: int
    unknown: int

    def on(self, workers: int) -> tuple[float, float] | None:
        """Return the shortest and the longest time on so many workers, None if nothing is known or nobody works."""
        if workers < 1 or not self.known:
            return None
        share = self.work / workers
        return max(self.longest, share), share + self.longest * (1 - 1 / workers)


def forecast(seconds: Mapping[int, float | None], dependencies: Sequence[Sequence[int]]) -> Forecast:
    """Return what the tasks in `seconds` (in dependency order) are expected to take; None: unknown.

    Dependencies that are not among them are there already.
    """
    ends: dict[int, float] = {}
    work, longest, unknown = 0.0, 0.0, 0
    for task, known in seconds.items():
        own, start = known or 0.0, 0.0
        unknown += known is None
        for dependency in dependencies[task]:
            end = ends.get(dependency, 0.0)
            start = max(start, end)
        end = ends[task] = start + own
        work += own
        longest = max(longest, end)
    return Forecast(work, longest, len(seconds) - unknown, unknown)
