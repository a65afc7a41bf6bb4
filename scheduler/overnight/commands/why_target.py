"""Why a task of a target would run, or would not: its reason, and the tasks for whose sake it runs, to the first."""

from __future__ import annotations

from typing import Any

from overnight.commands.planning import ask_server
from overnight.commands.suggestion import ending_about
from overnight.commands.work import Work
from overnight.errors import UsageError
from overnight.flags import FAILED
from overnight.naming import cut_task_id, shown
from overnight.task import Task


def why_planned(work: Work, task_id: str) -> dict[str, Any]:
    """Return as plain values why a task would run or not. Raises UsageError for a task that the graph does not hold."""
    names = {task.task_id: number for number, task in enumerate(work.decisions.judged.order)}
    found = names.get(cut_task_id(task_id))
    if found is None:
        raise UsageError(f"No task {task_id!r} is in the graph{ending_about(task_id, list(names))}")
    judged = ask_server(work).amended(work.decisions.judged)
    steps = []
    number: int | None = found
    while number is not None and number in judged.reasons:
        steps.append({"task": judged.order[number].task_id, "reason": judged.reasons[number]})
        number = judged.because.get(number)
    task = judged.order[found]
    return {
        "target": work.name,
        "task": task.task_id,
        "state": "would_run" if steps else "up_to_date",
        "reason": steps[0]["reason"] if steps else _stands(work, task),
        "because_of": steps[1:],
        "record": _record(work, task),
    }


def _stands(work: Work, task: Task) -> str:
    inputs = work.graph.get_task_desc(task).input_files
    if not inputs:
        return "its record stands: nothing it was computed from has changed"
    files = "its input file is not" if len(inputs) == 1 else f"none of its {len(inputs)} input files is"
    return f"its record stands: {files} newer, and nothing else has changed"


def _record(work: Work, task: Task) -> dict[str, Any] | None:
    header = work.decisions.header(task)
    if header is None:
        return None
    error = None
    if header.state == FAILED and header.error is not None:
        error = f"{header.error.type_name}: {header.error.message}"
    return {
        "state": header.state,
        "run": header.run_id,
        "finished": header.finished,
        "seconds": header.duration_seconds,
        "error": error,
    }


def lines_of(facts: dict[str, Any]) -> list[str]:
    """Return what people read of `why_planned`."""
    would = "would run" if facts["state"] == "would_run" else "would not run"
    lines = [f"Task {shown(facts['task'])} {would}: {shown(facts['reason'])}"]
    lines += [f"  {shown(step['task'])}: {shown(step['reason'])}" for step in facts["because_of"]]
    record = facts["record"]
    if record is not None:
        run = f" in run {shown(record['run'])}" if record["run"] else ""
        lines.append(f"  its last record: {record['state']}{run}")
        if record["error"]:
            lines.append(f"  error: {shown(record['error'].splitlines()[0])}")
    return lines
