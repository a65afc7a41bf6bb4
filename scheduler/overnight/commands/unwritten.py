"""Declared outputs that are not there though their tasks succeeded: these run again each time, and nobody knows why."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from overnight.errors import Unreachable
from overnight.files import look_up
from overnight.naming import shown
from overnight.task import TaskDesc

_MOST_NAMED = 5


def unwritten_outputs(descs: Sequence[TaskDesc], done: Collection[int]) -> list[tuple[str, str]]:
    """Return (task id, path) for each output file that a task, done by its index, declares and that does not exist."""
    declared = [(descs[number].task.task_id, path) for number in done for path in descs[number].output_files]
    try:
        found = look_up([path for _, path in declared])
    except Unreachable:  # a store that cannot be asked now tells nothing about the tasks
        return []
    return [(task_id, path) for task_id, path in declared if path not in found]


def unwritten_line(unwritten: Sequence[tuple[str, str]]) -> str:
    """Return what people are told of them."""
    number = len({task_id for task_id, _ in unwritten})
    tasks = (
        "1 task has succeeded and not written what it declares; it runs"
        if number == 1
        else (f"{number} tasks have succeeded and not written what they declare; they run")
    )
    named = ", ".join(f"{shown(task_id)} ({shown(path)})" for task_id, path in unwritten[:_MOST_NAMED])
    return f"{tasks} again next time: {named}{', ...' if len(unwritten) > _MOST_NAMED else ''}"
