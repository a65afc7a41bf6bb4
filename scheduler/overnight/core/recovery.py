"""The stored truth of a run is taken over: at the start of a scheduler, or because core and store diverged.

Everything is derived anew from the state string, the batches in flight and the charges. What a crash left half-way
is completed: a TRIED task gets its verdict, a task below a failed one is skipped, a task in flight that no batch
holds goes back, and a skipped task whose failed ancestor is gone runs after all.

What the string does not tell, the order of the failures, is kept from before where this core has seen it; the others
count as failed later, by index.
"""

from __future__ import annotations

from overnight.core import repairs
from overnight.core.actions import Again, StopBatch
from overnight.core.events import Flight, StateRead
from overnight.core.flights import Batch
from overnight.core.lifecycle import Lifecycle
from overnight.core.limits import highest
from overnight.core.states import RunPhase
from overnight.core.tasks import FAILED, PENDING, QUEUED, RUNNING, SKIPPED, TRIED


def take_over(life: Lifecycle, event: StateRead) -> None:
    """Replace all that is known of the tasks by what was read.

    Raises:
        GraphError: the state string does not fit the tasks that were added; nothing has changed.
    """
    life.awaits_state = False
    former_failures, former_end = dict(life.table.failures), life.ended
    life.table.load(event.states, event.charges)
    _clear(life, event)
    _load_flights(life, event)
    _order_failures(life, former_failures)
    _reopen_unfounded_skips(life)
    _judge_tried(life, event)
    _put_back_orphans(life)
    _settle_pending(life)
    if life.stopping:
        life.actions.extend(StopBatch(batch.id) for batch in life.flights)
    life.ended = _same_end(life, former_end)


def _clear(life: Lifecycle, event: StateRead) -> None:
    life.readiness.clear()
    life.flights.clear()
    life.limits.clear()
    life.backoffs.clear()
    life.alarm = None
    life.now = event.now
    life.repairs = dict(event.repairs)
    life.cancelling = event.cancelling
    life.paused = event.paused
    life.count_waiting(0)


def _load_flights(life: Lifecycle, event: StateRead) -> None:
    for flight in event.flights:
        if life.flights.get(flight.batch) is None:
            _load_flight(life, flight)


def _load_flight(life: Lifecycle, flight: Flight) -> None:
    """Let the batch hold those of its tasks that are in flight. One of them that runs proves the claim."""
    states = life.table.states
    tasks = [t for t in flight.tasks if 0 <= t < len(states) and states[t] in (QUEUED, RUNNING)]
    free = [task for task in dict.fromkeys(tasks) if life.flights.holder(task) is None]
    if not free:
        return
    resources = highest(life.rulebook.rules(task).resources for task in free)
    batch = Batch(flight.batch, flight.queue, tuple(free), resources, stored=True)
    life.flights.launch(batch)
    life.limits.take(resources)
    if flight.claimed or any(states[task] == RUNNING for task in free):
        batch.claimed = True
        for task in free:
            if states[task] == QUEUED:
                life.table.move(task, RUNNING)


def _order_failures(life: Lifecycle, former: dict[int, int]) -> None:
    """Number the failed tasks, note for what each skipped one was skipped, and skip what is below them."""
    failed = [task for task in _in_state(life, FAILED) if task not in former]
    known = sorted((task for task in former if life.table.states[task] == FAILED), key=former.__getitem__)
    stops = bool(failed or (life.failing and known))
    life.failing = life.fail_fast and stops and not life.cancelling
    for task in known + failed:
        life.table.note_failure(task)
        _trace_skips(life, task)


def _trace_skips(life: Lifecycle, failed: int) -> None:
    states, causes = life.table.states, life.table.causes
    found = [failed]
    for task in found:  # grows while it is walked
        for dependant in life.edges.dependants(task):
            if states[dependant] == SKIPPED and dependant not in causes:
                causes[dependant] = failed
                found.append(dependant)


def _reopen_unfounded_skips(life: Lifecycle) -> None:
    for task in _in_state(life, SKIPPED):
        if task not in life.table.causes:
            life.reopen(task)


def _judge_tried(life: Lifecycle, event: StateRead) -> None:
    """A failure that was stored and not judged yet is not among the stored charges."""
    for task in _in_state(life, TRIED):
        repairs.judge(life, task, event.lacking.get(task))


def _put_back_orphans(life: Lifecycle) -> None:
    for state in (QUEUED, RUNNING):
        for task in _in_state(life, state):
            if life.flights.holder(task) is None:
                if not life.stopping:
                    life.actions.append(Again(task, life.table.charge(task)))
                life.put_back(task)


def _settle_pending(life: Lifecycle) -> None:
    life.spread()
    for task in _in_state(life, PENDING):
        if life.table.states[task] == PENDING and not life.readiness.marks[task]:
            life.settle(task)


def _in_state(life: Lifecycle, state: int) -> list[int]:
    """Return the tasks in this state, by index."""
    states, found = life.table.states, []
    task = states.find(state)
    while task >= 0:
        found.append(task)
        task = states.find(state, task + 1)
    return found


def _same_end(life: Lifecycle, former: RunPhase | None) -> RunPhase | None:
    """An end that was announced before, and still stands, is not announced again."""
    return former if former is not None and not life.table.live and former is life.verdict() else None
