"""Figures of a run for its report: durations by function, the critical path, slowest and largest tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from overnight.commands.reporting.facts import RunFacts
from overnight.commands.time_left import TimeLeft, time_left
from overnight.core.states import SUCCEEDED, TaskState
from overnight.forecast import Pools

#: A result smaller than this, in bytes, is not among the largest.
WORTH_TELLING = 1000


@dataclass(frozen=True, slots=True)
class FunctionFigures:
    """How long the tasks of one function took, in seconds; `share` is its part of all work."""

    function: str
    tasks: int
    failed: int
    total: float
    share: float
    least: float
    median: float
    p95: float
    most: float


def by_function(facts: RunFacts) -> list[FunctionFigures]:
    """Return the figures of each function that was run, the one with the most work first."""
    seconds: dict[str, list[float]] = {}
    failed: dict[str, int] = {}
    for task in facts.executed():
        function = facts.rows[task][0]
        seconds.setdefault(function, []).append(facts.seconds[task])
        failed[function] = failed.get(function, 0) + (facts.codes[task] == TaskState.FAILED)
    work = sum(map(sum, seconds.values())) or 1.0
    found = []
    for function, unsorted in seconds.items():
        values = sorted(unsorted)
        ends = values[0], _at(values, 0.5), _at(values, 0.95), values[-1]
        total = sum(values)
        found.append(FunctionFigures(function, len(values), failed[function], total, total / work, *ends))
    return sorted(found, key=lambda one: -one.total)


def _at(values: Sequence[float], part: float) -> float:
    """Return the value below which this part of the sorted values lies (nearest rank)."""
    return values[min(len(values) - 1, int(part * len(values)))]


def critical_path(facts: RunFacts) -> list[int]:
    """Return the chain of dependent tasks whose durations add up to the most, the first one first.

    However many workers there are, the run cannot be shorter. A dependency that was added after its dependant is left
    out.
    """
    length = [0.0] * len(facts.rows)
    before = [-1] * len(facts.rows)
    for task, (_, dependencies) in enumerate(facts.rows):
        for dependency in dependencies:
            if dependency < task and length[dependency] > length[task]:
                length[task], before[task] = length[dependency], dependency
        seconds = facts.seconds[task]
        length[task] += seconds if isfinite(seconds) else 0.0
    task = max(range(len(length)), key=length.__getitem__, default=-1)
    if task < 0 or not length[task]:
        return []
    path = []
    while task >= 0:
        path.append(task)
        task = before[task]
    return path[::-1]


def slowest(facts: RunFacts, most: int) -> list[int]:
    """Return the tasks that took longest, the longest first."""
    return sorted(facts.executed(), key=lambda task: -facts.seconds[task])[:most]


def hungriest(facts: RunFacts, most: int) -> list[int]:
    """Return the tasks that brought their process to the most memory, the most first.

    What is measured is the process, which runs one task after the other: a task that left its process no larger than
    the one before it says nothing of itself, and is left out.
    """
    ran = sorted(facts.executed(), key=lambda task: (str(facts.workers[task]), facts.started[task]))
    reached: dict[str | None, float] = {}
    grew = []
    for task in ran:
        worker, peak = facts.workers[task], facts.peak[task]
        if not isfinite(peak) or peak <= 0:
            continue
        if peak > reached.get(worker, 0.0) or peak < 0.9 * reached[worker]:  # smaller: it is a new process
            grew.append(task)
            reached[worker] = peak
    return sorted(grew, key=lambda task: -facts.peak[task])[:most]


def largest(facts: RunFacts, most: int) -> list[int]:
    """Return the tasks with the largest results, the largest first; small ones are left out."""
    known = [task for task, size in enumerate(facts.size) if size >= WORTH_TELLING]
    return sorted(known, key=lambda task: -facts.size[task])[:most]


@dataclass(frozen=True, slots=True)
class NextRun:
    """What the same command would do if it were run now and nothing had changed: numbers of tasks, and the time."""

    would_run: dict[str, int]
    kept: int
    left: TimeLeft | None


def next_run(facts: RunFacts, workers: int) -> NextRun:
    """Return what the same command would do next; `workers` is with how many it is reckoned."""
    waiting = [task for task, code in enumerate(facts.codes) if code not in SUCCEEDED]
    would_run: dict[str, int] = {}
    for task in waiting:
        name = TaskState(facts.codes[task]).name.lower()
        would_run[name] = would_run.get(name, 0) + 1
    pending = bytearray(facts.codes)
    for task in waiting:
        pending[task] = TaskState.PENDING
    known = {name: seconds for name, (seconds, _) in facts.learned.items()}
    known |= {one.function: one.total / one.tasks for one in by_function(facts) if one.function not in known}
    left = time_left(facts.rows, bytes(pending), known, {}, Pools.single(workers))
    return NextRun(would_run, len(facts.codes) - len(waiting), left)
