"""How runs share the workers of a queue: by turns, in time, by weight; and the resources that bound all together.

For each run is kept what it was served: the expected seconds of the batches that were dispatched for it, divided by its
weight. The run that was served least comes next. One that has just come, or had nothing to run, starts from where the
least served of those stands that have batches in flight: it makes up for nothing, and waits for nobody. Its first batch
goes to the front of the queue, at once, though the queue may hold as many batches as it should: it waits for no more
than a worker's batch at hand.

A resource that the scheduler limits (`overnight scheduler --limit`) is counted over all runs: a run is told, with
each offer, how much of it all others leave.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from overnight.core.actions import Action, Dispatch
from overnight.core.events import SlotsOffered
from overnight.service.active_run import ActiveRun
from overnight.service.window import BATCH_SECONDS, Window
from overnight.shared_limits import excess_text


class Turn(NamedTuple):
    """What a run is offered."""

    run: ActiveRun
    event: SlotsOffered
    is_first: bool


class Sharing:
    """The order in which runs are served. `limits` are those over all runs, by name of the resource."""

    def __init__(self, limits: Mapping[str, float]) -> None:
        self._limits = limits

    def turns(self, queue: str, workers: int, runs: Collection[ActiveRun], now: float) -> Iterator[Turn]:
        """Yield what the runs are offered on a queue; each event is to be handled before the next one is asked for."""
        here = [run for run in runs if queue in run.queues]
        window = Window(workers)
        busy = {run: run.core.outstanding(queue) for run in here}
        room = window.batches - sum(busy.values())
        if room <= -workers or (room <= 0 and all(busy.values())):
            return
        ready = {run: run.core.ready_count(queue) for run in here if run.held_until <= now and not run.is_behind}
        _level(queue, busy, ready)
        takers = [run for run, count in ready.items() if count]
        # Of runs that stand alike, one that has nothing in flight comes first.
        takers.sort(key=lambda run: bool(busy[run]))
        if room <= 0:
            for run in _newcomers(takers, busy):
                if room > -workers:
                    offers = [window.extra_offer(queue)]
                    yield Turn(run, SlotsOffered(now, offers, self._ceilings(run, runs)), is_first=True)
                    room -= run.core.outstanding(queue)
            return
        for run, number in _shared(room, takers, ready).items():
            others = any(count for other, count in busy.items() if other is not run)
            offers = window.offers(queue, number, ready[run])
            event = SlotsOffered(now, offers, self._ceilings(run, runs))
            yield Turn(run, event, is_first=others and not busy[run])

    def served(self, turn: Turn, actions: Sequence[Action]) -> list[Action]:
        """Note what a run was served; return the actions, of which the first batch may have become urgent."""
        done = list(actions)
        dispatches = [(number, action) for number, action in enumerate(done) if isinstance(action, Dispatch)]
        for _, dispatch in dispatches:
            turn.run.serve(turn.run.core.expected_seconds(dispatch.tasks, unknown=BATCH_SECONDS))
        if turn.is_first and dispatches:
            number, first = dispatches[0]
            done[number] = first._replace(urgent=True)
        return done

    def excess(self, run: ActiveRun) -> str:
        """Say which task of a run asks for more than there is for all; nothing if none does."""
        for name, limit in self._limits.items():
            most = run.core.most_needed(name)
            if most > limit:
                return excess_text(run.neediest.get(name, (0.0, ""))[1], most, name, limit)
        return ""

    def _ceilings(self, run: ActiveRun, runs: Collection[ActiveRun]) -> Mapping[str, float]:
        return {
            name: limit - sum(other.core.held(name) for other in runs if other is not run)
            for name, limit in self._limits.items()
        }


def _level(queue: str, busy: Mapping[ActiveRun, int], ready: Mapping[ActiveRun, int]) -> None:
    """Let runs that have something to do again start from where the least served of the others stands."""
    least = min((run.served for run, count in busy.items() if count and queue in run.busy_on), default=0.0)
    for run, count in busy.items():
        if not count and not ready.get(run):
            run.busy_on.discard(queue)
        elif queue not in run.busy_on:
            run.busy_on.add(queue)
            run.served = max(run.served, least)


def _newcomers(takers: Sequence[ActiveRun], busy: Mapping[ActiveRun, int]) -> list[ActiveRun]:
    """Return the runs that have nothing in flight, and were not served more than any that has."""
    least = min(run.served for run, count in busy.items() if count)
    return [run for run in takers if not busy[run] and run.served <= least]


def _shared(room: int, takers: Sequence[ActiveRun], ready: Mapping[ActiveRun, int]) -> dict[ActiveRun, int]:
    """Return how many batches each run gets: one after another to the run that was served least by then."""
    if len(takers) == 1:
        return {takers[0]: min(room, ready[takers[0]])} if room > 0 else {}
    chosen: dict[ActiveRun, int] = {}
    stands = {run: run.served for run in takers}
    while room > 0 and stands:
        run = min(stands, key=stands.__getitem__)
        chosen[run] = chosen.get(run, 0) + 1
        stands[run] += run.usual_batch / run.record.weight
        room -= 1
        if chosen[run] >= ready[run]:
            del stands[run]
    return chosen
