"""What a run of a graph would do: which tasks would run, each with its reason and how long it is expected to take.

How long: as long as the task took when it was run last, else what its function's tasks take on average, as schedulers
have learned it on the server, or as the records tell. Nothing is started for it: without a server the records alone
tell.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from overnight.chain import function_name
from overnight.commands.last_failures import read_failures
from overnight.commands.opening import open_present
from overnight.commands.work import FORCED, Work
from overnight.deployment import usable_cpus
from overnight.errors import OvernightError
from overnight.flags import FAILED, FlagHeader, FoundFlag
from overnight.forecast import Forecast, forecast
from overnight.freshness import NEVER_RAN
from overnight.inspection import Judged

#: A server that does not answer so fast tells no durations.
_CONNECT_SECONDS = 2.0
_FAILED = "failed"
_NEWER = re.compile(r"(input .+ is newer) than .+ by [^ ]+ [a-z]+", re.DOTALL)
_OUTPUT_MISSING = re.compile(r"output .+ is missing", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Told:
    """What a server tells of the work: learned seconds by function, workers of the queue, the run that is active.

    `workers` None: nobody can say. `fault`: why there is nothing to tell. `failures` are reasons to run tasks again
    that failed while no client was there to record it.
    """

    seconds: Mapping[str, float]
    workers: int | None
    active: str | None = None
    fault: str | None = None
    failures: Mapping[str, str] = field(default_factory=dict)

    def amended(self, judged: Judged) -> Judged:
        """Return what was decided with the reasons that only the server knows."""
        reasons = {
            number: self.failures.get(judged.order[number].task_id, why) for number, why in judged.reasons.items()
        }
        return judged._replace(reasons=reasons)


class PlannedTask(NamedTuple):
    """A task that would run. `seconds` None: not known; `cause`: the task for whose sake it runs, None: its own."""

    task_id: str
    function: str
    reason: str
    seconds: float | None
    cause: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What would run, in the order of the graph; `causes` counts by first reason the tasks that run because of it."""

    would_run: Sequence[PlannedTask]
    up_to_date: Sequence[str]
    causes: Mapping[str, tuple[int, int]]
    forecast: Forecast
    told: Told
    status_dir: str

    @property
    def range(self) -> tuple[float, float] | None:
        """The shortest and longest time expected, None if it cannot be told."""
        return self.forecast.on(self.told.workers or 0)


def make_plan(work: Work) -> Plan:
    """Return what a run of this work would do."""
    told = ask_server(work)
    judged = _forced(work.decisions.judged) if work.request.force else told.amended(work.decisions.judged)
    functions = _functions(work, judged)
    expected = _Expected(_headers(work), told.seconds)
    names = [task.task_id for task in judged.order]
    seconds = {number: expected.of(names[number], function) for number, function in functions.items()}
    numbers = {name: number for number, name in enumerate(names)}
    planned: list[PlannedTask] = []
    up_to_date: list[str] = []
    reasons, because = judged.reasons, judged.because
    for task in work.graph.tasks:
        name = task.task_id
        number = numbers[name]
        if number not in reasons:
            up_to_date.append(name)
            continue
        cause = names[because[number]] if number in because else None
        planned.append(PlannedTask(name, functions[number], reasons[number], seconds[number], cause))
    whole = forecast(seconds, judged.dependencies)
    return Plan(planned, up_to_date, _causes(judged), whole, told, work.status_dir)


def _headers(work: Work) -> Iterable[FlagHeader]:
    """Return the headers of the graph's records; a forced run decides without them, so they are read here."""
    if not work.request.force:
        return work.decisions.headers()
    found = work.cache.read_flags(work.graph.tasks).values()
    return (flag.header for flag in found if isinstance(flag, FoundFlag))


def _forced(judged: Judged) -> Judged:
    """Return what is decided where no record counts: each task runs for the same reason."""
    return judged._replace(reasons=dict.fromkeys(range(len(judged.order)), FORCED), because={})


def ask_server(work: Work) -> Told:
    """Ask the server, if there is one; none is started."""
    settings, request = work.settings, work.request
    local = request.jobs if request.jobs is not None else (usable_cpus() if settings.redis_url is None else None)
    try:
        deployment = open_present(replace(settings, connect_seconds=min(settings.connect_seconds, _CONNECT_SECONDS)))
        if deployment is None:
            return Told({}, local, fault="no server runs here")
        with deployment:
            store = deployment.store
            learned = {name: seconds for name, (seconds, _) in store.read_durations().items()}
            workers = local or sum(request.queue in worker.queues for worker in store.workers())
            place = work.options.status_dir
            active = [run.run_id for run in store.runs() if run.place == place and not run.phase.is_over]
            failures = read_failures(deployment, place, _unrecorded(work))
    except OvernightError as error:
        return Told({}, local, fault=str(error))
    return Told(learned, workers, active[0] if active else None, failures=failures)


def _unrecorded(work: Work) -> list[str]:
    """Return the tasks that run for want of a success, of which no later failure may be on record."""
    judged = work.decisions.judged
    wanting = [number for number, why in judged.reasons.items() if why == NEVER_RAN or why.startswith(_FAILED)]
    return [judged.order[number].task_id for number in wanting]


def _functions(work: Work, judged: Judged) -> dict[int, str]:
    """Return the name of the function of each task that must run, in dependency order; a function is named once."""
    names: dict[int, str] = {}
    functions: dict[int, str] = {}
    with work.graph as nodes:
        for number in sorted(judged.reasons):
            func = nodes[judged.order[number]].func
            name = names.get(id(func))
            if name is None:
                name = names[id(func)] = function_name(func)
            functions[number] = name
    return functions


class _Expected:
    """How long each task is expected to take."""

    def __init__(self, headers: Iterable[FlagHeader], learned: Mapping[str, float]) -> None:
        self._own: dict[str, float] = {}
        sums: dict[str | None, tuple[float, int]] = {}
        for header in headers:
            seconds, function = header.duration_seconds, header.function
            if seconds is not None and header.state != FAILED:
                self._own[header.task_id] = seconds
                known, number = sums.get(function, (0.0, 0))
                sums[function] = (known + seconds, number + 1)
        self._means: dict[str | None, float] = {name: known / number for name, (known, number) in sums.items()}
        self._means.update(learned)

    def of(self, task_id: str, function: str) -> float | None:
        """Return the expected seconds of a task, None if nothing is known."""
        own = self._own.get(task_id)
        return own if own is not None else self._means.get(function)


def _causes(judged: Judged) -> dict[str, tuple[int, int]]:
    """Return by reason how many tasks run for it themselves, and how many because of those.

    Reasons that differ only in a file that a task makes are one, told by the exact sentence only if it is alone.
    """
    kinds: dict[int, str] = {}
    exact: dict[str, str] = {}
    own: Counter[str] = Counter()
    pulled: Counter[str] = Counter()
    for number, reason in judged.reasons.items():  # a cause comes before what it brings in
        cause = judged.because.get(number)
        if cause is None:
            kind = kinds[number] = kind_of(reason)
            own[kind] += 1
            exact[kind] = reason
        else:
            kind = kinds[number] = kinds[cause]
            pulled[kind] += 1
    return {(exact[kind] if number == 1 else kind): (number, pulled[kind]) for kind, number in own.most_common()}


def kind_of(reason: str) -> str:
    """Return a reason without the output that it names."""
    newer = _NEWER.fullmatch(reason)
    if newer is not None:
        return f"{newer[1]} than what was made from it"
    return "an output is missing" if _OUTPUT_MISSING.fullmatch(reason) else reason
