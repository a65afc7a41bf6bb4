"""Take a run over from the store alone: the normal start, and the repair of any divergence."""

from __future__ import annotations

from overnight import failpoints
from overnight.core.actions import Action
from overnight.core.events import StateRead
from overnight.core.run_state import RunState
from overnight.core.states import RunPhase
from overnight.keyring import Keyring
from overnight.service.active_run import ActiveRun, Waiting
from overnight.service.learned import LearnedDurations
from overnight.store.records import RunSnapshot


def take_over(
    snapshot: RunSnapshot,
    keyring: Keyring,
    learned: LearnedDurations,
    now: float,
) -> tuple[ActiveRun, list[Action]]:
    """Return the run as its stored truth says, and the actions that are due."""
    record = snapshot.run
    core = RunState(
        fail_fast=record.fail_fast, resource_limits=record.resource_limits, by_paths=True, awaits_state=True
    )
    run = ActiveRun(record, core, learned)
    for sealed in snapshot.specs:
        run.add(sealed, keyring)
    failpoints.reach("scheduler.mid_adopt")
    return run, read_again(run, snapshot, now)


def read_again(run: ActiveRun, snapshot: RunSnapshot, now: float) -> list[Action]:
    """Let the core take over what the store says; return the actions that are due."""
    run.record = snapshot.run
    run.cursor = snapshot.cursor
    run.moved_at = now
    run.invalidations, run.invalidated = snapshot.invalidations, 0
    run.take_digests(snapshot.digests)
    run.waiting = {flight.batch: Waiting(flight.queue, 0.0) for flight in snapshot.flights if not flight.claimed}
    known = run.known
    state = StateRead(
        now=now,
        states=snapshot.states[: 2 * known],
        flights=snapshot.flights,
        charges=snapshot.charges,
        cancelling=snapshot.run.phase is RunPhase.CANCELLING,
        paused=snapshot.run.paused,
        lacking=snapshot.lacking,
        repairs=snapshot.repairs,
    )
    actions = run.core.handle(state)
    # An end that was decided before and still stands is not told again: it may not be on record yet.
    run.over = run.core.phase if run.core.phase.is_over else None
    return actions
