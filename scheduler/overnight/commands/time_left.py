"""How much time a run still takes, as a range.

What is left is worth the learned durations of its functions, and takes as long as `overnight.forecast` tells of it. A
function of which nothing is known makes the range open at its upper end. A task that runs for longer than expected may
end at once, or run for as long again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass

from overnight.commands.screen import duration
from overnight.core.states import TERMINAL, TaskState
from overnight.forecast import Chains, Pools, bounds
from overnight.store.ports import ReadingStore
from overnight.store.records import RunRecord, WorkerRecord
from overnight.structure import Structure
from overnight.worker_watch import is_served

#: What the handling of one task costs besides its function, at the least.
HANDLING_SECONDS = 0.0003
#: Of functions that take less than this the handling is most of the time: then the pace so far says more.
SHORT_SECONDS = 0.02
_SPREAD_OF_PACE = 0.3
_MOST_SAMPLED = 20
_TERMINAL = frozenset(int(state) for state in TERMINAL)


@dataclass(frozen=True, slots=True)
class TimeLeft:
    """Seconds that a run takes at least and at most; `most` None: of some function nothing is known."""

    least: float
    most: float | None

    def text(self) -> str:
        """Return it as people read it."""
        least = duration(self.least)
        if self.most is None:
            return f"about {least} or more left" if self.least >= 1 else "time left unknown"
        most = duration(self.most)
        return f"about {least} left" if least == most else f"about {least} to {most} left"

    def as_json(self) -> dict[str, float | None]:
        """Return it as plain values."""
        return {"least": round(self.least, 3), "most": None if self.most is None else round(self.most, 3)}


def time_left(
    rows: Iterable[tuple[str, Sequence[int]]],
    codes: bytes,
    seconds_of: Mapping[str, float],
    ages: Mapping[int, float],
    pools: Pools,
) -> TimeLeft | None:
    """Return how long the tasks that are not terminal still take; None if all are.

    `rows` holds function and dependencies of each task by index, `codes` one state a task, `seconds_of` the expected
    seconds of a task by function, `ages` for how long running tasks have been running. A dependency that was added
    after its dependant is left out of the chains.
    """
    table = list(rows)
    waiting = [task for task, code in enumerate(codes[: len(table)]) if code not in _TERMINAL]
    if not waiting:
        return None
    least, most = Chains(), Chains()
    for task in reversed(waiting):
        function, dependencies = table[task]
        known, age, pool = seconds_of.get(function, 0.0), ages.get(task), pools.of(task)
        rest = known + HANDLING_SECONDS - (age or 0.0)
        least.add(task, max(HANDLING_SECONDS, rest), dependencies, pool)
        most.add(task, rest if age is None or rest > 0 else age, dependencies, pool)
    is_open = any(table[task][0] not in seconds_of for task in waiting)
    shortest, _ = bounds(least.works, least.longest, pools)
    _, longest = bounds(most.works, most.longest, pools)
    return TimeLeft(shortest, None if is_open else longest)


def expected_seconds(
    store: ReadingStore, run_id: str, rows: Sequence[tuple[str, Sequence[int]]], codes: bytes
) -> dict[str, float]:
    """Return what is known of how long one task of each function takes: as learned, else by some that have ended."""
    learned = store.read_durations()
    functions = {rows[task][0] for task, code in enumerate(codes[: len(rows)]) if code not in _TERMINAL}
    known = {name: learned[name][0] for name in functions if name in learned}
    unknown = functions - known.keys()
    samples: dict[str, list[int]] = {name: [] for name in unknown}
    if unknown:
        for task, code in enumerate(codes[: len(rows)]):
            if code == TaskState.DONE and rows[task][0] in unknown and len(samples[rows[task][0]]) < _MOST_SAMPLED:
                samples[rows[task][0]].append(task)
    for name, tasks in samples.items():
        seconds = [value for text in store.read_facts(run_id, tasks).values() for value in _seconds(text)]
        if seconds:
            known[name] = sum(seconds) / len(seconds)
    return known


def _seconds(facts: bytes) -> list[float]:
    with suppress(ValueError, TypeError, AttributeError):
        seconds = json.loads(facts).get("seconds")
        if isinstance(seconds, float | int) and 0 <= seconds < 1e9:
            return [float(seconds)]
    return []


def read_time_left(
    store: ReadingStore,
    run: RunRecord,
    structure: Structure,
    codes: bytes,
    workers: Sequence[WorkerRecord],
    now: float,
    pace: float | None,
) -> TimeLeft | None:
    """Read how long a run still takes with the workers that serve it; None while it, or what waits on one of its
    queues, cannot go on: its scheduler says why it does not, it is paused, or the queue has no worker.

    `pace` is how many tasks a second have ended, None if that is unknown.
    """
    if run.phase.is_over or run.paused or run.note:
        return None
    queues, present = structure.queues(run.queue, codes), [worker for worker in workers if not worker.draining]
    if not queues or not all(is_served(present, run.run_id, queue, run.python) for queue in queues):
        return None
    rows = list(structure.rows())
    ages = {
        worker.task: max(0.0, now - worker.task_since)
        for worker in workers
        if worker.run_id == run.run_id and worker.task is not None and worker.task_since is not None
    }
    seconds_of = expected_seconds(store, run.run_id, rows, codes)
    left = time_left(rows, codes, seconds_of, ages, _pools(present, queues, run.queue, structure))
    waiting = sum(code not in _TERMINAL for code in codes)
    is_short = bool(seconds_of) and max(seconds_of.values()) < SHORT_SECONDS
    return at_pace(left, waiting / pace) if left is not None and pace and is_short else left


def _pools(workers: Sequence[WorkerRecord], queues: AbstractSet[str], default: str, structure: Structure) -> Pools:
    """Return the workers by the queues that they serve; each has one."""
    total = sum(not queues.isdisjoint(worker.queues) for worker in workers)
    sizes = {queue: sum(queue in worker.queues for worker in workers) for queue in queues}
    if len(queues) == 1:  # that of most runs, however many tasks they have
        (only,) = queues
        return Pools(total, sizes, lambda _: only)
    return Pools(total, sizes, lambda task: structure.rules(task).queue or default)


def at_pace(left: TimeLeft, seconds: float) -> TimeLeft:
    """Return a range that reaches to what is left by the pace so far."""
    least = max(left.least, seconds * (1 - _SPREAD_OF_PACE))
    return TimeLeft(least, None if left.most is None else max(left.most, seconds * (1 + _SPREAD_OF_PACE)))
