"""Which ready tasks fill an offer.

The lane whose head is first in order, and whose resources are free, gives the batch. Tasks of known short duration
share it: first ready ones, up to a fair share for the offers of the event, then those that wait only for tasks of
this batch, so that a chain of short tasks is one batch. A path that decides when the run ends (`paths`) is followed by
itself, and for longer. An offer costs the number of lanes, the tasks it takes and a
bounded number of their edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from overnight.core.actions import Dispatch
from overnight.core.batching import Room, fair_share
from overnight.core.events import Offer, SlotsOffered
from overnight.core.flights import Batch
from overnight.core.lifecycle import Lifecycle
from overnight.core.readiness import NOBODY
from overnight.core.tasks import PENDING, QUEUED

# How many edges are looked at for each task that an offer may hold, in the search for tasks that can follow.
_EDGES_PER_TASK: Final = 4


def fill_offers(life: Lifecycle, event: SlotsOffered) -> None:
    """Dispatch as many batches as there are offers and ready tasks. An offer whose batch is in flight is void."""
    life.wake(event.now)
    if life.paused or life.stopping:
        return
    if life.paths is not None and life.paths.refresh(event.now):
        life.readiness.reorder()
    life.limits.ceilings = event.ceilings or {}
    left = len(event.offers)
    for offer in event.offers:
        if life.flights.get(offer.batch) is None:
            lane = _choose_lane(life, offer.queue)
            if lane is not None:
                is_critical = _is_critical(life, offer, lane)
                tasks = _collect(life, offer, lane, left, is_critical=is_critical)
                _launch(life, offer, lane, tasks, is_critical=is_critical)
        left -= 1


def _choose_lane(life: Lifecycle, queue: str | None) -> int | None:
    """Return the lane whose head comes first among those whose resources are free."""
    open_lanes = life.readiness.open_to(queue)
    lanes, limits = life.rulebook.lanes, life.limits
    if limits.bound_any:
        open_lanes = [lane for lane in open_lanes if limits.fits(lanes[lane][1])]
    if len(open_lanes) > 1:
        return min(open_lanes, key=life.readiness.rank)
    return open_lanes[0] if open_lanes else None


def _is_critical(life: Lifecycle, offer: Offer, lane: int) -> bool:
    return life.paths is not None and life.paths.is_critical(life.readiness.head(lane), offer.workers)


def _collect(life: Lifecycle, offer: Offer, lane: int, offers: int, *, is_critical: bool) -> Sequence[int]:
    """Return the tasks of a batch, in dependency order; those that were ready are taken from their lane."""
    readiness = life.readiness
    first = readiness.head(lane)
    if offer.most_tasks <= 1:
        readiness.take(lane, first)
        return (first,)
    share = offer.most_ready or fair_share(readiness.lanes[lane].count, offers)
    readiness.take(lane, first)
    room = Room(offer.most_tasks, offer.seconds, offer.least_seconds)
    tasks = [first]
    if is_critical and _follow(life, tasks, lane, Room(offer.most_tasks, offer.chain_seconds)):
        return tasks
    if not room.seat(_cost(life, first)):
        return tasks
    while len(tasks) < share or room.holds_little:
        task = readiness.head(lane)
        if task == NOBODY or not room.seat(_cost(life, task)):
            break
        readiness.take(lane, task)
        tasks.append(task)
    _append_followers(life, tasks, lane, room)
    return tasks


def _follow(life: Lifecycle, tasks: list[int], lane: int, room: Room) -> bool:
    """Append to the one task of a batch what follows on its longest way, as far as it waits for nothing else.

    Tell whether there is any. What is on one way runs one after the other anyway: in one batch it never waits behind
    other work in between.
    """
    if not room.seat(_cost(life, tasks[0])):
        return False
    ranks, waiting = life.rulebook.ranks, life.readiness.waiting
    while room.tasks:
        last = tasks[-1]
        following = life.edges.dependants(last, _EDGES_PER_TASK)
        free = [task for task in following if waiting[task] == following.count(task) and _may_follow(life, task, lane)]
        farthest = max(free, key=ranks.__getitem__, default=NOBODY)
        if farthest == NOBODY or not room.seat(_cost(life, farthest)):
            break
        tasks.append(farthest)
    return len(tasks) > 1


def _append_followers(life: Lifecycle, tasks: list[int], lane: int, room: Room) -> None:
    """Append tasks that wait for nothing but tasks of the batch before them."""
    waiting = life.readiness.waiting
    needs: dict[int, int] = {}
    edges_left = _EDGES_PER_TASK * (len(tasks) + room.tasks)
    for task in tasks:  # grows while it is walked
        if room.tasks < 1 or edges_left < 1:
            return
        dependants = life.edges.dependants(task, edges_left)
        edges_left -= len(dependants)
        for dependant in dependants:
            need = needs.get(dependant, waiting[dependant]) - 1
            needs[dependant] = need
            if not need and _may_follow(life, dependant, lane) and room.seat(_cost(life, dependant)):
                tasks.append(dependant)


def _may_follow(life: Lifecycle, task: int, lane: int) -> bool:
    return (
        life.table.states[task] == PENDING
        and life.rulebook.lane(task) == lane
        and life.table.charge(task).not_before <= life.now
    )


def _cost(life: Lifecycle, task: int) -> float | None:
    """Return the expected seconds of the task, None if it must go alone."""
    if life.table.charges and life.table.charge(task).losses:
        return None
    return life.durations.expected(life.rulebook.functions[task])


def _launch(life: Lifecycle, offer: Offer, lane: int, tasks: Sequence[int], *, is_critical: bool) -> None:
    table = life.table
    for task in tasks:
        table.move(task, QUEUED)
    attempts = [table.next_attempt(task) for task in tasks]
    batch = Batch(offer.batch, offer.queue, tasks, life.rulebook.lanes[lane][1])
    life.flights.launch(batch)
    if batch.resources:
        life.limits.take(batch.resources)
    life.actions.append(Dispatch(offer.batch, offer.queue, tasks, attempts, is_critical))
