"""One run in the scheduler's memory."""

from __future__ import annotations

from dataclasses import replace

from overnight.core.actions import RunEnded
from overnight.core.events import CancelRequested
from overnight.core.run_state import RunState
from overnight.core.states import RunPhase
from overnight.keyring import Keyring
from overnight.messages import SpecChunk
from overnight.service.active_run import HOLD_SECONDS, MOST_RETURNS, ActiveRun
from overnight.service.learned import LearnedDurations
from overnight.service.recover import read_again
from overnight.store.records import Happening, RunEvent, RunRecord, RunSnapshot


def active_run() -> ActiveRun:
    record = RunRecord("r", "", "", "", "", "", "3.11", 1, 1, "default", "")
    return ActiveRun(record, RunState(), LearnedDurations())


def test_batches_that_keep_coming_back_hold_the_run_back_for_a_while() -> None:
    run = active_run()
    now = 100.0

    answers = [run.keeps_coming_back(now) for _ in range(MOST_RETURNS)]

    assert answers == [False] * (MOST_RETURNS - 1) + [True]
    assert run.held_until == now + HOLD_SECONDS


def test_batches_that_come_back_now_and_then_hold_nothing_back() -> None:
    run = active_run()
    step = 2 * HOLD_SECONDS / MOST_RETURNS

    assert not any(run.keeps_coming_back(100.0 + number * step) for number in range(10 * MOST_RETURNS))
    assert run.held_until == 0.0


def test_a_run_of_which_nothing_is_heard_is_read_again_less_and_less_often() -> None:
    run, lease = active_run(), 15.0
    due = [second for second in range(1, 4000) if run.stands_still(float(second), lease)]

    waits = [later - earlier for earlier, later in zip([0, *due], due, strict=False)]
    assert waits[:5] == [lease * leases + 1 for leases in (2, 4, 8, 16, 32)]
    assert set(waits[5:]) == {32 * lease + 1}

    run.hear(RunEvent("r", "1-0", Happening.CLAIMED), 4000.0)
    assert run.stands_still(4000.0 + 2 * lease + 1, lease)


def test_an_end_that_was_announced_among_dropped_actions_still_ends_the_run() -> None:
    """P11: the run was read again before what the core had said was carried out."""
    run = active_run()
    run.add(SpecChunk(0, ["a"], ["f"], [0], [[]]).sealed(run.run_id, Keyring()), Keyring())
    announced = run.core.handle(CancelRequested())
    assert RunEnded(RunPhase.CANCELLED) in announced

    record = replace(run.record, phase=RunPhase.CANCELLING, added=1)
    read_again(run, RunSnapshot(record, [], b"k\x00", bytes(32), [], {}, "1-0@1"), 0.0)

    assert run.over is RunPhase.CANCELLED
