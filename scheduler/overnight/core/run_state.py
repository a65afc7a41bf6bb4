"""The state machine of one run: events in, actions out.

`RunState.handle` is a pure function of the events so far. Every executor and the scheduler drive this one machine,
so each rule (retry, skip, priority, limit) exists once. Events may come late, twice, in another order or not at
all: what no longer fits is ignored, and what was lost is made good by a `StateRead`.

The steps are in `lifecycle`; which task goes into which batch is decided in `dispatching`; `reopening`, `repairs` and
`recovery` hold what changes many tasks at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from overnight.core import dispatching, recovery, reopening, repairs
from overnight.core.actions import Action
from overnight.core.batching import Durations
from overnight.core.events import (
    BatchClaimed,
    BatchLost,
    BatchReturned,
    CancelRequested,
    Charge,
    Event,
    PauseRequested,
    ResumeRequested,
    RetryRequested,
    SlotsOffered,
    StateRead,
    TaskFailed,
    TasksAdded,
    TasksAdopted,
    TasksInvalidated,
    TaskSucceeded,
    Woken,
)
from overnight.core.flights import Batch
from overnight.core.lifecycle import Lifecycle
from overnight.core.retry import after_loss, after_return, is_poison
from overnight.core.states import RunPhase, TaskState
from overnight.core.tasks import CACHED, DONE, FAILED, IS_TERMINAL, PENDING, TRIED
from overnight.errors import GraphError


class RunState:
    """The state of one run; `len()` is the number of its tasks.

    With `fail_fast` the first FAILED task stops the run like a cancel, and the run ends as FAILED.
    `resource_limits` bounds what the tasks in flight hold of each named resource. With `by_paths` the longest remaining
    path starts first among tasks of one priority; without, what was added first. With `awaits_state` a `StateRead`
    comes before the first offer, and decides on all that was added before it.
    """

    def __init__(
        self,
        *,
        fail_fast: bool = False,
        resource_limits: Mapping[str, float] | None = None,
        by_paths: bool = False,
        awaits_state: bool = False,
    ) -> None:
        self.life = Lifecycle(fail_fast=fail_fast, resource_limits=resource_limits or {}, by_paths=by_paths)
        self.life.awaits_state = awaits_state
        self._handlers: dict[type, Callable[[Any], None]] = {
            TaskSucceeded: self._task_succeeded,
            SlotsOffered: lambda event: dispatching.fill_offers(self.life, event),
            BatchClaimed: self._batch_claimed,
            TaskFailed: self._task_failed,
            BatchLost: self._batch_lost,
            BatchReturned: self._batch_returned,
            Woken: lambda event: self.life.wake(event.now),
            TasksAdded: self._tasks_added,
            TasksAdopted: self._tasks_adopted,
            CancelRequested: self._cancel_requested,
            PauseRequested: self._pause_requested,
            ResumeRequested: self._resume_requested,
            RetryRequested: lambda event: reopening.retry(self.life, event.tasks),
            TasksInvalidated: lambda event: reopening.invalidate(self.life, event.tasks),
            StateRead: lambda event: recovery.take_over(self.life, event),
        }

    def handle(self, event: Event) -> list[Action]:
        """Take one event into account; return what is to be done, in order.

        Raises:
            GraphError: tasks were added, or a state was read, that do not fit the run; nothing has changed.
            InvariantBroken: the core has a defect.
        """
        self._handlers[type(event)](event)
        return self.life.conclude()

    # What performers read.

    def __len__(self) -> int:
        return len(self.life.table)

    @property
    def phase(self) -> RunPhase:
        """Where the run stands."""
        if self.life.ended is not None:
            return self.life.ended
        if not self.life.begun:
            return RunPhase.SUBMITTING
        return RunPhase.CANCELLING if self.life.stopping else RunPhase.ACTIVE

    @property
    def paused(self) -> bool:
        """True while nothing is dispatched because of a `PauseRequested`."""
        return self.life.paused

    @property
    def durations(self) -> Durations:
        """What was learned of how long each function's tasks take; may be exported and loaded."""
        return self.life.durations

    def state(self, task: int) -> TaskState:
        """Return the state of the task."""
        return TaskState(self.life.table.states[task])

    def attempt(self, task: int) -> int:
        """Return how often the task was dispatched; 255 stands for that and more."""
        return self.life.table.attempts[task]

    def charge(self, task: int) -> Charge:
        """Return what the task has used up. A task with a result has nothing on record."""
        return self.life.table.charge(task)

    def cause(self, task: int) -> int | None:
        """Return the failed ancestor for which the task was skipped, None if it was not."""
        return self.life.table.causes.get(task)

    def counts(self) -> Mapping[TaskState, int]:
        """Return how many tasks are in each state."""
        return self.life.table.counts_by_state()

    def ready_count(self, queue: str | None = None) -> int:
        """Return how many tasks of this queue are ready, those that wait for a resource included; None: of all."""
        return self.life.readiness.count(queue)

    @property
    def waiting_count(self) -> int:
        """How many PENDING tasks are not ready: they wait for a dependency or back off."""
        return self.life.table.counts[PENDING] - self.ready_count()

    def running(self) -> list[int]:
        """Return the tasks of all batches that a worker holds, batch by batch."""
        return [task for batch in self.life.flights if batch.claimed for task in self.life.flights.held(batch)]

    def outstanding(self, queue: str | None = None) -> int:
        """Return how many batches that were offered for this queue are in flight; None: how many in all."""
        return self.life.flights.outstanding(queue)

    def held(self, resource: str) -> float:
        """Return how much of a resource the batches in flight hold."""
        return self.life.limits.held(resource)

    def most_needed(self, resource: str) -> float:
        """Return the most that any task needs of a resource."""
        return max(
            (amount for _, needs in self.life.rulebook.lanes for name, amount in needs if name == resource), default=0.0
        )

    def expected_seconds(self, tasks: Sequence[int], *, unknown: float) -> float:
        """Return how long the tasks are expected to take; `unknown` for each of a function that has never run."""
        functions, expected = self.life.rulebook.functions, self.life.durations.expected
        known = {function: expected(function) for function in {functions[task] for task in tasks}}
        seconds = {function: unknown if found is None else found for function, found in known.items()}
        return sum(seconds[functions[task]] for task in tasks)

    def batch(self, batch_id: str) -> Batch | None:
        """Return the batch if it is in flight. To be read only."""
        return self.life.flights.get(batch_id)

    def held_tasks(self, batch_id: str) -> list[int]:
        """Return the tasks that the batch still holds, in its order; none if it is not in flight."""
        batch = self.life.flights.get(batch_id)
        return [] if batch is None else self.life.flights.held(batch)

    def dependencies(self, task: int) -> tuple[int, ...]:
        """Return what the task depends on, in the given order."""
        return tuple(self.life.edges.dependencies(task))

    def blocked(self) -> list[int]:
        """Return the tasks that can never run: those on a cycle of dependencies and all below. O(tasks + edges)."""
        states, waiting = self.life.table.states, self.life.readiness.waiting[:]
        free = [
            task
            for task in range(len(self))
            if not IS_TERMINAL[states[task]] and (states[task] != PENDING or not waiting[task])
        ]
        movable = set(free)
        for task in free:  # grows while it is walked
            for dependant in self.life.edges.dependants(task):
                waiting[dependant] -= 1
                if not waiting[dependant] and states[dependant] == PENDING and dependant not in movable:
                    movable.add(dependant)
                    free.append(dependant)
        return [task for task in range(len(self)) if not IS_TERMINAL[states[task]] and task not in movable]

    # Events, one method each.

    def _tasks_added(self, event: TasksAdded) -> None:
        known = len(self)
        if event.first > known:
            raise GraphError(f"Tasks from {event.first} on were added to a run of {known} tasks; some are missing.")
        self.life.add(event.tasks[known - event.first :])
        self.life.begun = True

    def _tasks_adopted(self, event: TasksAdopted) -> None:
        for task in reopening.known(self.life, event.tasks):
            if self.life.table.states[task] == PENDING:
                self.life.end(task, CACHED)

    def _batch_claimed(self, event: BatchClaimed) -> None:
        batch = self.life.flights.get(event.batch)
        if batch is not None:
            self.life.claim(batch)

    def _task_succeeded(self, event: TaskSucceeded) -> None:
        life, task = self.life, event.task
        if not 0 <= task < len(life.table.states) or IS_TERMINAL[life.table.states[task]]:
            return
        if event.seconds is not None:
            life.durations.learn(life.rulebook.functions[task], event.seconds)
        if life.paths is not None:
            life.paths.spend(life.rulebook.functions[task])
        life.end(task, DONE)

    def _task_failed(self, event: TaskFailed) -> None:
        life, task = self.life, event.task
        batch = life.flights.get(event.batch)
        life.wake(event.now)
        if batch is None or life.flights.holder(task) is not batch:
            return
        life.claim(batch)
        life.table.move(task, TRIED)
        life.release(task)
        lost = event.lost or None
        repairs.judge(life, task, lost, jitter=event.jitter, hopeless=event.hopeless)

    def _batch_lost(self, event: BatchLost) -> None:
        life = self.life
        life.wake(event.now)
        batch = life.flights.get(event.batch)
        if batch is None:
            return
        suspect, *rest = life.flights.held(batch)
        self._charge_loss(suspect, begun=event.begun)
        for task in rest:
            life.put_back(task)

    def _charge_loss(self, task: int, *, begun: bool) -> None:
        life = self.life
        charge = after_loss(life.table.charge(task), begun=begun)
        if life.stopping:
            life.put_back(task)
        elif is_poison(charge):
            life.table.set_charge(task, charge)
            life.release(task)
            life.table.move(task, PENDING)
            life.end(task, FAILED, lost=True)
        else:
            life.charge(task, charge)
            life.put_back(task)

    def _batch_returned(self, event: BatchReturned) -> None:
        life = self.life
        batch = life.flights.get(event.batch)
        for task in event.tasks:
            if batch is not None and life.flights.holder(task) is batch:
                if life.table.charge(task).losses and not life.stopping:
                    life.charge(task, after_return(life.table.charge(task)))
                life.put_back(task)

    def _cancel_requested(self, _event: CancelRequested) -> None:
        if self.life.ended is None:
            self.life.cancelling = True
            self.life.halt()

    def _pause_requested(self, _event: PauseRequested) -> None:
        self.life.paused = True

    def _resume_requested(self, _event: ResumeRequested) -> None:
        self.life.paused = False
