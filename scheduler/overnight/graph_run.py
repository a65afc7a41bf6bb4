"""One run of a graph in the driver: the core's decisions, in terms of tasks (BEHAVIOUR Y, O, G11).

Tasks get their index in the core in the order in which they join the run; `joining` says which may.

The run turns room into launches (`launches`), outcomes into pairs to be yielded (`record`), and knows when it is over,
when it must wait for a backoff, and what blocks it. Retries, limits and priorities are the core's alone.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from overnight.core.actions import Action, Dispatch, Ended, WakeAt
from overnight.core.events import (
    DEFAULT_RULES,
    BatchClaimed,
    BatchLost,
    NewTask,
    Offer,
    SlotsOffered,
    TaskFailed,
    TaskRules,
    TasksAdded,
    TaskSucceeded,
    Woken,
)
from overnight.core.run_state import RunState
from overnight.core.states import TaskState
from overnight.errors import HOPELESS, OvernightError, TaskDied
from overnight.graph import (
    DEFAULT_OPTIONS,
    Task,
    TaskDesc,
    TaskGraph,
    TaskNode,
    TaskOptions,
    resolve_arguments,
)
from overnight.invoke import Outcome
from overnight.joining import Joining
from overnight.journal import Journal, Settled


@dataclass(slots=True, eq=False)  # a frozen one takes five times as long to make
class Launch:
    """One attempt to be started. `args` and `kwargs` hold results, or their `StandIn`s, where `desc`, the
    task as declared, holds Tasks."""

    index: int
    batch: str
    attempt: int
    desc: TaskDesc
    args: list[Any]
    kwargs: dict[str, Any]

    @property
    def task(self) -> Task:
        """The task."""
        return self.desc.task


#: How a launch ended; None means that it was lost with its worker, through no fault of its own (O7).
Finished = tuple[Launch, Outcome | None]


class GraphRun:
    """The run of a graph from its first task to its last."""

    def __init__(self, graph: TaskGraph, journal: Journal, resource_limits: Mapping[str, float] | None = None) -> None:
        self._graph = graph
        self._journal = journal
        self._core = RunState(resource_limits=resource_limits)
        self._tasks: list[Task] = []
        self._indices: dict[Task, int] = {}
        self._joining = Joining(graph, journal)
        self._flying: dict[int, Launch] = {}
        self._batches = count()
        self._unfinished = 0
        self._wake_at: float | None = None
        self._rules: dict[TaskOptions, TaskRules] = {DEFAULT_OPTIONS: DEFAULT_RULES}

    # Joining.

    def take_additions(self) -> None:
        """Let tasks join that were added since the last call. Raises CyclicGraph, or InvalidTask above a limit."""
        with self._graph as nodes:
            self._join(self._joining.take(self._indices), nodes)

    def _join(self, tasks: Sequence[Task], nodes: Mapping[Task, TaskNode]) -> None:
        if not tasks:
            return
        first = len(self._tasks)
        self._indices.update(zip(tasks, range(first, first + len(tasks)), strict=True))
        self._tasks.extend(tasks)
        self._unfinished += len(tasks)
        new = [self._new_task(nodes[task]) for task in tasks]
        done = {dep for task in tasks for dep in nodes[task].remaining if self._journal.is_done(dep)}
        self._graph.mark_completed(done)
        self._perform(self._core.handle(TasksAdded(first, new)))

    def _new_task(self, node: TaskNode) -> NewTask:
        indices = self._indices
        deps = [indices[dep] for dep in node.remaining if dep in indices]
        return NewTask(deps, self._rules_of(node.options))

    def _rules_of(self, options: TaskOptions) -> TaskRules:
        rules = self._rules.get(options)
        if rules is None:
            rules = TaskRules(
                retries=options.retries,
                retry_delay=options.retry_delay,
                priority=options.priority,
                resources=options.resources,
            )
            self._rules[options] = rules
        return rules

    # Running.

    @property
    def in_flight(self) -> int:
        """How many launches have not been recorded."""
        return len(self._flying)

    @property
    def is_over(self) -> bool:
        """True once every task has ended."""
        return not self._unfinished and not self._joining.outside

    def seconds_to_wait(self) -> float | None:
        """Return the seconds until a backoff ends; None if none is under way."""
        return None if self._wake_at is None else max(0.0, self._wake_at - time.monotonic())

    def launches(self, room: int) -> Iterator[Launch | Finished]:
        """Yield up to `room` attempts to be started now; one whose arguments are missing comes as finished."""
        now = self._wake()
        if room <= 0:
            return
        offers = [Offer(str(next(self._batches))) for _ in range(min(room, self._unfinished - len(self._flying)))]
        for dispatch in self._perform(self._core.handle(SlotsOffered(now, offers))):
            self._core.handle(BatchClaimed(dispatch.batch))
            yield self._launch(dispatch)

    def _wake(self) -> float:
        """End the backoffs whose time has come; return the time."""
        now = time.monotonic()
        if self._wake_at is not None and now >= self._wake_at:
            self._wake_at = None
            self._perform(self._core.handle(Woken(now)))
        return now

    def _launch(self, dispatch: Dispatch) -> Launch | Finished:
        index = dispatch.tasks[0]
        desc, held = self._graph.get_declared(self._tasks[index])
        launch = Launch(index, dispatch.batch, dispatch.attempts[0], desc, desc.args, desc.kwargs)
        self._flying[index] = launch
        try:
            launch.args, launch.kwargs = resolve_arguments(desc, self._journal.arguments_for(held))
        except OvernightError as error:
            return launch, Outcome(ok=False, value=error, started=time.time(), seconds=0.0)
        return launch

    def record(self, finished: Sequence[Finished]) -> list[tuple[Task, Any]]:
        """Take in launches that ended together; return the pairs of those tasks that thereby finished."""
        settled = [last for launch, outcome in finished if (last := self._judged(launch, outcome)) is not None]
        return self._journal.settle(settled) if settled else []

    def _judged(self, launch: Launch, outcome: Outcome | None) -> Settled | None:
        """Tell the core how a launch ended; return the task if that was its last attempt."""
        del self._flying[launch.index]
        actions = self._core.handle(_event(launch, outcome))
        self._perform(actions)
        for action in actions:
            if isinstance(action, Ended) and action.task == launch.index:
                last = outcome or _lost_too_often(launch)
                return Settled(launch.desc, launch.attempt, last, last.load)
        return None

    def _perform(self, actions: Sequence[Action]) -> list[Dispatch]:
        """Take note of what the core decided; return the batches to start."""
        dispatches = []
        for action in actions:
            if isinstance(action, Dispatch):
                dispatches.append(action)
            elif isinstance(action, Ended):
                self._unfinished -= 1
                if action.state is TaskState.SKIPPED and action.cause is not None:
                    self._journal.blame.setdefault(self._tasks[action.task], self._tasks[action.cause])
            elif isinstance(action, WakeAt):
                self._wake_at = action.time
        return dispatches

    def refuse_if_blocked(self) -> None:
        """Raise BlockedTasks if nothing runs, nothing is ready, nothing waits for a time, and tasks are left (Y3)."""
        if self.in_flight or self._wake_at is not None or self.is_over:
            return
        raise self._joining.blocked()


def _event(launch: Launch, outcome: Outcome | None) -> TaskSucceeded | TaskFailed | BatchLost:
    if outcome is None:
        return BatchLost(launch.batch, time.monotonic())
    if outcome.ok:
        return TaskSucceeded(launch.index, outcome.seconds)
    return TaskFailed(
        launch.index,
        launch.batch,
        time.monotonic(),
        hopeless=isinstance(outcome.value, HOPELESS),
        jitter=random.uniform(0.5, 1.5),  # noqa: S311 - spreads retries, guards nothing
    )


def _lost_too_often(launch: Launch) -> Outcome:
    error = TaskDied(f"Task {launch.task.task_id!r} lost its worker too often in a row.")
    return Outcome(ok=False, value=error, started=time.time(), seconds=0.0)
