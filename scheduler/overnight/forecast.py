"""How long work is expected to take: its sum, its longest chain, and from these a range for so many workers.

With `n` workers no order of the tasks is faster than the higher of the longest chain and the n-th part of the sum; none
that leaves no worker idle while a task is ready is slower than the n-th part of the sum and the part of the longest
chain that the others do not cover (Graham, "Bounds for certain multiprocessing anomalies", 1966). Where each pool of
workers takes tasks of its own, one pool may have to wait for another: then the shares of all of them add up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class Chains:
    """The work of the tasks added so far, in seconds, by pool, and the longest chain of them; dependants come first."""

    def __init__(self) -> None:
        self.works: dict[str, float] = defaultdict(float)
        self.longest = 0.0
        self._after: dict[int, float] = {}

    def add(self, task: int, seconds: float, dependencies: Sequence[int], pool: str = "") -> None:
        """Add a task, for a pool of workers. Dependencies that are not added are there already."""
        chain = seconds + self._after.get(task, 0.0)
        self.works[pool] += seconds
        self.longest = max(self.longest, chain)
        for dependency in dependencies:
            if chain > self._after.get(dependency, 0.0):
                self._after[dependency] = chain


class Pools(NamedTuple):
    """How many workers there are in all and in each pool, at least one, and the pool that takes a task."""

    total: int
    sizes: Mapping[str, int]
    of: Callable[[int], str]

    @classmethod
    def single(cls, workers: int) -> Pools:
        """Return one pool that takes all tasks."""
        return cls(workers, {"": workers}, lambda _: "")


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
        return bounds({"": self.work}, self.longest, Pools.single(workers))


def bounds(works: Mapping[str, float], longest: float, pools: Pools) -> tuple[float, float]:
    """Return the shortest and the longest time, in seconds, that the `works` of pools take with their longest chain.

    A worker may be in several pools.
    """
    shares = [work / pools.sizes[pool] for pool, work in works.items()]
    least = max(longest, sum(works.values()) / pools.total, *shares)
    return least, sum(shares) + longest * (1 - 1 / max(pools.sizes.values()))


def forecast(seconds: Mapping[int, float | None], dependencies: Sequence[Sequence[int]]) -> Forecast:
    """Return what the tasks in `seconds` (in dependency order) are expected to take; None: unknown.

    Tasks are numbers. One of unknown duration counts as nothing and is counted apart.
    """
    chains = Chains()
    for task in reversed(list(seconds)):
        chains.add(task, seconds[task] or 0.0, dependencies[task])
    unknown = sum(known is None for known in seconds.values())
    return Forecast(sum(chains.works.values()), chains.longest, len(seconds) - unknown, unknown)
