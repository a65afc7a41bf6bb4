"""The life of a task: ready, in flight, terminal, and back. Every event is made of these steps.

`end` is the one gate through which a task becomes terminal. It settles at once what follows for the direct
dependants of a result; the tasks below one that died are ended by `spread`, level by level, so that nothing recurses
and the ancestor that failed first is the one they name (BEHAVIOUR B8).

`conclude` closes every event. After it these hold (and `invariants.check` verifies them): a PENDING task is ready,
backs off, or waits for a dependency that is not terminal; no PENDING task is left in a run that is being stopped;
no task is TRIED; `ended` is set exactly while every task is terminal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from math import inf

from overnight.core.actions import Action, Again, Ended, RunEnded, StopBatch, WakeAt
from overnight.core.batching import Durations
from overnight.core.edges import Edges
from overnight.core.events import Charge, NewTask
from overnight.core.flights import Batch, Flights
from overnight.core.limits import Limits
from overnight.core.paths import Paths
from overnight.core.readiness import BACKING_OFF, READY, Readiness
from overnight.core.retry import Backoffs
from overnight.core.rulebook import Rulebook
from overnight.core.states import RunPhase, TaskState
from overnight.core.tasks import (
    CACHED,
    CANCELLED,
    DONE,
    FAILED,
    HAS_RESULT,
    NO_CHARGE,
    PENDING,
    RUNNING,
    SKIPPED,
    TaskTable,
)

_MEMBERS = {int(state): state for state in TaskState}


class Lifecycle:
    """The parts of a run's state, and the steps that keep them in agreement. `actions` collects what is due."""

    def __init__(self, *, fail_fast: bool, resource_limits: Mapping[str, float], by_paths: bool) -> None:
        self.fail_fast = fail_fast
        self.table = TaskTable()
        self.edges = Edges()
        self.limits = Limits(resource_limits)
        self.rulebook = Rulebook(self.limits.limits)
        self.readiness = Readiness(self.rulebook)
        self.flights = Flights()
        self.backoffs = Backoffs()
        self.durations = Durations()
        self.paths = Paths(self.rulebook, self.edges, self.durations) if by_paths else None
        self.actions: list[Action] = []
        self.now = -inf
        self.alarm: float | None = None
        #: Whether a read of the stored truth is to come before anything is offered: until then no task finds its place.
        self.awaits_state = False
        self.begun = False
        #: How often the result of a task was lost and computed again for those that need it.
        self.repairs: dict[int, int] = {}
        self.paused = False
        self.cancelling = False
        self.failing = False
        self.ended: RunPhase | None = None
        self._doomed: deque[int] = deque()
        self._halt_due = False

    @property
    def stopping(self) -> bool:
        """True while nothing new may start because the run is being cancelled or fails fast."""
        return self.cancelling or self.failing

    # Tasks join.

    def add(self, tasks: Sequence[NewTask]) -> None:
        """Append tasks to the run; those whose dependency died end with it (BEHAVIOUR Y2)."""
        first = len(self.table)
        self.rulebook.extend(tasks)
        try:
            self.edges.extend([new.dependencies for new in tasks])
        except BaseException:
            self.rulebook.cut_back(first)
            raise
        self.table.add(len(tasks))
        self.readiness.add(len(tasks))
        if not self.awaits_state:
            self.count_waiting(first)
            for task in range(first, len(self.table)):
                if self.table.states[task] == PENDING:
                    self.settle(task)
        if tasks:
            self.ended = None

    def count_waiting(self, first: int) -> None:
        """Set the counters of unfinished dependencies of the tasks from `first` on."""
        states, waiting, edges = self.table.states, self.readiness.waiting, self.edges
        finished = self.table.counts[DONE] + self.table.counts[CACHED]
        for task in range(first, len(states)):
            degree = edges.degree(task)
            if degree and finished:
                degree = sum(not HAS_RESULT[states[dependency]] for dependency in edges.dependencies(task))
            waiting[task] = degree

    # A PENDING task finds its place.

    def settle(self, task: int) -> None:
        """Decide what a PENDING task does: become ready, back off, wait, or end with the run or a dependency."""
        if self.readiness.waiting[task] and self.table.dead and self._share_fate(task):
            return
        if self.cancelling or self.failing:
            self.end(task, CANCELLED)
        elif self.readiness.waiting[task]:
            return
        elif self.table.charges and self.table.charge(task).not_before > self.now:
            self._back_off(task)
        else:
            self.readiness.admit(task)

    def wake(self, now: float) -> None:
        """Take note of the time; tasks whose backoff is over become ready."""
        self.now = now
        if self.alarm is not None and self.alarm <= now:
            self.alarm = None
        while (entry := self.backoffs.first()) is not None:
            time, task = entry
            waits = self.is_backing_off(task, time)
            if waits and time > now:
                return
            self.backoffs.pop()
            if waits:
                self.readiness.withdraw(task)
                self.settle(task)

    def is_backing_off(self, task: int, time: float) -> bool:
        """Tell whether the entry (time, task) of the backoffs stands, or is void."""
        return bool(self.readiness.marks[task] & BACKING_OFF) and self.table.charge(task).not_before == time

    def _back_off(self, task: int) -> None:
        if not self.readiness.marks[task] & BACKING_OFF:
            self.readiness.back_off(task)
            self.backoffs.add(self.table.charge(task).not_before, task)

    def _share_fate(self, task: int) -> bool:
        """End a PENDING task if one of its dependencies died; of several, the one that failed first counts."""
        table = self.table
        dead = [(table.states[d], d) for d in self.edges.dependencies(task)]
        roots = [d if state == FAILED else table.causes[d] for state, d in dead if state in (FAILED, SKIPPED)]
        if roots:
            self.end(task, SKIPPED, min(roots, key=table.failures.__getitem__))
        elif any(state == CANCELLED for state, _ in dead):
            self.end(task, CANCELLED)
        return self.table.states[task] != PENDING

    # A batch lets go of a task.

    def release(self, task: int) -> None:
        """Take the task from the batch that holds it, if one does."""
        emptied = self.flights.release(task)
        if emptied is not None and emptied.resources:
            self.limits.give(emptied.resources)

    def claim(self, batch: Batch) -> None:
        """Note that a worker holds the batch."""
        if not batch.claimed:
            batch.claimed = True
            for task in self.flights.held(batch):
                self.table.move(task, RUNNING)

    def put_back(self, task: int) -> None:
        """A task in flight goes back to PENDING, and from there where it belongs."""
        self.release(task)
        self.table.move(task, PENDING)
        self.settle(task)

    def charge(self, task: int, charge: Charge) -> None:
        """Record a new charge on a task that is about to go back to PENDING."""
        self.table.set_charge(task, charge)
        self.actions.append(Again(task, charge))

    def try_again(self, task: int, charge: Charge) -> None:
        """A TRIED task goes back to PENDING with `charge`, unless the run is being stopped."""
        if self.stopping:
            self.end(task, CANCELLED)
        else:
            self.charge(task, charge)
            self.table.move(task, PENDING)
            self.settle(task)

    # A task ends.

    def end(
        self, task: int, state: int, cause: int | None = None, *, lost: bool = False, lacked: int | None = None
    ) -> None:
        """The one gate: the task becomes terminal."""
        table = self.table
        table.move(task, state)
        self.release(task)
        if self.readiness.marks[task]:
            self.readiness.withdraw(task)
        self.actions.append(Ended(task, _MEMBERS[state], cause, lost, lacked))
        if HAS_RESULT[state]:
            table.charges.pop(task, None)
            self._satisfy(task)
            return
        self._doomed.append(task)
        if cause is not None:
            table.causes[task] = cause
        if state == FAILED:
            self._note_failure(task)

    def spread(self) -> None:
        """End every PENDING task below those that died."""
        states, causes = self.table.states, self.table.causes
        while self._doomed:
            task = self._doomed.popleft()
            cause = task if states[task] == FAILED else causes.get(task)
            fate = CANCELLED if cause is None else SKIPPED
            for dependant in self.edges.dependants(task):
                if states[dependant] == PENDING:
                    self.end(dependant, fate, cause)

    def halt(self) -> None:
        """Stop the batches in flight and end every PENDING task."""
        self.actions.extend(StopBatch(batch.id) for batch in self.flights)
        states = self.table.states
        task = states.find(PENDING)
        while task >= 0:
            self.end(task, CANCELLED)
            task = states.find(PENDING, task + 1)
        self._doomed.clear()

    def _satisfy(self, task: int) -> None:
        waiting, states = self.readiness.waiting, self.table.states
        for dependant in self.edges.dependants(task):
            left = waiting[dependant] - 1
            waiting[dependant] = left
            if not left and states[dependant] == PENDING:
                self.settle(dependant)

    def _note_failure(self, task: int) -> None:
        self.table.note_failure(task)
        if self.fail_fast and not self.stopping:
            self.failing = self._halt_due = True

    # A terminal task comes back.

    def reopen(self, task: int) -> None:
        """A terminal task becomes PENDING with nothing on its record. The caller settles it when all are reopened."""
        table = self.table
        had_result = HAS_RESULT[table.states[task]]
        table.move(task, PENDING)
        table.forgive(task)
        self.ended = None
        self.actions.append(Again(task, NO_CHARGE))
        if had_result:
            self._unsatisfy(task)

    def _unsatisfy(self, task: int) -> None:
        readiness = self.readiness
        for dependant in self.edges.dependants(task):
            readiness.waiting[dependant] += 1
            if readiness.marks[dependant] & READY:
                readiness.withdraw(dependant)

    # An event is over.

    def conclude(self) -> list[Action]:
        """Close the event and hand over the actions that are due."""
        if self._doomed:
            self.spread()
        if self._halt_due:
            self._halt_due = False
            self.halt()
        if self.backoffs:
            self._set_alarm()
        if self.ended is None and (self.begun or self.cancelling) and not self.table.live:
            self.ended = self.verdict()
            self.actions.append(RunEnded(self.ended))
        actions, self.actions = self.actions, []
        return actions

    def _set_alarm(self) -> None:
        entry = self.backoffs.first()
        if entry is not None and (self.alarm is None or entry[0] < self.alarm):
            self.alarm = entry[0]
            self.actions.append(WakeAt(self.alarm))

    def verdict(self) -> RunPhase:
        """Return how a run ends whose tasks are all terminal; one without tasks ends by being cancelled alone."""
        if not self.table.dead:
            return RunPhase.SUCCEEDED if self.begun else RunPhase.CANCELLED
        return RunPhase.CANCELLED if self.cancelling and not self.failing else RunPhase.FAILED
