"""Which tasks of a run are being run, as far as it can be known.

The state string says at once which tasks workers hold; what each worker is running of them, it says with its heartbeat
every few seconds. So a task that is held and that no worker has named yet is told without a worker.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from overnight.commands.screen import duration
from overnight.core.states import TaskState
from overnight.naming import shown
from overnight.store.records import WorkerRecord

_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Held:
    """A task that a worker holds: the index, and which worker has said that it runs it (None: none yet)."""

    task: int
    worker: WorkerRecord | None


def held_tasks(run_id: str, codes: bytes, workers: Iterable[WorkerRecord]) -> list[Held]:
    """Return the tasks of a run that workers hold, named ones first; `codes` is one state a task."""
    running = {task for task, code in enumerate(codes) if code == TaskState.RUNNING}
    named = {worker.task: worker for worker in workers if worker.run_id == run_id and worker.task in running}
    first = [Held(task, worker) for task, worker in named.items() if task is not None]
    return first + [Held(task, None) for task in sorted(running - named.keys())]


def as_fact(held: Held, task_id: str, now: float) -> dict[str, Any]:
    """Return a held task as plain values; what no worker has said is None."""
    worker = held.worker
    if worker is None:
        return {"task": task_id, "seconds": None, "host": None, "pid": None, "memory": None}
    seconds = round(worker.seconds_since(worker.task_since or now + worker.skew, now), 3)
    return {"task": task_id, "seconds": seconds, "host": worker.host, "pid": worker.pid, "memory": worker.memory}


def where_of(worker: WorkerRecord) -> str:
    """Return where a task runs and how much memory its process holds, as far as its worker has said."""
    memory = f", {worker.memory / 1e6:.0f} MB" if worker.memory else ""
    return f"on {worker.host}, process {worker.pid}{memory}"


def lines(held: Iterable[Held], ids: list[str], now: float) -> list[str]:
    """Return what people read of held tasks."""
    told, claimed = [], []
    for each in held:
        worker = each.worker
        if worker is None:
            claimed.append(shown(ids[each.task]))
            continue
        age = duration(worker.seconds_since(worker.task_since or now + worker.skew, now))
        told.append(f"  running: {shown(ids[each.task])} for {age} {shown(where_of(worker))}")
    if claimed:
        more = f" and {len(claimed) - _MOST_NAMED} more" if len(claimed) > _MOST_NAMED else ""
        told.append(f"  claimed by workers: {', '.join(claimed[:_MOST_NAMED])}{more}")
    return told
