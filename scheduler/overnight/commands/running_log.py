"""What is known of the log of an attempt that runs where it cannot be seen: who runs it, and its last lines there."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from overnight.commands.activity import where_of
from overnight.commands.task_logs import harmless
from overnight.core.states import TaskState
from overnight.deployment import Deployment
from overnight.errors import BadSeal
from overnight.log_tails import added_to, opened_tail
from overnight.naming import shown
from overnight.store.records import TaskView, WorkerRecord

#: Workers tell news every few seconds.
LOOK_SECONDS = 1.0
#: Stands where lines are missing between those that were told.
MISSING = "...\n"


@dataclass(frozen=True, slots=True)
class RunningAttempt:
    """An attempt that a worker has said it runs; `text` is the end of what it has written, as far as that is told."""

    worker: WorkerRecord
    text: str


def running_attempt(deployment: Deployment, run_id: str, view: TaskView) -> RunningAttempt | None:
    """Return the attempt of a task that runs; None if it does not run, or no worker has named it yet."""
    if view.state is not TaskState.RUNNING:
        return None
    named = [one for one in deployment.store.workers() if (one.run_id, one.task) == (run_id, view.task)]
    for worker in named:
        with suppress(BadSeal):
            record = deployment.store.read_tail(worker.instance)
            return RunningAttempt(worker, opened_tail(record, run_id, view.task, view.attempt, deployment.keyring))
    return RunningAttempt(named[0], "") if named else None


def head_of(task_id: str, run_id: str, attempt: int, worker: WorkerRecord) -> str:
    """Return the line that goes before the last lines of an attempt that runs."""
    where = f"it runs {where_of(worker)}; its last lines there"
    return f"{shown(f'---- {task_id} run {run_id} attempt {attempt} (from the server: {where})')}\n"


class RunningLog:
    """Tells what is new of the last lines of a task, attempt after attempt. `told` is what was told of `attempt`."""

    def __init__(self, deployment: Deployment, run_id: str, task_id: str) -> None:
        self.attempt: int | None = None
        self.told = ""
        self.worker: WorkerRecord | None = None
        self._deployment = deployment
        self._run_id = run_id
        self._task_id = task_id
        self._look_at = float("-inf")

    def news(self, view: TaskView, now: float) -> str:
        """Return what is to be printed; `now` is a time of the monotonic clock."""
        if now < self._look_at:
            return ""
        self._look_at = now + LOOK_SECONDS
        found = running_attempt(self._deployment, self._run_id, view)
        if found is None or not found.text:
            return ""
        head = ""
        if view.attempt != self.attempt:
            head = head_of(self._task_id, self._run_id, view.attempt, found.worker)
            self.attempt, self.told, self.worker = view.attempt, "", found.worker
        added = added_to(self.told, found.text)
        self.told = found.text
        return head + harmless(f"{MISSING}{found.text}" if added is None else added)

    def told_of(self, attempt: int) -> str:
        """Return what was told of an attempt."""
        return self.told if attempt == self.attempt else ""
