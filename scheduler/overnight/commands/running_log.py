"""What is known of the log of an attempt that runs: who runs it, and its last lines there, beside what its log has."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from overnight.commands.activity import where_of
from overnight.commands.task_logs import harmless, parted
from overnight.commands.telling import Told
from overnight.core.states import TaskState
from overnight.deployment import Deployment
from overnight.errors import BadSeal
from overnight.log_tails import opened_tail
from overnight.naming import shown
from overnight.store.records import TaskView, WorkerRecord

#: Workers tell news every few seconds.
LOOK_SECONDS = 1.0
#: A worker hears with its next sign of life that a task is cancelled, and names it until it has killed it.
_HELD = frozenset({TaskState.RUNNING, TaskState.CANCELLED})


@dataclass(frozen=True, slots=True)
class RunningAttempt:
    """An attempt that a worker has said it runs; `text` is the end of what it has written, as far as that is told."""

    worker: WorkerRecord
    text: str


def running_attempt(deployment: Deployment, run_id: str, view: TaskView) -> RunningAttempt | None:
    """Return the attempt of a task that runs, be it cancelled; None if it does not, or no worker has named it yet."""
    if view.state not in _HELD:
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
    """Tells what is new of a task's log and of its last lines, attempt after attempt; each line once.

    `attempt` is what is being told of, `worker` who has told of it.
    """

    def __init__(self, deployment: Deployment, run_id: str, task_id: str) -> None:
        self.attempt: int | None = None
        self.worker: WorkerRecord | None = None
        self._told = Told()
        self._deployment = deployment
        self._run_id = run_id
        self._task_id = task_id
        self._look_at = float("-inf")

    def logged(self, added: str) -> str:
        """Return what is to be printed of what the log has brought; an attempt that was told of begins but once."""
        before, *attempts = parted(added, self._run_id, self._task_id)
        told = self._told.by_log(before.text)
        for section in attempts:
            separator, newline, text = section.text.partition("\n")
            if section.attempt != self.attempt:
                self.attempt, self._told, self.worker = section.attempt, Told(), None
                told += separator + newline
            told += self._told.by_log(text)
        return told

    def news(self, view: TaskView, now: float) -> str:
        """Return what is to be printed of the last lines; `now` is a time of the monotonic clock."""
        if now < self._look_at:
            return ""
        self._look_at = now + LOOK_SECONDS
        found = running_attempt(self._deployment, self._run_id, view)
        if found is None or not found.text:
            return ""
        head = ""
        if view.attempt != self.attempt:
            head = head_of(self._task_id, self._run_id, view.attempt, found.worker)
            self.attempt, self._told = view.attempt, Told()
        self.worker = found.worker
        return head + harmless(self._told.by_worker(found.text))

    def told_of(self, attempt: int) -> str:
        """Return the end of what was told of an attempt."""
        return self._told.latest if attempt == self.attempt else ""
