"""How a run ended, as facts: counts, failed tasks with their errors and logs, what was skipped for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overnight.commands.progress import counts_text
from overnight.commands.screen import duration
from overnight.core.states import RunPhase, TaskState
from overnight.deployment import Deployment
from overnight.errors import BadSeal
from overnight.files import is_url
from overnight.hints import hint
from overnight.messages import StoredError
from overnight.naming import log_name, shown
from overnight.own_frames import place_of
from overnight.store.records import RunRecord, TaskView

MOST_FAILED = 20
#: Of a message of several lines, how many are shown after the first.
MOST_LINES = 5


@dataclass(frozen=True, slots=True)
class FailedTask:
    """A failed task: what was raised, and the file with its log (None: there is none)."""

    task_id: str
    type_name: str
    message: str
    traceback: str
    log: str | None
    attempts: int


@dataclass(frozen=True, slots=True)
class Ending:
    """A run as it stands, for people and programs. `failed` may hold the first few alone; `counts` counts all."""

    run: RunRecord
    counts: Mapping[TaskState, int]
    failed: Sequence[FailedTask]
    now: float
    #: The command that tells of all failed tasks.
    tells_all: str

    @property
    def seconds(self) -> float:
        """How long the run took, or has taken so far."""
        return max(0.0, (self.run.ended_at or self.now) - self.run.created_at)

    def as_json(self) -> dict[str, Any]:
        """Return the facts as plain values."""
        return {
            "run": self.run.run_id,
            "name": self.run.name,
            "phase": self.run.phase.value,
            "paused": self.run.paused,
            "note": self.run.note,
            "total": self.run.total,
            "counts": {state.name.lower(): number for state, number in self.counts.items()},
            "seconds": round(self.seconds, 3),
            "status_dir": self.run.status_dir,
            "log_dir": self.run.log_dir,
            "failed": [
                {
                    "task": failed.task_id,
                    "type": failed.type_name,
                    "message": failed.message,
                    "attempts": failed.attempts,
                    "log": failed.log,
                }
                for failed in self.failed
            ],
        }

    def lines(self, *, verbose: bool = False) -> list[str]:
        """Return what people read at the end of a run; `verbose` adds the tracebacks of the tasks' own code."""
        word = self.run.phase.value if self.run.phase.is_over else "not over"
        lines = [
            f"Run {self.run.run_id} {word} after {duration(self.seconds)}: {counts_text(self.counts) or 'no task'}"
        ]
        for failed in self.failed:
            lines += _failed_lines(failed, verbose=verbose)
        more = self.counts.get(TaskState.FAILED, 0) - len(self.failed)
        if more > 0:
            lines.append(f"  and {more} more failed tasks: {self.tells_all}")
        return lines


def _failed_lines(failed: FailedTask, *, verbose: bool) -> list[str]:
    attempts = f" (attempt {failed.attempts})" if failed.attempts > 1 else ""
    first, *more = failed.message.splitlines() or [""]
    place = place_of(failed.traceback)
    what = (f"{failed.type_name}: {first}" if first else failed.type_name) + (f" ({place})" if place else "")
    lines = [f"  failed: {shown(failed.task_id)}{attempts}: {shown(what)}"]
    lines += [f"    {shown(line)}" for line in more[:MOST_LINES]]
    if verbose:
        lines += [f"    {shown(line)}" for line in failed.traceback.rstrip().splitlines()]
    return lines + ([f"    log: {shown(failed.log)}"] if failed.log else [])


def read_ending(deployment: Deployment, run_id: str, task_ids: Sequence[str], *, every_failure: bool) -> Ending:
    """Read how a run stands: with every failure for programs, or the first few for people.

    Raises UnknownRun, Unreachable.
    """
    store = deployment.store
    run = store.run(run_id)
    codes = store.states(run_id)[::2]
    failed = [task for task, code in enumerate(codes) if code == TaskState.FAILED]
    failed = failed if every_failure else failed[:MOST_FAILED]
    counts = {state: codes.count(state) for state in TaskState if state in codes}
    tasks = [failed_task(deployment, run, view, task_ids[view.task]) for view in store.tasks(run_id, failed)]
    tells_all = hint(deployment.settings, "status", run_id, "--json")
    return Ending(run, counts, tasks, store.now(), tells_all)


def failed_task(deployment: Deployment, run: RunRecord, view: TaskView, task_id: str) -> FailedTask:
    """Return what is recorded of a failure; nothing is unpickled."""
    error = StoredError("unknown error", "its record is missing", "")
    if view.error is not None:
        try:
            error = StoredError.opened(view.error, run.run_id, view.task, deployment.keyring)
        except BadSeal as unusable:
            error = StoredError("unknown error", f"its record cannot be believed: {unusable}", "")
    name = error.type_name.removeprefix("builtins.").removeprefix("overnight.errors.")
    return FailedTask(task_id, name, error.message, error.traceback, log_of(run, task_id), view.attempt)


def log_of(run: RunRecord, task_id: str) -> str | None:
    """Return where a task's log is, None if none can be seen from here."""
    if run.log_dir is None:
        return None
    place = f"{run.log_dir.rstrip('/')}/{log_name(task_id)}"
    return place if is_url(place) or Path(place).exists() else None


def exit_status(phase: RunPhase) -> int:
    """Return what a command exits with that saw a run end in this phase."""
    return {RunPhase.SUCCEEDED: 0, RunPhase.FAILED: 1}.get(phase, 5)
