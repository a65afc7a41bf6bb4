"""What keeps the tasks of an active run from running, judged from all that can be read of the run and its surroundings.

The scheduler decides; this explains. It is given one reading of the run's state, its batches, the workers and the
scheduler, and changes nothing. What it says of one instant may be over at the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from overnight.commands.screen import duration, moment
from overnight.config import Settings
from overnight.core.events import Charge, Flight
from overnight.core.limits import Limits, highest
from overnight.core.states import SUCCEEDED, RunPhase, TaskState
from overnight.hints import hint
from overnight.naming import shown
from overnight.shared_limits import excess_text, told_limits
from overnight.store.records import EpochHeld, RunRecord, WorkerRecord
from overnight.structure import Structure
from overnight.worker_watch import lack_of_workers

MOST_NAMED = 5
_HAS_RESULT = frozenset(int(state) for state in SUCCEEDED)
_WAITING = (TaskState.PENDING, TaskState.QUEUED, TaskState.TRIED, TaskState.RUNNING)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One thing that a task waits for: its kind, for programs, a sentence, and the tasks that it names."""

    kind: str
    text: str
    tasks: Sequence[int] = ()


@dataclass(frozen=True)
class Circumstances:
    """One reading of a run and its surroundings. `charges` gives those of some tasks; `now` is the server's clock."""

    run: RunRecord
    codes: bytes
    structure: Structure
    flights: Sequence[Flight]
    workers: Sequence[WorkerRecord]
    scheduler: EpochHeld | None
    other_runs: int
    now: float
    settings: Settings
    charges: Callable[[Sequence[int]], Mapping[int, Charge]]
    elsewhere: Callable[[str], Mapping[str, float]] = lambda _name: {}
    """How much of a resource each of the other runs holds, by the id of the run; those that hold none are left out."""

    def obstacles(self, task: int) -> list[Obstacle]:
        """Return what a task waits for that is not running; what weighs most comes first."""
        found = list(self._of_the_run())
        state = TaskState(self.codes[task])
        if state is TaskState.PENDING:
            found += self._of_pending(task)
        elif state is TaskState.QUEUED:
            found += self._of_queued(task)
        elif state is TaskState.TRIED:
            found.append(Obstacle("judging", "its last attempt failed; the scheduler is about to decide on a retry"))
        return found

    def _of_the_run(self) -> Iterator[Obstacle]:
        run = self.run
        if run.phase is RunPhase.CANCELLING:
            yield Obstacle("cancelling", "the run is being cancelled")
        if run.note and not self._is_of_excess(run.note):
            yield Obstacle("left_alone", f"its scheduler says of the run: {shown(run.note)}")
        if run.paused:
            resume = hint(self.settings, "resume", run.run_id)
            yield Obstacle("paused", f"the run is paused. This lets it go on: {resume}")
        if self.scheduler is None:
            start = hint(self.settings, "scheduler")
            yield Obstacle("no_scheduler", f"no scheduler serves this server. Start one with: {start}")

    def _of_pending(self, task: int) -> Iterator[Obstacle]:
        open_dependencies = [one for one in self.structure.dependencies(task) if self.codes[one] not in _HAS_RESULT]
        if open_dependencies:
            yield self._dependencies(task, open_dependencies)
        charge = self.charges([task]).get(task, Charge())
        if charge.not_before > self.now:
            left, at = duration(charge.not_before - self.now), moment(charge.not_before)
            text = f"it failed {_times(charge.failures)} and is tried again at {at}, in {left}"
            yield Obstacle("backing_off", text)
        if open_dependencies:
            return
        limits = [*self._limits(task), *self._shared_limits(task)]
        yield from limits
        lack = self._lack(task)
        if lack is not None:
            yield lack
        elif charge.not_before <= self.now and not limits:
            yield self._turn(task)

    def _dependencies(self, task: int, open_dependencies: Sequence[int]) -> Obstacle:
        number = len(self.structure.dependencies(task))
        of = f"{len(open_dependencies)} of its {number} dependencies" if number > 1 else "its dependency"
        return Obstacle("dependencies", f"it waits for {of}: {self.named(open_dependencies)}", open_dependencies)

    def _limits(self, task: int) -> Iterator[Obstacle]:
        limits = Limits(self.run.resource_limits)
        if not limits.limits:
            return
        held: dict[str, list[int]] = {}
        for flight in self.flights:
            demand = highest(self.structure.rules(one).resources for one in flight.tasks)
            limits.take(demand)
            for name, _ in demand:
                held.setdefault(name, []).extend(flight.tasks)
        for name, amount in self.structure.rules(task).resources:
            if not limits.fits(((name, amount),)):
                text = (
                    f"it needs {amount:g} of {shown(name)}, of which {limits.held(name):g} of {limits.limits[name]:g} "
                    f"are in use by {self.named(held[name])}"
                )
                yield Obstacle("limit", text, held[name])

    @cached_property
    def _shared(self) -> Mapping[str, float] | None:
        """The limits over all runs; None if the scheduler does not say."""
        return None if self.scheduler is None else told_limits(self.scheduler.description)

    def _is_of_excess(self, note: str) -> bool:
        """Tell whether a note is about a task that needs more than there is for all runs: the others go on."""
        for name, limit in (self._shared or {}).items():
            amount, task_id = self.structure.neediest(name)
            if amount > limit and note == excess_text(task_id, amount, name, limit):
                return True
        return False

    def _shared_limits(self, task: int) -> Iterator[Obstacle]:
        """Yield what a task needs of which all runs together have no more."""
        for name, amount in self.structure.rules(task).resources:
            limit = (self._shared or {}).get(name)
            if limit is None:
                continue
            what = f"it needs {amount:g} of {shown(name)}, of which "
            if amount > limit:
                raised = "cancel the run, or start the scheduler with a higher --limit"
                yield Obstacle(
                    "limit", f"{what}its scheduler has only {limit:g} for all runs: it never starts; {raised}"
                )
                continue
            own = [flight for flight in self.flights if self._needs_of(flight, name)]
            held = Limits({name: limit})
            for amounts in ([self._needs_of(flight, name) for flight in own], self.elsewhere(name).values()):
                for number in amounts:
                    held.take(((name, number),))
            if not held.fits(((name, amount),)):
                tasks = [one for flight in own for one in flight.tasks]
                holders = [self.named(tasks)] if tasks else []
                holders += [f"run {run_id}" for run_id in self.elsewhere(name)]
                in_use = f"{held.held(name):g} of {limit:g} for all runs are in use by {' and '.join(holders)}"
                yield Obstacle("limit", what + in_use, tasks)

    def _needs_of(self, flight: Flight, name: str) -> float:
        return held_by(self.structure, flight, name)

    def queue(self, task: int) -> str:
        """Return the queue of a task."""
        return self.structure.rules(task).queue or self.run.queue

    def _lack(self, task: int) -> Obstacle | None:
        lack = lack_of_workers(self.workers, self.run.run_id, self.queue(task), self.settings, self.run.python)
        return None if lack is None else Obstacle("no_worker", lack[0].lower() + lack[1:].rstrip("."))

    def _turn(self, task: int) -> Obstacle:
        """Say of a ready task which others come before it."""
        queue = self.queue(task)
        before = sum(self._rank(one) < self._rank(task) for one in self._ready if self.queue(one) == queue)
        first = f"{before} other{'' if before == 1 else 's'} of the run {_is(before)} before it"
        text = f"it is ready, and {first if before else 'comes next'}; {self._busy(queue)}"
        return Obstacle("ready", text + self._beside() + self._bounded(task))

    def _bounded(self, task: int) -> str:
        """Say what of a ready task a scheduler may limit over all runs that does not tell its limits."""
        if self._shared is not None:
            return ""
        needs = [f"{amount:g} of {shown(name)}" for name, amount in self.structure.rules(task).resources]
        return f"; it needs {', '.join(needs)}, which the scheduler may limit over all runs" if needs else ""

    def _rank(self, task: int) -> tuple[int, int]:
        return (-self.structure.rules(task).priority, task)

    @cached_property
    def _ready(self) -> list[int]:
        """The pending tasks whose dependencies all have results."""
        pending = [task for task, code in enumerate(self.codes) if code == TaskState.PENDING]
        return [
            task for task in pending if all(self.codes[one] in _HAS_RESULT for one in self.structure.dependencies(task))
        ]

    def _of_queued(self, task: int) -> Iterator[Obstacle]:
        lack = self._lack(task)
        if lack is not None:
            yield lack
            return
        queue = self.queue(task)
        text = f"it is on queue {shown(queue)} and no worker has taken it yet; {self._busy(queue)}"
        yield Obstacle("queued", text + self._beside())

    def _busy(self, queue: str) -> str:
        """Say how many workers serve a queue, and how many of them are known to be busy.

        What a worker does, it says every few seconds; which batches of this run are held is known at once.
        """
        serving = [worker for worker in self.workers if queue in worker.queues]
        held = sum(flight.claimed and flight.queue == queue for flight in self.flights)
        busy = min(len(serving), max(held, sum(worker.batch is not None for worker in serving)))
        one = len(serving) == 1
        return f"{busy} of the {len(serving)} worker{'' if one else 's'} of queue {shown(queue)} {_is(busy)} busy"

    def _beside(self) -> str:
        others = self.other_runs
        return f"; {others} other run{'' if others == 1 else 's'} {_is(others)} active on this server" if others else ""

    def frontier(self, task: int) -> list[int]:
        """Return what a task waits for in the end: unfinished ancestors that wait for no other task."""
        ends, seen, stack = [], {task}, [task]
        while stack:
            current = stack.pop()
            waits = [one for one in self.structure.dependencies(current) if self.codes[one] not in _HAS_RESULT]
            if not waits and current != task:
                ends.append(current)
            for one in waits:
                if one not in seen:
                    seen.add(one)
                    stack.append(one)
        order = {state: place for place, state in enumerate(reversed(_WAITING))}
        return sorted(ends, key=lambda one: (order.get(TaskState(self.codes[one]), -1), one))

    def holder(self, task: int) -> tuple[Flight | None, WorkerRecord | None]:
        """Return the batch in which a task is in flight, and the worker that holds it, as far as it is known."""
        flight = next((flight for flight in self.flights if task in flight.tasks), None)
        if flight is None:
            return None, None
        return flight, next((worker for worker in self.workers if worker.batch == flight.batch), None)

    def named(self, tasks: Sequence[int]) -> str:
        """Return the ids of the first few tasks, and how many more there are."""
        names = ", ".join(shown(self.structure.task_id(task)) for task in tasks[:MOST_NAMED])
        return f"{names} and {len(tasks) - MOST_NAMED} more" if len(tasks) > MOST_NAMED else names


def held_by(structure: Structure, flight: Flight, name: str) -> float:
    """Return how much of a resource a batch holds, 0 if none of its tasks needs it."""
    return dict(highest(structure.rules(one).resources for one in flight.tasks)).get(name, 0.0)


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")
