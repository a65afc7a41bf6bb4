"""What a benchmark measures and how figures come of it: medians of interleaved rounds, their spread, ratios.

In each round every system takes its turn, so that whatever else the machine does meets all of them alike. A system may
run a workload at a smaller size than the others where its cost is known to be linear; its figure is per task.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

SLEEP_SECONDS = 0.05


class Unit(Enum):
    """What the figure of a workload says; `higher` is whether more of it is better."""

    RATE = ("tasks/s", True)
    HOP = ("ms a hop", False)
    IDEAL = ("% of ideal", True)
    SECONDS = ("s", False)

    def __init__(self, label: str, higher: bool) -> None:
        self.label = label
        self.higher = higher


@dataclass(frozen=True)
class Sample:
    """One measurement: so many tasks (or steps of one action) took so many seconds."""

    tasks: int
    seconds: float


@dataclass(frozen=True)
class Workload:
    """A shape of work. `ideal(tasks)` are the seconds that a perfect system takes, where that is known."""

    name: str
    unit: Unit
    ideal: Callable[[int], float] | None = None

    def figure(self, sample: Sample) -> float:
        """Return the sample in this workload's unit."""
        match self.unit:
            case Unit.RATE:
                return sample.tasks / sample.seconds
            case Unit.HOP:
                return sample.seconds / sample.tasks * 1000
            case Unit.IDEAL if self.ideal is not None:
                return 100 * self.ideal(sample.tasks) / sample.seconds
            case _:
                return sample.seconds


@dataclass(frozen=True)
class System:
    """Something that runs workloads: one callable for each that it can run, and its peak memory in MB if known."""

    name: str
    runs: Mapping[str, Callable[[], Sample]]
    memory: Callable[[], float | None] = lambda: None


@dataclass
class Figure:
    """All rounds of one system on one workload. `ratio` is how many times better than the yardstick it is."""

    workload: Workload
    system: str
    tasks: int = 0
    rounds: list[float] = field(default_factory=list)
    memory: float | None = None
    ratio: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def spread(self) -> float:
        """Half of the range of all rounds, in percent of the median."""
        return 50 * (max(self.rounds) - min(self.rounds)) / self.median

    def as_json(self) -> dict[str, Any]:
        return {
            "workload": self.workload.name,
            "system": self.system,
            "tasks": self.tasks,
            "unit": self.workload.unit.label,
            "median": round(self.median, 4),
            "rounds": [round(value, 4) for value in self.rounds],
            "spread_percent": round(self.spread, 1),
            "ratio": None if self.ratio is None else round(self.ratio, 2),
            "memory_mb": None if self.memory is None else round(self.memory),
        }


def measure(workload: Workload, systems: Sequence[System], rounds: int, yardstick: str) -> list[Figure]:
    """Run the workload on each system that can, in turn, for so many rounds."""
    able = [system for system in systems if workload.name in system.runs]
    figures = {system.name: Figure(workload, system.name) for system in able}
    for _ in range(rounds):
        for system in able:
            gc.collect()
            sample = system.runs[workload.name]()
            figures[system.name].tasks = sample.tasks
            figures[system.name].rounds.append(workload.figure(sample))
    for system in able:
        figures[system.name].memory = system.memory()
    if yardstick in figures:
        _compare(list(figures.values()), figures[yardstick])
    return list(figures.values())


def _compare(figures: Sequence[Figure], yardstick: Figure) -> None:
    for figure in figures:
        ratio = figure.median / yardstick.median
        figure.ratio = ratio if figure.workload.unit.higher else 1 / ratio


class Clock:
    """Seconds between entering and leaving."""

    seconds = 0.0


@contextmanager
def stopwatch() -> Iterator[Clock]:
    """Time the body with the garbage collector as it is."""
    clock = Clock()
    start = time.perf_counter()
    yield clock
    clock.seconds = time.perf_counter() - start


HEADINGS = ("workload", "system", "tasks", "median", "unit", "spread", "ratio", "peak MB")


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as aligned text, one line each."""
    rows = [HEADINGS, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) if column in {0, 1, 4} else cell.rjust(width) for column, (cell, width) in cells)
        for cells in ([*enumerate(zip(row, widths, strict=True))] for row in rows)
    )


def _row(figure: Figure) -> tuple[str, ...]:
    return (
        figure.workload.name,
        figure.system,
        f"{figure.tasks:,}",
        f"{figure.median:,.0f}" if figure.median >= 1000 else f"{figure.median:.3g}",
        figure.workload.unit.label,
        f"±{figure.spread:.0f}%",
        "-" if figure.ratio is None else f"{figure.ratio:.1f}x",
        "-" if figure.memory is None else f"{figure.memory:.0f}",
    )
