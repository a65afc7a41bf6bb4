"""The report as one page of HTML that needs nothing else: no script, no font, no image from anywhere.

Every text from outside (ids, messages, names of workers) passes `naming.shown` and is escaped by the template engine;
the page forbids itself scripts and connections besides. Its size is bounded whatever the number of tasks.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from math import isfinite
from typing import TYPE_CHECKING, Any

from overnight.certificates import BY_EXCEPTION, DeathCertificate
from overnight.commands.causes import short_type
from overnight.commands.ending import log_of
from overnight.commands.reporting.facts import RunFacts
from overnight.commands.reporting.figures import (
    FunctionFigures,
    by_function,
    critical_path,
    hungriest,
    largest,
    next_run,
    slowest,
)
from overnight.commands.reporting.timeline import Bar, timeline
from overnight.commands.screen import duration, moment, span
from overnight.config import Settings
from overnight.core.states import SUCCEEDED, TaskState
from overnight.error_text import without_last_output
from overnight.hints import hint
from overnight.naming import shown

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_PART_ENDS = re.compile(r"(?<=[:./_])(?=\w)")
MOST_CAUSES = 30
MOST_DEATHS = 20
MOST_FUNCTIONS = 40
MOST_LISTED = 10
#: Of a long critical path, how many tasks are shown: those that took longest.
MOST_OF_PATH = 20
#: How many functions have a colour of their own; all others share one more.
COLOURS = 7
_STATES = (
    TaskState.DONE,
    TaskState.CACHED,
    TaskState.RUNNING,
    TaskState.QUEUED,
    TaskState.PENDING,
    TaskState.TRIED,
    TaskState.CANCELLED,
    TaskState.SKIPPED,
    TaskState.FAILED,
)


@dataclass(frozen=True, slots=True)
class Drawn:
    """Bars of one kind in one lane, as one path, or one bar with what it says."""

    kind: str
    path: str
    says: str = ""


def render(facts: RunFacts, settings: Settings) -> str:
    """Return the page."""
    functions = by_function(facts)
    workers = len({worker for worker in facts.workers if worker is not None})
    template = _environment().get_template("report.html")
    return template.render(
        facts=facts,
        run=facts.run,
        State=TaskState,
        workers=workers,
        zone=_zone(facts.ended_at),
        next=next_run(facts, max(1, workers)),
        command=lambda *words: hint(settings, *words),
        **_outcome(facts, functions),
        **_failures(facts),
        **_course(facts, functions),
    )


def _outcome(facts: RunFacts, functions: Sequence[FunctionFigures]) -> dict[str, Any]:
    counts = facts.counts
    return {
        "counts": counts,
        "states": [(state, counts[state]) for state in _STATES if state in counts],
        "total": len(facts.codes),
        "succeeded": sum(number for state, number in counts.items() if state in SUCCEEDED),
        "wall": facts.run.seconds(facts.now),
        "work": sum(one.total for one in functions),
        "executed": len(facts.executed()),
    }


def _failures(facts: RunFacts) -> dict[str, Any]:
    shown_causes = facts.causes[:MOST_CAUSES]
    return {
        "causes": [(cause, log_of(facts.run, facts.task_ids[cause.example])) for cause in shown_causes],
        "failures": sum(len(cause.tasks) for cause in facts.causes),
        "deaths": sorted(facts.deaths, key=_by_interest)[:MOST_DEATHS],
    }


def _course(facts: RunFacts, functions: Sequence[FunctionFigures]) -> dict[str, Any]:
    names = [one.function for one in functions]
    kinds = _kinds(facts, names)
    drawn, path = timeline(facts.executions(), kinds), critical_path(facts)
    return {
        "timeline": drawn,
        "lanes": [(lane, _drawn(lane.bars, facts)) for lane in drawn.lanes] if drawn else [],
        "legend": _legend(names),
        "functions": functions[:MOST_FUNCTIONS],
        "all_functions": len(functions),
        "colour": {name: f"c{min(number, COLOURS)}" for number, name in enumerate(names)},
        "kinds": kinds,
        "path": path,
        "path_seconds": sum(seconds for task in path if isfinite(seconds := facts.seconds[task])),
        "path_shown": _longest_of(path, facts),
        "path_most": max((seconds for task in path if isfinite(seconds := facts.seconds[task])), default=1.0) or 1.0,
        "slowest": slowest(facts, MOST_LISTED),
        "hungriest": hungriest(facts, MOST_LISTED),
        "largest": largest(facts, MOST_LISTED),
    }


def _longest_of(path: Sequence[int], facts: RunFacts) -> list[int]:
    """Return the tasks of a path that took longest, in the order of the path."""
    known = {task: facts.seconds[task] for task in path if isfinite(facts.seconds[task])}
    longest = set(sorted(known, key=lambda task: -known[task])[:MOST_OF_PATH])
    return [task for task in path if task in longest]


def _kinds(facts: RunFacts, functions: Sequence[str]) -> list[str]:
    """Return the class of each task's bars: its function's colour."""
    colour = {function: f"c{min(number, COLOURS)}" for number, function in enumerate(functions)}
    return [colour.get(function, f"c{COLOURS}") for function, _ in facts.rows]


def _by_interest(death: tuple[int, DeathCertificate]) -> tuple[bool, float]:
    """Order deaths: those that an exception did not end first, for causes tell of exceptions; then the latest first."""
    return death[1].ended_by == BY_EXCEPTION, -(death[1].ended or 0.0)


def _legend(functions: Sequence[str]) -> list[tuple[str, str]]:
    named = [(f"c{number}", function) for number, function in enumerate(functions[:COLOURS])]
    rest = len(functions) - COLOURS
    return named + ([(f"c{COLOURS}", f"{rest} other functions")] if rest > 0 else [])


def _drawn(bars: Iterable[Bar], facts: RunFacts) -> list[Drawn]:
    """Return what is drawn of a lane: bars that name a task one by one, all others as one path of each kind."""
    found: list[Drawn] = []
    paths: dict[str, list[str]] = {}
    for bar in bars:
        path = f"M{bar.left:.1f} 0h{bar.width:.1f}v10h-{bar.width:.1f}z"
        if bar.task is None:
            paths.setdefault(bar.kind, []).append(path)
        else:
            found.append(Drawn(bar.kind, path, f"{facts.task_ids[bar.task]}: {span(bar.seconds)}"))
    # Failures lie above what runs beside them.
    joined = [Drawn(kind, "".join(parts)) for kind, parts in paths.items()]
    return sorted(joined + found, key=lambda one: one.kind.startswith("bad"))


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("overnight.commands.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "shown": lambda text: shown(str(text)),
        "name": _name,
        "lines": lambda text: "\n".join(shown(line) for line in str(text).rstrip().split("\n")),
        "duration": duration,
        "span": span,
        "moment": moment,
        "clock": lambda seconds: moment(seconds)[11:],
        "amount": amount,
        "number": lambda number: f"{number:,}",
        "first": _first_line,
        "ending": _ending,
    }
    return environment


def _name(text: str) -> Markup:
    """Return a function's name for a place that may be narrow: it is broken where a part of it ends."""
    from markupsafe import Markup, escape

    return Markup(_PART_ENDS.sub("<wbr>", str(escape(shown(text)))))  # noqa: S704 - all but the break is escaped


def _ending(death: DeathCertificate) -> str:
    """Say what ended an attempt; of exceptions their type too, which tells them apart."""
    by_exception = death.ended_by == BY_EXCEPTION
    return f"{death.ended_by}: {short_type(death)}" if by_exception else death.ended_by


def _zone(seconds: float) -> str:
    """Name the time zone in which moments are told, and its distance from UTC."""
    local = time.localtime(seconds)
    offset = time.strftime("%z", local)
    return f"{time.strftime('%Z', local)} (UTC{offset[:3]}:{offset[3:]})"


def _first_line(text: str) -> str:
    return without_last_output(text).partition("\n")[0]


def amount(number: Any) -> str:
    """Return a number of bytes as people read it."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if number >= 100 or unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
