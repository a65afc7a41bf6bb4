"""The table that `status` prints: one line per task and its state (BEHAVIOUR L12)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from typing import TextIO

from overnight.cache import CacheRecordType
from overnight.error_text import error_text
from overnight.errors import RemoteTaskError
from overnight.graph import Task, TaskGraph
from overnight.inspection import Decisions
from overnight.naming import shown
from overnight.terminal_text import write_text

NARROWEST_COLUMN = 50
WIDEST_COLUMN = 120
LINES_AT_ONCE = 1000
_NAMES = {state: state.name for state in CacheRecordType}


def print_status(graph: TaskGraph, decisions: Decisions, *, verbose: bool, file: TextIO | None = None) -> None:
    """Print header and lines to `file`, standard output if None; nothing is unpickled."""
    out = sys.stdout if file is None else file
    lines = status_lines(graph, decisions, verbose=verbose)
    while block := list(islice(lines, LINES_AT_ONCE)):
        write_text(out, "\n".join(block) + "\n")


def status_lines(graph: TaskGraph, decisions: Decisions, *, verbose: bool) -> Iterator[str]:
    """Yield the table line by line, tasks in insertion order; with `verbose` stored tracebacks follow their line."""
    tasks = graph.tasks
    names = [shown(task.task_id) for task in tasks]
    longest = max(map(len, names), default=0)
    width = max(NARROWEST_COLUMN, min(longest, WIDEST_COLUMN))
    yield f"{'TaskID':<{width}} Status"
    states = [decisions.state(task) for task in tasks]
    failed_above = _failed_ancestors(graph, decisions) if CacheRecordType.ERROR in states else {}
    for task, name, state in zip(tasks, names, states, strict=True):
        failed = failed_above.get(task) if failed_above else None
        line = f"{name:<{width}} {_state_text(state, failed)}"
        if state is not CacheRecordType.ERROR or failed is not None:
            yield line
        elif verbose:
            yield line
            yield from _traceback_lines(decisions, task)
        else:
            yield f"{line} (-v to see exception)"


def _state_text(state: CacheRecordType, failed: Task | None) -> str:
    if state is not CacheRecordType.COMPUTED and failed is not None:
        return f"SKIPPED ({shown(failed.task_id)})"
    return _NAMES[state]


def _failed_ancestors(graph: TaskGraph, decisions: Decisions) -> dict[Task, Task]:
    """Return for each task below one in state ERROR the first such ancestor."""
    failed: dict[Task, Task] = {}
    with graph as nodes:
        for task in graph.topological_order():
            for dep in nodes[task].remaining:
                if dep in failed:
                    failed.setdefault(task, failed[dep])
                elif dep in nodes and decisions.state(dep) is CacheRecordType.ERROR:
                    failed.setdefault(task, dep)
    return failed


def _traceback_lines(decisions: Decisions, task: Task) -> list[str]:
    error = decisions.record(task).result_or_error
    if not isinstance(error, BaseException):
        return []
    text = error_text(error)
    stored = text.traceback
    if not stored.strip() and isinstance(error, RemoteTaskError):
        stored = str(error)
    return stored.rstrip("\n").splitlines()
