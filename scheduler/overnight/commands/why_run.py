"""Why a task of a run is where it is: before it runs what it waits for, afterwards what brought it there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from overnight.client import Client
from overnight.commands.circumstances import MOST_NAMED, Circumstances, Obstacle, held_by
from overnight.commands.ending import failed_task
from overnight.commands.one_task import task_facts, told_of
from overnight.commands.opening import index_of
from overnight.commands.screen import duration
from overnight.commands.work import FORCED
from overnight.core.events import Charge
from overnight.core.states import RunPhase, TaskState
from overnight.error_text import without_last_output
from overnight.errors import UnknownRun, UnreadableRun
from overnight.hints import hint
from overnight.naming import shown
from overnight.own_frames import place_of
from overnight.run_key import is_forced
from overnight.store.records import RunRecord, TaskView

_HANDED_OUT = frozenset({TaskState.QUEUED, TaskState.RUNNING, TaskState.TRIED, TaskState.DONE})


@dataclass(frozen=True, slots=True)
class Answer:
    """Why a task stands where it stands. `kind` is one word for programs; `more` are further sentences.

    `waits_for` are the tasks that it waits for in the end, each with its state and a sentence; `had_to_run` is why it
    was not up to date when the run began; `advice` are commands that help.
    """

    kind: str
    reason: str
    more: Sequence[str] = ()
    waits_for: Sequence[Mapping[str, Any]] = ()
    had_to_run: str | None = None
    advice: Sequence[str] = field(default=())


class Asked:
    """One task of a run that somebody asks about. Raises UsageError for an unknown task."""

    def __init__(self, client: Client, run: RunRecord, task_id: str) -> None:
        self._client = client
        self._store = client.deployment.store
        self._settings = client.deployment.settings
        self.run = run
        self.structure = client.structure(run.run_id)
        self.task = index_of(client, run.run_id, task_id)
        self.task_id = self.structure.task_id(self.task)
        self.codes = self._store.states(run.run_id)[::2]
        [self.view] = self._store.tasks(run.run_id, [self.task])

    def answer(self) -> Answer:
        """Return why the task stands where it stands."""
        explain: Mapping[TaskState, Callable[[], Answer]] = {
            TaskState.CACHED: self._cached,
            TaskState.DONE: self._done,
            TaskState.FAILED: self._failed,
            TaskState.SKIPPED: self._skipped,
            TaskState.CANCELLED: self._cancelled,
            TaskState.RUNNING: self._running,
        }
        return explain.get(self.view.state, self._waiting)()

    def _done(self) -> Answer:
        return Answer("done", f"it ran{self._where()}", self._history(), (), self._had_to_run())

    def _cached(self) -> Answer:
        record = task_facts(self._client, self.run, self.task_id)["record"]
        origin = told_of(record).removeprefix(", ")
        more = [f"its record is {origin}"] if origin else []
        return Answer("cached", "it was up to date when the run began, and did not run", more)

    def _failed(self) -> Answer:
        run_id = self.run.run_id
        again = hint(self._settings, "retry", run_id, "-t", self.task_id)
        logs = hint(self._settings, "logs", run_id, task_id=self.task_id)
        retries = self.structure.rules(self.task).retries
        allowed = f"; {retries} retr{'y was' if retries == 1 else 'ies were'} allowed" if retries else ""
        reason = f"attempt {self.view.attempt} failed{allowed}: {self._error(self.task, self.view)}"
        advice = [f"what it logged: {logs}", f"run it again when the cause is mended: {again}"]
        return Answer("failed", reason, self._history(), (), self._had_to_run(), advice)

    def _skipped(self) -> Answer:
        cause = self.view.cause
        if cause is None:
            return Answer("skipped", "a task that it needs failed, was skipped or was cancelled")
        [view] = self._store.tasks(self.run.run_id, [cause])
        name = shown(self.structure.task_id(cause))
        way, others = self._way_from(cause), [task for task in self._failed_above() if task != cause]
        more = [f"the way from there: {' -> '.join(way)}"] if len(way) > 2 else []
        again, what = self.structure.task_id(cause), "both again when the cause is"
        if others:
            more.append(f"it also needs {len(others)} more that failed: {self._named(others)}")
            again, what = self.task_id, "all of them again when the causes are"
        waits = [self._failed_one(task) for task in (cause, *others)]
        reason = f"it needs {name}, which failed: {self._error(cause, view)}"
        advice = [f"run {what} mended: {hint(self._settings, 'retry', self.run.run_id, '-t', again)}"]
        return Answer("skipped", reason, more, waits, self._had_to_run(), advice)

    def _failed_above(self) -> list[int]:
        """Return the failed tasks that this one needs, directly or not, in the order of their indices."""
        above, seen = [self.task], {self.task}
        for task in above:  # grows while it is walked
            new = [dependency for dependency in self.structure.dependencies(task) if dependency not in seen]
            seen.update(new)
            above += new
        return sorted(task for task in above if self.codes[task] == TaskState.FAILED)

    def _failed_one(self, task: int) -> Mapping[str, Any]:
        state = TaskState(self.codes[task]).name.lower()
        return {"task": self.structure.task_id(task), "state": state, "reason": "failed"}

    def _named(self, tasks: Sequence[int]) -> str:
        names = ", ".join(shown(self.structure.task_id(task)) for task in tasks[:MOST_NAMED])
        return f"{names}, ..." if len(tasks) > MOST_NAMED else names

    def _cancelled(self) -> Answer:
        run = self.run
        failed = [task for task, code in enumerate(self.codes) if code == TaskState.FAILED]
        again = hint(self._settings, "retry", run.run_id)
        advice = [f"run what was cancelled: {again}"]
        if run.fail_fast and failed:
            names = self._named(failed)
            reason = f"the run ends at its first failure (it was started without --keep-going), and {names} failed"
            return Answer("cancelled", reason, self._history(), (), self._had_to_run(), advice)
        return Answer("cancelled", "the run was cancelled", self._history(), (), self._had_to_run(), advice)

    def _running(self) -> Answer:
        around = self._circumstances()
        flight, worker = around.holder(self.task)
        more = self._history()
        if worker is not None and worker.task == self.task:
            age = duration(around.now - (worker.task_since or around.now))
            where = f"on {shown(worker.host)}, process {worker.pid}"
            return Answer("running", f"it is running for {age} {where}", more, (), self._had_to_run())
        others = [task for task in flight.tasks if task != self.task] if flight is not None else []
        where = f"a worker on {shown(worker.host)}, process {worker.pid}," if worker is not None else "a worker"
        if not others:
            return Answer("running", f"{where} holds it and runs it now", more, (), self._had_to_run())
        text = f"{where} holds it in a batch with {len(others)} more: {around.named(others)}"
        return Answer("held", text, more, (), self._had_to_run())

    def _waiting(self) -> Answer:
        around = self._circumstances()
        first, *others = around.obstacles(self.task) or [Obstacle("ready", "it is about to start")]
        more = [obstacle.text for obstacle in others] + self._history()
        if self.view.error is not None:
            more.append(f"its last attempt failed: {self._error(self.task, self.view)}")
        waits = [self._waited_for(around, task) for task in self._ends(around, first)]
        advice = [f"watch the run: {hint(self._settings, 'follow', self.run.run_id)}"]
        return Answer(first.kind, first.text, more, waits, self._had_to_run(), advice)

    def _ends(self, around: Circumstances, first: Obstacle) -> Sequence[int]:
        return first.tasks if first.kind == "limit" else around.frontier(self.task)

    def _waited_for(self, around: Circumstances, task: int) -> Mapping[str, Any]:
        if self.codes[task] == TaskState.RUNNING:
            _, worker = around.holder(task)
            reason = "is being run"
            if worker is not None and worker.task == task:
                reason = f"is running for {duration(around.now - (worker.task_since or around.now))}"
                reason += f" on {shown(worker.host)}, process {worker.pid}"
        else:
            found = around.obstacles(task)
            reason = found[0].text if found else "is about to start"
        state = TaskState(self.codes[task]).name.lower()
        return {"task": self.structure.task_id(task), "state": state, "reason": reason.removeprefix("it ")}

    def _circumstances(self) -> Circumstances:
        store, run_id = self._store, self.run.run_id
        runs = [run for run in store.runs() if not run.phase.is_over and run.run_id != run_id]

        def charges(tasks: Sequence[int]) -> Mapping[int, Charge]:
            return {view.task: view.charge for view in store.tasks(run_id, tasks)}

        return Circumstances(
            self.run,
            self.codes,
            self.structure,
            store.flights(run_id),
            store.workers(),
            store.scheduler(),
            sum(run.phase is RunPhase.ACTIVE and not run.paused for run in runs),
            store.now(),
            self._settings,
            charges,
            lambda name: _held_by_runs(self._client, runs, name),
        )

    def _had_to_run(self) -> str | None:
        return FORCED if is_forced(self.run.key) else self.structure.reason(self.task)

    def _history(self) -> list[str]:
        """Say why a task was dispatched more than once."""
        charge, attempt = self.view.charge, self.view.attempt
        if attempt < 2:
            return []
        parts = []
        failures = charge.failures + (self.view.state is TaskState.FAILED)  # the last one is in no charge
        if failures:
            parts.append(f"{failures} attempt{'' if failures == 1 else 's'} failed")
        if charge.losses:
            parts.append(f"its worker was lost {charge.losses} time{'' if charge.losses == 1 else 's'} in a row")
        others = attempt - failures - charge.losses - (self.view.state in _HANDED_OUT)
        if others > 0:
            uncounted = f"{others} do{'es' if others == 1 else ''} not count any more: " if parts else ""
            parts.append(f"{uncounted}a worker gave it back or was lost, or a person had it run again")
        return [f"it was handed out {attempt} times: {' and '.join(parts)}"]

    def _where(self) -> str:
        facts = task_facts(self._client, self.run, self.task_id)
        host = f" on {shown(str(facts['host']))}" if facts["host"] else ""
        seconds = facts["seconds"]
        took = "" if seconds is None else f" in {duration(seconds)}"
        return f"{host}{took} and succeeded"

    def _error(self, task: int, view: TaskView) -> str:
        failed = failed_task(self._client.deployment, self.run, view, self.structure.task_id(task))
        first = (without_last_output(failed.message).splitlines() or [""])[0]
        place = place_of(failed.traceback)
        what = f"{failed.type_name}: {first}" if first else failed.type_name
        return shown(f"{what} ({place})" if place else what)

    def _way_from(self, cause: int) -> list[str]:
        """Return the ids on a shortest way from a failed task to this one."""
        came_from: dict[int, int] = {}
        layer = [self.task]
        while layer and cause not in came_from:
            above: list[int] = []
            for task in layer:
                for dependency in self.structure.dependencies(task):
                    if dependency not in came_from:
                        came_from[dependency] = task
                        above.append(dependency)
            layer = above
        way = [cause]
        while way[-1] in came_from and way[-1] != self.task:
            way.append(came_from[way[-1]])
        return [shown(self.structure.task_id(task)) for task in way]


def _held_by_runs(client: Client, runs: Sequence[RunRecord], name: str) -> dict[str, float]:
    """Return how much of a resource the batches in flight of each of these runs hold; a run that has ended or cannot
    be read is taken for one that holds none."""
    held = {}
    for run in runs:
        with suppress(UnknownRun, UnreadableRun):
            flights = client.deployment.store.flights(run.run_id)
            structure = client.structure(run.run_id) if flights else None
            held[run.run_id] = sum(held_by(structure, flight, name) for flight in flights) if structure else 0.0
    return {run_id: amount for run_id, amount in held.items() if amount}
