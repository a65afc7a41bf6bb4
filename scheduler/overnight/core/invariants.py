"""What must hold after every event, checked against nothing but the state itself. O(tasks + edges); for tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from overnight.core.lifecycle import Lifecycle
from overnight.core.limits import highest
from overnight.core.readiness import BACKING_OFF, LISTED, READY
from overnight.core.run_state import RunState
from overnight.core.states import TaskState
from overnight.core.tasks import CANCELLED, FAILED, HAS_RESULT, IS_DEAD, PENDING, QUEUED, RUNNING, SKIPPED
from overnight.errors import InvariantBroken


def check(state: RunState) -> None:
    """Verify everything that can be derived a second way.

    Raises:
        InvariantBroken: with all that was found, one line each.
    """
    faults = [fault for examine in _EXAMINATIONS for fault in examine(state.life)]
    if faults:
        raise InvariantBroken("\n".join(faults[:20]))


def _counts(life: Lifecycle) -> Iterator[str]:
    states = life.table.states
    if len({len(life.table), len(life.edges), len(life.table.attempts), len(life.readiness.waiting)}) > 1:
        yield "the tables differ in length"
    for member in TaskState:
        if life.table.counts[member] != states.count(member):
            yield f"{member.name} is counted as {life.table.counts[member]}, not {states.count(member)}"
    if life.table.counts[TaskState.TRIED]:
        yield "a task is left without a verdict"


def _dependencies(life: Lifecycle) -> Iterator[str]:
    states = life.table.states
    for task in range(len(states)):
        dependencies = life.edges.dependencies(task)
        unfinished = sum(not HAS_RESULT[states[dependency]] for dependency in dependencies)
        if life.readiness.waiting[task] != unfinished:
            yield f"task {task} waits for {life.readiness.waiting[task]} dependencies, not {unfinished}"
        if states[task] == PENDING and any(IS_DEAD[states[dependency]] for dependency in dependencies):
            yield f"task {task} is PENDING below a task that died"


def _edges(life: Lifecycle) -> Iterator[str]:
    forward: list[list[int]] = [[] for _ in range(len(life.edges))]
    for task in range(len(life.edges)):
        for dependency in life.edges.dependencies(task):
            forward[dependency].append(task)
    for task, dependants in enumerate(forward):
        if list(life.edges.dependants(task)) != dependants:
            yield f"the dependants of task {task} are not those that name it"


def _marks(life: Lifecycle) -> Iterator[str]:
    marks, waiting, states = life.readiness.marks, life.readiness.waiting, life.table.states
    for task, mark in enumerate(marks):
        ready, backing_off = bool(mark & READY), bool(mark & BACKING_OFF)
        if ready and (states[task] != PENDING or waiting[task] or backing_off):
            yield f"task {task} is ready and must not be"
        if backing_off and states[task] != PENDING:
            yield f"task {task} backs off and is not PENDING"
        if states[task] == PENDING and not (ready or backing_off or waiting[task]):
            yield f"task {task} is forgotten: PENDING, waits for nothing, not ready"
        if ready and not mark & LISTED:
            yield f"task {task} is ready and in no lane"


def _lanes(life: Lifecycle) -> Iterator[str]:
    marks = life.readiness.marks
    listed: Counter[int] = Counter()
    for number, lane in enumerate(life.readiness.lanes):
        entries = list(lane.entries())
        listed.update(entries)
        if lane.count != sum(bool(marks[task] & READY) for task in entries):
            yield f"lane {number} counts {lane.count} ready tasks wrongly"
        if any(life.rulebook.lane(task) != number for task in entries):
            yield f"lane {number} holds a task of another lane"
    if listed != Counter(task for task, mark in enumerate(marks) if mark & LISTED):
        yield "the lanes hold other tasks than are marked as listed"


def _backoffs(life: Lifecycle) -> Iterator[str]:
    standing = {task for time, task in life.backoffs.entries() if life.is_backing_off(task, time)}
    if standing != {task for task, mark in enumerate(life.readiness.marks) if mark & BACKING_OFF}:
        yield "a task backs off without a time to wake it"
    first = life.backoffs.first()
    if first is not None and (life.alarm is None or not life.now < life.alarm <= first[0]):
        yield f"a backoff ends at {first[0]} and the alarm is set to {life.alarm}"


def _flights(life: Lifecycle) -> Iterator[str]:
    states, holding = life.table.states, set(life.flights.held_tasks())
    if holding != {task for task, code in enumerate(states) if code in (QUEUED, RUNNING)}:
        yield "the tasks in flight are not those that batches hold"
    queues: Counter[str | None] = Counter()
    for batch in life.flights:
        held = life.flights.held(batch)
        queues[batch.queue] += 1
        if not held or len(held) != batch.left:
            yield f"batch {batch.id} holds {held} and counts {batch.left}"
        if any((states[task] == RUNNING) != batch.claimed for task in held):
            yield f"the tasks of batch {batch.id} do not agree with its claim"
    for queue, number in queues.items():
        if queue is not None and life.flights.outstanding(queue) != number:
            yield f"queue {queue} has {number} batches in flight, not {life.flights.outstanding(queue)}"


def _resources(life: Lifecycle) -> Iterator[str]:
    used: Counter[str] = Counter()
    excused: set[str] = set()
    for batch in life.flights:
        needs = highest(life.rulebook.rules(task).resources for task in life.flights.held(batch))
        if not set(needs) <= set(batch.resources) and not batch.stored:
            yield f"batch {batch.id} holds {batch.resources} and needs {needs}"
        for name, amount in batch.resources:
            used[name] += amount  # type: ignore[assignment]  # a Counter of floats
            excused.update({name} if batch.stored else ())
    for name, limit in life.limits.limits.items():
        if abs(life.limits.held(name) - used[name]) > 1e-6:
            yield f"{life.limits.held(name)} of {name} is counted as held, not {used[name]}"
        if used[name] > limit * (1 + 1e-9) and name not in excused:
            yield f"{used[name]} of {name} is in use, and the limit is {limit}"


def _causes(life: Lifecycle) -> Iterator[str]:
    states = life.table.states
    if set(life.table.causes) != {task for task, code in enumerate(states) if code == SKIPPED}:
        yield "the tasks with a cause are not those that are SKIPPED"
    if set(life.table.failures) != {task for task, code in enumerate(states) if code == FAILED}:
        yield "the tasks with a place among the failures are not those that FAILED"
    for task, cause in life.table.causes.items():
        if states[cause] != FAILED:
            yield f"task {task} is SKIPPED for task {cause}, which has not failed"


def _phase(life: Lifecycle) -> Iterator[str]:
    if life.stopping and life.table.counts[PENDING]:
        yield "tasks are PENDING in a run that is being stopped"
    if (life.ended is not None) != ((life.begun or life.cancelling) and not life.table.live):
        yield f"the run has ended as {life.ended} with {life.table.live} tasks left"
    if life.ended is not None and life.ended is not life.verdict() and not life.table.counts[CANCELLED]:
        yield f"the run has ended as {life.ended}, not as {life.verdict()}"


_EXAMINATIONS = (
    _counts,
    _dependencies,
    _edges,
    _marks,
    _lanes,
    _backoffs,
    _flights,
    _resources,
    _causes,
    _phase,
)
