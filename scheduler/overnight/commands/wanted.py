"""How many workers would empty the ready work within a given time: a hint for whatever starts and stops workers.

Ready work is what could run now: tasks whose dependencies are there, and those on queues or in workers' hands. A task
takes as long as its function's tasks have been seen to take; one of which nothing is known is counted as a minute.
Tasks are not cut: a worker is counted for as many whole ones as it ends within the time, and at least for one. Small
tasks, of whatever run, fill what longer ones leave.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

from overnight.client import Client
from overnight.commands.screen import duration, say
from overnight.core.states import IN_FLIGHT, SUCCEEDED, RunPhase, TaskState
from overnight.errors import UnknownRun, UnreadableRun, UsageError
from overnight.naming import shown
from overnight.shared_limits import told_limits
from overnight.store.records import RunRecord, WorkerRecord
from overnight.structure import Structure

ASSUMED_SECONDS = 60.0
_SAMPLES = 20
_UNITS = {"": 1, "s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600, "d": 86_400}
_TIME = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*")
_HAS_RESULT = frozenset(int(state) for state in SUCCEEDED)
_GOING = frozenset(int(state) for state in IN_FLIGHT)
Resources = tuple[tuple[str, float], ...]


def seconds_of(text: str) -> float:
    """Return the seconds of ``90s``, ``30min``, ``1.5h`` or ``2d``. Raises UsageError for anything else."""
    found = _TIME.fullmatch(text.lower())
    seconds = float(found[1]) * _UNITS.get(found[2], 0) if found else 0.0
    if not 0 < seconds < inf:
        raise UsageError(f"A time is a number of seconds or such as 90s, 30min, 2h or 1d, not {text!r}.")
    return seconds


@dataclass(slots=True)
class Lane:
    """Ready tasks of one queue that need the same of what is limited; at most `most` of them run at once.

    `shared` is what each needs of that which the scheduler limits over all runs.
    """

    most: int | None
    functions: Counter[str] = field(default_factory=Counter)
    shared: Resources = ()


@dataclass(frozen=True, slots=True)
class Demand:
    """What one queue needs: workers, and the tasks and seconds of work behind that."""

    queue: str
    wanted: int
    present: int
    tasks: int
    seconds: float
    unknown: int


def ready_lanes(
    structure: Structure, codes: bytes, run: RunRecord, waiting: frozenset[int], over_all: Mapping[str, float]
) -> dict[str, list[Lane]]:
    """Return the ready work of a run by queue; `waiting` are pending tasks that must not start yet, `over_all` the
    scheduler's limits over all runs."""
    lanes: dict[tuple[str, Resources, Resources], Lane] = {}
    for task, code in enumerate(codes):
        if code == TaskState.PENDING:
            if task in waiting or not all(codes[one] in _HAS_RESULT for one in structure.dependencies(task)):
                continue
        elif code not in _GOING:
            continue
        rules = structure.rules(task)
        shared = tuple((name, amount) for name, amount in rules.resources if name in over_all)
        own = tuple((name, amount) for name, amount in rules.resources if name in run.resource_limits)
        key = (rules.queue or run.queue, own, shared)
        if key not in lanes:
            lanes[key] = Lane(_most(own, run.resource_limits), shared=shared)
        lanes[key].functions[structure.function(task)] += 1
    found: dict[str, list[Lane]] = {}
    for (queue, *_), lane in lanes.items():
        found.setdefault(queue, []).append(lane)
    return found


def _most(limited: Resources, limits: Mapping[str, float]) -> int | None:
    return min((int(limits[name] * (1 + 1e-9) / amount) for name, amount in limited), default=None)


def joined(lanes: Iterable[Lane], over_all: Mapping[str, float]) -> list[Lane]:
    """Return lanes with those as one, of whatever run, that need the same of what is limited over all runs."""
    alone: list[Lane] = []
    together: dict[Resources, list[Lane]] = {}
    for lane in lanes:
        (together.setdefault(lane.shared, []) if lane.shared else alone).append(lane)
    for shared, several in together.items():
        most = _most(shared, over_all) or 0
        own = [one.functions.total() if one.most is None else one.most for one in several]
        functions = sum((one.functions for one in several), Counter[str]())
        alone.append(Lane(min(most, sum(own)), functions, shared))
    return alone


def demand_of(
    queue: str, lanes: Iterable[Lane], within: float, learned: Mapping[str, float], present: int = 0
) -> Demand:
    """Return how many workers empty the lanes within so many seconds: no more than can work at once."""
    bounded, tasks, work, unknown = 0, 0, 0.0, 0
    others: Counter[float] = Counter()
    for lane in lanes:
        lengths: Counter[float] = Counter()
        for name, number in lane.functions.items():
            lengths[learned.get(name, ASSUMED_SECONDS)] += number
            unknown += number if name not in learned else 0
        tasks, work = tasks + lengths.total(), work + sum(seconds * number for seconds, number in lengths.items())
        if lane.most is not None and lane.most < workers_for(lengths, within):
            bounded += lane.most  # these are busy with it for the whole time
        else:
            others.update(lengths)
    return Demand(queue, bounded + workers_for(others, within), present, tasks, work, unknown)


def workers_for(lengths: Mapping[float, int], within: float) -> int:
    """Return how many workers end tasks within a time: `lengths` gives by seconds how many take so long.

    The longest are given out first, each to the fullest worker that still ends it in time. One that takes longer than
    the time has a worker to itself.
    """
    time, workers = _microseconds(within), 0
    room: Counter[int] = Counter()
    for seconds, number in sorted(lengths.items(), reverse=True):
        length = _microseconds(seconds)
        left = _fill(room, length, number)
        each = max(1, time // length)
        full, rest = divmod(left, each)
        room[max(0, time - each * length)] += full
        if rest:
            room[time - rest * length] += 1
        workers += full + (rest > 0)
    return workers


def _fill(room: Counter[int], length: int, number: int) -> int:
    """Give tasks of a length to workers, which `room` counts by the time they have left; return how many remain."""
    for free in sorted(room):
        each = free // length
        if each == 0 or number == 0:
            continue
        full = min(room[free], number // each)
        room[free] -= full
        room[free - each * length] += full
        number -= full * each
        if number and room[free]:  # fewer than one worker takes
            room[free] -= 1
            room[free - number * length] += 1
            number = 0
    return number


def _microseconds(seconds: float) -> int:
    return max(1, round(seconds * 1e6))


def read_demands(client: Client, within: float, queues: Iterable[str]) -> list[Demand]:
    """Return what each queue needs that has ready work, or that was asked for. Runs that are paused need nothing."""
    store = client.deployment.store
    asked = list(queues)
    by_queue: dict[str, list[Lane]] = {queue: [] for queue in asked}
    learned = {name: seconds for name, (seconds, _) in store.read_durations().items()}
    scheduler = store.scheduler()
    over_all = (told_limits(scheduler.description) if scheduler is not None else None) or {}
    for run in client.runs():
        if run.phase not in (RunPhase.ACTIVE, RunPhase.SUBMITTING) or run.paused:
            continue
        for queue, lanes in _lanes_of(client, run, learned, over_all).items():
            if not asked or queue in asked:
                by_queue.setdefault(queue, []).extend(lanes)
    workers = [worker for worker in store.workers() if not worker.draining]
    apart = {quarantine.host for quarantine in store.quarantines()}
    return [
        demand_of(queue, joined(lanes, over_all), within, learned, _present(queue, workers, apart))
        for queue, lanes in sorted(by_queue.items())
    ]


def _present(queue: str, workers: Iterable[WorkerRecord], apart: Collection[str]) -> int:
    """Return how many workers take work of a queue; those of hosts in quarantine do while they alone serve it."""
    serving = [worker for worker in workers if queue in worker.queues]
    return len([worker for worker in serving if worker.host not in apart] or serving)


def _lanes_of(
    client: Client, run: RunRecord, learned: dict[str, float], over_all: Mapping[str, float]
) -> Mapping[str, list[Lane]]:
    """Return the ready work of a run; none of one that ended meanwhile or cannot be read here.

    `learned` is completed from what the run's own tasks took: schedulers keep what they learn only now and then.
    """
    store = client.deployment.store
    try:
        stored = store.states(run.run_id)
        codes, attempts = stored[::2], stored[1::2]
        structure = client.structure(run.run_id)
        tried = [task for task, code in enumerate(codes) if code == TaskState.PENDING and attempts[task]]
        now = store.now()
        waiting = frozenset(view.task for view in store.tasks(run.run_id, tried) if view.charge.not_before > now)
        lanes = ready_lanes(structure, codes, run, waiting, over_all)
        names = {name for some in lanes.values() for lane in some for name in lane.functions}
        learned |= _measured(client, run, structure, codes, names - learned.keys())
    except (UnknownRun, UnreadableRun):
        return {}
    return lanes


def _measured(
    client: Client, run: RunRecord, structure: Structure, codes: bytes, functions: Iterable[str]
) -> dict[str, float]:
    """Return how long tasks of these functions took in the run, from a few of each."""
    samples: dict[str, list[int]] = {name: [] for name in functions}
    for task, code in enumerate(codes if samples else b""):
        if code == TaskState.DONE:
            tasks = samples.get(structure.function(task))
            if tasks is not None and len(tasks) < _SAMPLES:
                tasks.append(task)
    found: dict[str, list[float]] = {}
    for view in client.deployment.store.tasks(run.run_id, [task for tasks in samples.values() for task in tasks]):
        seconds = json.loads(view.facts).get("seconds") if view.facts else None
        if seconds is not None:
            found.setdefault(structure.function(view.task), []).append(float(seconds))
    return {name: sum(known) / len(known) for name, known in found.items()}


def facts_of(demands: Iterable[Demand], within: float) -> dict[str, Any]:
    """Return demands as plain values."""
    queues: list[dict[str, Any]] = [
        {
            "queue": one.queue,
            "wanted": one.wanted,
            "present": one.present,
            "tasks": one.tasks,
            "seconds": round(one.seconds, 3),
            "unknown_tasks": one.unknown,
        }
        for one in demands
    ]
    wanted = sum(one["wanted"] for one in queues)
    return {"within_seconds": within, "wanted": wanted, "assumed_seconds": ASSUMED_SECONDS, "queues": queues}


def lines_of(demands: Iterable[Demand], within: float) -> Iterator[str]:
    """Yield what people read beside the number."""
    for one in demands:
        tasks = f"{one.tasks} ready task{'' if one.tasks == 1 else 's'}"
        guess = f" ({one.unknown} of unknown duration, counted as {duration(ASSUMED_SECONDS)} each)"
        work = f"{duration(one.seconds)} of work{guess if one.unknown else ''}"
        there = f"{one.present} {'is' if one.present == 1 else 'are'} there"
        yield f"queue {shown(one.queue)}: {tasks}, {work}; {one.wanted} wanted within {duration(within)}, {there}"


def print_wanted(client: Client, text: str, queues: Iterable[str], *, as_json: bool) -> None:
    """Print the number alone on standard output, for scripts, and what is behind it on standard error."""
    import click

    from overnight.commands.facts import tell

    within = seconds_of(text)
    demands = read_demands(client, within, queues)
    if as_json:
        tell("wanted", facts_of(demands, within))
        return
    for line in lines_of(demands, within):
        click.echo(line, err=True)
    say(str(sum(one.wanted for one in demands)))
