"""How a run ended, as facts: counts, failed tasks by cause with their errors and logs, what was skipped for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overnight.client import Client
from overnight.commands.causes import Cause, errors_of, opened_error, read_causes, short_type
from overnight.commands.progress import counts_text
from overnight.commands.screen import duration, tasks_text
from overnight.config import Settings
from overnight.core.states import RunPhase, TaskState
from overnight.deployment import Deployment
from overnight.files import is_url
from overnight.hints import hint
from overnight.messages import StoredError
from overnight.naming import log_name, shown
from overnight.own_frames import place_of
from overnight.store.records import RunRecord, TaskView

#: How many causes of failure people are told of; programs are told of all.
MOST_CAUSES = 20
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
    """A run as it stands, for people and programs.

    `causes` group all failures; `failed` holds the example of each of the first causes or, for programs, every failed
    task. `settings` are those by which the commands are made that people can type next.
    """

    run: RunRecord
    counts: Mapping[TaskState, int]
    causes: Sequence[Cause]
    failed: Sequence[FailedTask]
    task_ids: Sequence[str]
    now: float
    settings: Settings

    @property
    def seconds(self) -> float:
        """How long the run took, or has taken so far."""
        return self.run.seconds(self.now)

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
            "causes": [cause.as_json(self.task_ids, self._retry(cause)) for cause in self.causes],
        }

    def lines(self, *, verbose: bool = False) -> list[str]:
        """Return what people read at the end of a run; `verbose` adds the tracebacks of the tasks' own code."""
        word = self.run.phase.value if self.run.phase.is_over else "not over"
        lines = [
            f"Run {self.run.run_id} {word} after {duration(self.seconds)}: {counts_text(self.counts) or 'no task'}"
        ]
        failures = sum(len(cause.tasks) for cause in self.causes)
        if failures > 1:
            causes = "1 cause explains" if len(self.causes) == 1 else f"{len(self.causes)} causes explain"
            lines.append(f"{causes} {failures} failures:")
        for cause, example in zip(self.causes[:MOST_CAUSES], self.failed, strict=False):
            lines += self._cause_lines(cause, example, verbose=verbose)
        more = self.causes[MOST_CAUSES:]
        if more:
            everything = hint(self.settings, "status", self.run.run_id, "--json")
            lines.append(f"  and {sum(len(one.tasks) for one in more)} more by {len(more)} more causes: {everything}")
        return lines

    def next_steps(self) -> list[str]:
        """Return what people can type once the run is over."""
        if not self.run.phase.is_over:
            return []
        report = hint(self.settings, "report", self.run.run_id, "-o", "report.html")
        steps = [f"The whole story on one page: {report}"]
        if self.run.phase is not RunPhase.SUCCEEDED:
            steps.append(f"Run all of it again that did not finish: {hint(self.settings, 'retry', self.run.run_id)}")
        return steps

    def _cause_lines(self, cause: Cause, example: FailedTask, *, verbose: bool) -> list[str]:
        number, lines = len(cause.tasks), []
        if number > 1:
            lines.append(f"  failed: {number} tasks: {shown(cause.type_name)} ({shown(cause.where)})")
            lines += [f"  {line}" for line in _failed_lines(example, verbose=verbose, word="such as")]
        else:
            lines += _failed_lines(example, verbose=verbose)
        if cause.skipped:
            lines.append(f"    skipped for {'it' if number == 1 else 'them'}: {tasks_text(cause.skipped)}")
        return [*lines, f"    run {'it' if number == 1 else 'them'} again: {self._retry(cause)}"]

    def _retry(self, cause: Cause) -> str:
        return hint(self.settings, "retry", self.run.run_id, "--cause", cause.name)


def _failed_lines(failed: FailedTask, *, verbose: bool, word: str = "failed:") -> list[str]:
    attempts = f" (attempt {failed.attempts})" if failed.attempts > 1 else ""
    first, *more = failed.message.splitlines() or [""]
    place = place_of(failed.traceback)
    what = (f"{failed.type_name}: {first}" if first else failed.type_name) + (f" ({place})" if place else "")
    lines = [f"  {word} {shown(failed.task_id)}{attempts}: {shown(what)}"]
    lines += [f"    {shown(line)}" for line in more[:MOST_LINES]]
    if verbose:
        lines += [f"    {shown(line)}" for line in failed.traceback.rstrip().splitlines()]
    return lines + ([f"    log: {shown(failed.log)}"] if failed.log else [])


def read_ending(deployment: Deployment, run_id: str, task_ids: Sequence[str], *, every_failure: bool) -> Ending:
    """Read how a run stands: with every failed task for programs, or an example of each cause for people.

    Raises UnknownRun, Unreachable, UnreadableRun.
    """
    store = deployment.store
    run, states = store.run(run_id), store.states(run_id)
    counts = {state: states[::2].count(state) for state in TaskState if state in states[::2]}
    causes = causes_of(deployment, run_id, states)
    told = [cause.example for cause in causes[:MOST_CAUSES]]
    if every_failure:
        told = [task for task, code in enumerate(states[::2]) if code == TaskState.FAILED]
    failed = [
        _failed_task(run, error, task_ids[task], states[2 * task + 1])
        for task, error in errors_of(deployment, run_id, told)
    ]
    return Ending(run, counts, causes, failed, task_ids, store.now(), deployment.settings)


def causes_of(deployment: Deployment, run_id: str, states: bytes) -> list[Cause]:
    """Return the causes of all failures of a run; `states` holds two bytes a task."""
    codes = states[::2]
    failed = [task for task, code in enumerate(codes) if code == TaskState.FAILED]
    if not failed:
        return []
    skipped = [task for task, code in enumerate(codes) if code == TaskState.SKIPPED]
    function_of = Client.of(deployment).structure(run_id).function
    return read_causes(deployment, run_id, failed, skipped, function_of)


def failed_task(deployment: Deployment, run: RunRecord, view: TaskView, task_id: str) -> FailedTask:
    """Return what is recorded of a failure; nothing is unpickled."""
    return _failed_task(run, opened_error(deployment, run.run_id, view.task, view.error), task_id, view.attempt)


def _failed_task(run: RunRecord, error: StoredError, task_id: str, attempts: int) -> FailedTask:
    return FailedTask(task_id, short_type(error), error.message, error.traceback, log_of(run, task_id), attempts)


def log_of(run: RunRecord, task_id: str) -> str | None:
    """Return where a task's log is, None if none can be seen from here."""
    if run.log_dir is None:
        return None
    place = f"{run.log_dir.rstrip('/')}/{log_name(task_id)}"
    return place if is_url(place) or _is_seen(Path(place)) else None


def _is_seen(place: Path) -> bool:
    """Tell whether there is a file, as far as this user may look."""
    try:
        return place.exists()
    except PermissionError:
        return False


def exit_status(phase: RunPhase) -> int:
    """Return what a command exits with that saw a run end in this phase."""
    return {RunPhase.SUCCEEDED: 0, RunPhase.FAILED: 1}.get(phase, 5)
