"""Follow one run until it is over and its results are proven, showing where it stands.

The loop turns several times a second, also while Redis is away. Signals are acted on between two turns: the first lets
nothing new start and gives running tasks ten seconds, the second (or the end of those) cancels, a third leaves. A
hang-up leaves at once and the run goes on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import Enum

from overnight.audit import Audit, Findings
from overnight.commands.activity import where_of
from overnight.commands.interrupts import Interrupts
from overnight.commands.known_tasks import KnownTasks
from overnight.commands.outlook import Outlook
from overnight.commands.progress import Display, Pace, Running, Standing
from overnight.core.states import SUCCEEDED, RunPhase, TaskState
from overnight.deployment import Deployment
from overnight.errors import Unreachable
from overnight.following import Changed, Follower, lacking_words
from overnight.naming import shown
from overnight.store.records import Request, RunRecord
from overnight.submission import Submission
from overnight.worker_watch import StoredQueues, WorkerWatch

PATIENCE_SECONDS = 0.25
GRACE_SECONDS = 10.0
TEARDOWN_SECONDS = 30.0
_LOOK_AT_WORKERS_SECONDS = 1.0
#: From so many results on, looking at all of them takes longer than people wait without a word.
_MANY_RESULTS = 5000


class Left(Enum):
    """Why the watching ended before the run did."""

    HUNG_UP = "hung up"
    IMPATIENT = "a signal came and the run could not be seen to end"
    UNPLACED = "a signal came while no run was in place"
    UNATTENDED = "a signal came, the run is told to end, and no scheduler is there to end it"


class Watch:
    """Watches one run. `own`: what whoever watches it has put in place; signals then stop the run itself."""

    def __init__(
        self,
        deployment: Deployment,
        run: RunRecord,
        task_ids: Sequence[str],
        display: Display,
        interrupts: Interrupts,
        *,
        own: Submission | None,
    ) -> None:
        self.run = run
        self._deployment = deployment
        self._store = deployment.store
        self._task_ids = task_ids
        self._display = display
        self._interrupts = interrupts
        self._steers = own is not None
        placed = None if own is None else lambda run: own.is_in(run, deployment.store)
        self._follower = Follower(self._store, run.run_id, interrupts.wake, placed=placed)
        tasks = KnownTasks(deployment, run.run_id)
        queues = StoredQueues(run.queue, lambda: self._store.states(run.run_id)[::2], tasks.structure)
        self._lacks = WorkerWatch(self._store, run.run_id, queues, deployment.settings, run.python)
        self._pace = Pace()
        self._outlook = Outlook(deployment, run, tasks)
        #: Since when each running task runs, by this host's monotonic clock: as its worker says, else as heard.
        self._since: dict[int, float] = {}
        self._where: dict[int, str] = {}
        self._look_at = 0.0
        self._paused = run.paused
        self._pause_until: float | None = None
        self._leave_at: float | None = None

    def until_proven(self) -> RunPhase | Left:
        """Follow until the run is over and its results are there. Raises UnknownRun if Redis forgets it."""
        keyring, status_dir = self._deployment.keyring, self.run.status_dir
        audit = Audit(self._store, self.run.run_id, keyring, status_dir, retries=self._steers, owns=self._steers)
        while True:
            ended = self._until_over()
            if not isinstance(ended, RunPhase) or ended is RunPhase.CANCELLED:
                return ended
            number = sum(self._follower.counts().get(state, 0) for state in SUCCEEDED)
            if number >= _MANY_RESULTS:
                self._display.line(f"The run is over. Checking that its {number} results are there.")
            try:
                findings = audit.run()
            except Unreachable as error:
                self._display.line(f"The results cannot be checked yet: {error}")
                self._interrupts.wake.wait(1.0)
                continue
            self._tell(findings)
            if findings.over:
                return ended

    def _tell(self, findings: Findings) -> None:
        if findings.rewritten:
            number = len(findings.rewritten)
            were = "1 record was missing and has" if number == 1 else f"{number} records were missing and have"
            self._display.line(f"{were} been written again.")
        if findings.unwritten:
            ids = ", ".join(shown(self._task_ids[task]) for task in findings.unwritten[:5])
            self._display.line(
                f"{len(findings.unwritten)} records could not be written to {shown(self.run.status_dir or '')}; these "
                f"tasks run again next time: {ids}{', ...' if len(findings.unwritten) > 5 else ''}"
            )
        if findings.unseen:
            self._display.line(
                f"{len(findings.unseen)} results are told as they are recorded: what lies in "
                f"{shown(self.run.status_dir or '')} cannot be looked at from here by this user."
            )
        if findings.invalidated:
            number = len(findings.invalidated)
            lost = "1 result was lost; it is" if number == 1 else f"{number} results were lost; they are"
            self._display.line(f"{lost} computed again.")

    def _until_over(self) -> RunPhase | Left:
        while True:
            for changed in self._follower.changes(PATIENCE_SECONDS):
                if changed.lacking:
                    self._display.line(lacking_words(len(changed.lacking)))
                left = self._turn(changed)
                if left is not None:
                    return left
                if changed.over is not None:
                    return changed.over
            self._interrupts.wake.clear()
            left = self._on_signal()
            if left is not None:
                return left

    def _turn(self, changed: Changed) -> Left | None:
        self._deployment.check()
        now = time.monotonic()
        for task, state in changed.tasks:
            if state is TaskState.RUNNING:
                self._since[task] = now
            else:
                self._since.pop(task, None)
                self._where.pop(task, None)
        counts = self._follower.counts()
        if now >= self._look_at and changed.over is None:
            self._look_at = now + _LOOK_AT_WORKERS_SECONDS
            self._look_at_workers()
        rate = self._pace.note(now, counts)
        left = self._outlook.time_left(now, rate) if self._goes_on and changed.over is None else None
        self._display.show(Standing(counts, self.run.total, rate, left, self._running(now)))
        if self._leave_at is not None and now >= self._leave_at:
            return Left.IMPATIENT
        is_drained = self._pause_until is not None and not counts.get(TaskState.RUNNING)
        if is_drained or now >= (self._pause_until or now + 1):
            return self._cancel()
        return None

    @property
    def _goes_on(self) -> bool:
        """Tell whether pending tasks are being started."""
        return not self._paused and self._pause_until is None and self._leave_at is None

    def _look_at_workers(self) -> None:
        """Read what runs where, and whether anything is started; Redis being away is told by the follower."""
        try:
            server_now, workers = self._store.now(), self._store.workers()
            run = self._store.run(self.run.run_id)
            self._paused = run.paused
            self._lacks.look(run.note)
        except Unreachable:
            return
        now = time.monotonic()
        for worker in workers:
            if worker.run_id == self.run.run_id and worker.task in self._since and worker.task_since is not None:
                self._since[worker.task] = now - worker.seconds_since(worker.task_since, server_now)
                self._where[worker.task] = where_of(worker)

    def _running(self, now: float) -> list[Running]:
        oldest = sorted(self._since.items(), key=lambda item: item[1])
        known = [(task, since) for task, since in oldest if task < len(self._task_ids)]
        return [Running(self._task_ids[task], now - since, self._where.get(task, "")) for task, since in known]

    # Signals.

    def _on_signal(self) -> Left | None:
        if self._interrupts.hung_up:
            return Left.HUNG_UP
        if not self._steers or self._interrupts.count > 2:
            return Left.IMPATIENT
        return self._pause() if self._interrupts.count == 1 else self._cancel()

    def _pause(self) -> Left | None:
        self._pause_until = time.monotonic() + GRACE_SECONDS
        # A worker holds more tasks than the one that it runs, so their number says nothing to people.
        if self._runs_something():
            self._display.line(
                f"Stopping: nothing new starts; what runs has {GRACE_SECONDS:.0f} s. "
                "Press Ctrl-C again to stop it at once."
            )
        else:
            self._display.line("Stopping.")
        return self._ask(Request.PAUSE)

    def _runs_something(self) -> bool:
        """Tell whether a worker holds a task now; while the server is away, whether one did when last heard."""
        try:
            return TaskState.RUNNING in self._store.states(self.run.run_id)[::2]
        except Unreachable:
            return TaskState.RUNNING in self._follower.counts()

    def _cancel(self) -> Left | None:
        self._pause_until = None
        self._leave_at = self._leave_at or time.monotonic() + TEARDOWN_SECONDS
        return self._ask(Request.CANCEL) or (Left.UNATTENDED if self._is_unattended() else None)

    def _is_unattended(self) -> bool:
        try:
            return self._store.scheduler() is None
        except Unreachable:
            return False

    def _ask(self, request: Request) -> Left | None:
        try:
            self._store.request(self.run.run_id, request)
        except Unreachable as error:
            self._display.line(f"The run could not be told to stop: {error}")
            return Left.IMPATIENT
        return None
