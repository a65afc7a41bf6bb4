"""The stored truth is taken over: a new scheduler, or a core that has diverged from the store."""

from __future__ import annotations

import pytest

from overnight.core.actions import Again, Ended, RunEnded, StopBatch, WakeAt
from overnight.core.events import BatchLost, CancelRequested, Charge, Flight, StateRead, TaskRules, TaskSucceeded
from overnight.core.states import RunPhase, TaskState
from overnight.errors import GraphError
from tests.support.core_play import Play

FAILED, SKIPPED, CANCELLED = TaskState.FAILED, TaskState.SKIPPED, TaskState.CANCELLED


def text(codes: str, *attempts: int) -> bytes:
    """Two bytes a task; attempts are 1 unless given."""
    numbers = attempts or (1,) * len(codes)
    return b"".join(bytes((ord(code), number)) for code, number in zip(codes, numbers, strict=True))


def test_a_restart_goes_on_where_the_state_string_says() -> None:
    play = Play((), (0,), (1,), ())
    assert play.tell(StateRead(0.0, text("dppx", 1, 2, 0, 1), [Flight("old", "q", (3,), True)])) == []
    assert play.run.running() == [3]
    (dispatch,) = play.offer(2)
    assert (list(dispatch.tasks), list(dispatch.attempts)) == ([1], [3])
    play.tell(BatchLost("old", 0.0))
    assert play.names() == ["done", "queued", "pending", "pending"]


def test_a_read_that_finds_everything_terminal_ends_the_run() -> None:
    play = Play((), ())
    assert play.tell(StateRead(0.0, text("dc"))) == [RunEnded(RunPhase.SUCCEEDED)]
    assert play.tell(StateRead(0.0, text("dc"))) == []


def test_a_failure_that_was_stored_but_not_judged_gets_its_verdict() -> None:
    play = Play((), (), rules={0: TaskRules(retries=2, retry_delay=8.0)})
    charges = {0: Charge(failures=1)}
    actions = play.tell(StateRead(100.0, text("tt"), charges=charges))
    assert actions == [Again(0, Charge(failures=2, not_before=116.0)), Ended(1, FAILED), WakeAt(116.0)]


def test_a_backoff_goes_on_after_a_restart() -> None:
    play = Play(())
    assert play.tell(StateRead(5.0, text("p"), charges={0: Charge(1, 0, 9.0)})) == [WakeAt(9.0)]
    assert play.sent(now=8.0) == []
    assert play.sent(now=9.0) == [[0]]


def test_what_a_crash_left_below_a_failed_task_is_skipped() -> None:
    play = Play((), (0,), (1,), (2,))
    assert play.tell(StateRead(0.0, text("fspp"))) == [
        Ended(2, SKIPPED, 0),
        Ended(3, SKIPPED, 0),
        RunEnded(RunPhase.FAILED),
    ]
    assert play.run.cause(1) == 0


def test_a_skipped_task_without_a_failed_ancestor_runs_after_all() -> None:
    play = Play((), (0,))
    assert play.tell(StateRead(0.0, text("ps"))) == [Again(1, Charge())]
    assert play.names() == ["pending", "pending"]


def test_a_task_in_flight_that_no_batch_holds_goes_back() -> None:
    play = Play((), ())
    assert play.tell(StateRead(0.0, text("qx"))) == [Again(0, Charge()), Again(1, Charge())]
    assert play.sent(2) == [[0], [1]]


def test_a_read_repairs_lost_events_of_every_kind() -> None:
    play = Play((), (), (), (0,))
    play.offer(3)
    play.tell(StateRead(0.0, text("dpqp"), [Flight("b3", "q", (2,), False)]))
    assert play.names() == ["done", "pending", "queued", "pending"]
    assert play.run.outstanding() == 1
    assert play.sent(2) == [[1], [3]]


def test_a_cancel_goes_on_after_a_restart() -> None:
    play = Play((), (), ())
    actions = play.tell(StateRead(0.0, text("kpx"), [Flight("b", "q", (2,), True)], cancelling=True))
    assert actions == [Ended(1, CANCELLED), StopBatch("b")]
    assert play.tell(TaskSucceeded(2))[-1] == RunEnded(RunPhase.CANCELLED)


def test_a_run_that_fails_fast_stops_after_a_restart_too() -> None:
    play = Play((), (), fail_fast=True)
    assert play.tell(StateRead(0.0, text("fp"))) == [Ended(1, CANCELLED), RunEnded(RunPhase.FAILED)]


def test_a_read_ends_a_cancel_that_the_store_does_not_know() -> None:
    play = Play(())
    play.tell(CancelRequested())
    play.tell(StateRead(0.0, text("p")))
    assert play.sent() == [[0]]


def test_a_pause_is_taken_over() -> None:
    play = Play(())
    play.tell(StateRead(0.0, text("p"), paused=True))
    assert play.run.paused
    assert play.sent() == []


def test_batches_in_flight_hold_their_resources_after_a_restart() -> None:
    rules = dict.fromkeys(range(3), TaskRules(resources=(("gpu", 1.0),)))
    play = Play((), (), (), rules=rules, limits={"gpu": 1.0})
    play.tell(StateRead(0.0, text("xqp"), [Flight("a", "q", (0,), True), Flight("b", "q", (1,), False)]))
    assert play.sent() == []
    play.tell(TaskSucceeded(0))
    play.tell(TaskSucceeded(1))
    assert play.sent() == [[2]]


@pytest.mark.parametrize("states", [b"", b"p", text("p"), text("pz"), text("ppp")])
def test_a_state_string_that_does_not_fit_changes_nothing(states: bytes) -> None:
    play = Play((), ())
    play.offer()
    with pytest.raises(GraphError):
        play.tell(StateRead(0.0, states))
    assert play.names() == ["queued", "pending"]
    assert play.sent() == [[1]]
