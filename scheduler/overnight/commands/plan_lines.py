"""A plan as programs and people read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from overnight.commands.planning import Plan, PlannedTask, kind_of
from overnight.commands.screen import duration, tasks_text
from overnight.config import Settings
from overnight.hints import hint
from overnight.naming import shown

_MOST_CAUSES = 10
_MOST_FUNCTIONS = 3
#: Of more tasks than this in a row that run for one reason, the first few are told.
_MOST_ALIKE = 12
_EXAMPLES = 3


def facts_of(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain values."""
    span = plan.range
    return {
        "total": len(plan.would_run) + len(plan.up_to_date),
        "would_run": [
            {
                "task": task.task_id,
                "function": task.function,
                "reason": task.reason,
                "cause": task.cause,
                "seconds": None if task.seconds is None else round(task.seconds, 6),
            }
            for task in plan.would_run
        ],
        "up_to_date": plan.up_to_date,
        "causes": [{"reason": reason, "tasks": own, "dependants": more} for reason, (own, more) in plan.causes.items()],
        "expected": {
            "work_seconds": round(plan.forecast.work, 6) if plan.forecast.known else None,
            "longest_chain_seconds": round(plan.forecast.longest, 6) if plan.forecast.known else None,
            "least_seconds": None if span is None else round(span[0], 6),
            "most_seconds": None if span is None else round(span[1], 6),
            "workers": plan.told.workers,
            "unknown_tasks": plan.forecast.unknown,
        },
        "active_run": plan.told.active,
        "status_dir": plan.status_dir,
    }


def rows_of(plan: Plan, *, every_task: bool) -> tuple[list[str], list[list[str]]]:
    """Return titles and rows of the tasks that would run; their expected times if any is known.

    Unless `every_task` is wanted, of many tasks in a row that are of one function and run for one reason the first few
    stand for all.
    """
    rows: list[list[str]] = []
    for _, group in groupby(plan.would_run, lambda task: (task.function, kind_of(task.reason))):
        alike = list(group)
        told = alike if every_task or len(alike) <= _MOST_ALIKE else alike[:_EXAMPLES]
        rows += [[shown(task.task_id), _takes([task]), shown(task.reason)] for task in told]
        rest = alike[len(told) :]
        if rest:
            rows.append(
                [f"... {len(rest)} more of {_short(rest[0].function)}", _takes(rest), "likewise; -v lists them"]
            )
    if plan.forecast.known:
        return ["TASK", "TAKES", "REASON"], rows
    return ["TASK", "REASON"], [[task, reason] for task, _, reason in rows]


def _takes(tasks: Sequence[PlannedTask]) -> str:
    """Return the expected time of tasks together, as far as it is known."""
    known = [task.seconds for task in tasks if task.seconds is not None]
    return duration(sum(known)) if known else "?"


def total_lines(plan: Plan, settings: Settings) -> Iterator[str]:
    """Yield what people read below the tasks: how many, for which reasons, how long it takes, what is next."""
    number, fresh = len(plan.would_run), len(plan.up_to_date)
    is_are = "is" if fresh == 1 else "are"
    yield f"{number} of {number + fresh} tasks would run.{f' {fresh} {is_are} up to date.' if fresh else ''}"
    if not number:
        return
    yield from _cause_lines(plan.causes)
    yield _expectation(plan)
    if plan.told.active is not None:
        look = hint(settings, "status", plan.told.active)
        yield f"Run {plan.told.active} works with these records now and may do some of it. Look at it: {look}"


def _cause_lines(causes: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    if len(causes) < 2 and not any(more for _, more in causes.values()):
        return
    for reason, (own, more) in list(causes.items())[:_MOST_CAUSES]:
        needing = f", and {more} because of {'it' if own == 1 else 'them'}" if more else ""
        yield f"  {shown(reason)}: {own}{needing}"
    if len(causes) > _MOST_CAUSES:
        yield f"  and {len(causes) - _MOST_CAUSES} more reasons"


def _expectation(plan: Plan) -> str:
    known, workers = plan.forecast, plan.told.workers
    if not known.known:
        why = f" ({shown(plan.told.fault)})" if plan.told.fault else ""
        return f"How long that takes is not known: no task of these functions has ended yet{why}."
    parts = [f"Expected: {duration(known.work)} of work"]
    span = plan.range
    if span is not None:
        parts.append(f"{_span(*span)} on {workers} worker{'' if workers == 1 else 's'}")
    else:
        parts.append(f"the longest chain {duration(known.longest)}")
    if known.unknown:
        names = sorted({task.function for task in plan.would_run if task.seconds is None})
        parts.append(f"without {tasks_text(known.unknown)} of unknown duration ({_some(names)})")
    return ", ".join(parts) + "."


def _span(least: float, most: float) -> str:
    low, high = duration(least), duration(most)
    return f"about {low}" if low == high else f"{low} to {high}"


def _some(names: Sequence[str]) -> str:
    listed = ", ".join(_short(name) for name in names[:_MOST_FUNCTIONS])
    return f"{listed} and {len(names) - _MOST_FUNCTIONS} more" if len(names) > _MOST_FUNCTIONS else listed


def _short(function: str) -> str:
    return shown(function.rpartition(":")[2])
