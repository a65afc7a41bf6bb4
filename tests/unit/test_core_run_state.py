"""Transcripts of the core: one event after another, and what it answers."""

from __future__ import annotations

import pytest

from overnight.core.actions import Again, Dispatch, Ended, RunEnded, StopBatch, WakeAt
from overnight.core.events import (
    BatchClaimed,
    BatchLost,
    BatchReturned,
    CancelRequested,
    Charge,
    NewTask,
    PauseRequested,
    ResumeRequested,
    RetryRequested,
    TaskFailed,
    TaskRules,
    TasksAdded,
    TasksAdopted,
    TasksInvalidated,
    TaskSucceeded,
    Woken,
)
from overnight.core.run_state import RunState
from overnight.core.states import RunPhase, TaskState
from overnight.errors import GraphError, InvalidTask, MissingDependency
from tests.support.core_play import Play, ended

DONE, CACHED, FAILED = TaskState.DONE, TaskState.CACHED, TaskState.FAILED
SKIPPED, CANCELLED = TaskState.SKIPPED, TaskState.CANCELLED


def test_a_chain_runs_in_order_and_the_run_ends_once() -> None:
    play = Play((), (0,), (1,))
    for task in range(3):
        assert play.sent(2) == [[task]]
        actions = play.tell(TaskSucceeded(task))
        assert ended(actions) == {task: DONE}
        assert play.tell(TaskSucceeded(task)) == []
    assert actions[-1] == RunEnded(RunPhase.SUCCEEDED)
    assert play.run.phase is RunPhase.SUCCEEDED


def test_a_run_is_submitting_until_tasks_are_added_and_an_empty_one_ends_at_once() -> None:
    run = RunState()
    assert run.phase is RunPhase.SUBMITTING
    assert run.handle(TasksAdded(0, ())) == [RunEnded(RunPhase.SUCCEEDED)]
    assert run.handle(TasksAdded(0, ())) == []


def test_a_dispatch_carries_queue_and_attempt() -> None:
    play = Play(())
    assert play.offer(now=1.0) == [Dispatch("b1", None, (0,), [1])]
    assert play.run.outstanding() == 1
    play.tell(BatchReturned("b1", (0,)))
    assert play.run.outstanding() == 0
    assert play.offer() == [Dispatch("b2", None, (0,), [2])]
    assert play.run.attempt(0) == 2


def test_the_number_of_an_attempt_stops_at_255() -> None:
    play = Play(())
    for number in range(1, 300):
        (dispatch,) = play.offer()
        assert list(dispatch.attempts) == [min(number, 255)]
        play.tell(BatchReturned(dispatch.batch, (0,)))


def test_the_higher_priority_goes_first_and_ties_go_by_insertion() -> None:
    """O5."""
    play = Play((), (), (), (), rules={1: TaskRules(priority=5), 3: TaskRules(priority=5), 2: TaskRules(priority=-1)})
    assert play.sent(4) == [[1], [3], [0], [2]]


def test_a_task_that_becomes_ready_joins_in_insertion_order() -> None:
    """S1."""
    play = Play((), (0,), (), ())
    assert play.sent() == [[0]]
    play.tell(TaskSucceeded(0))
    assert play.sent(3) == [[1], [2], [3]]


def test_an_offer_for_a_queue_takes_tasks_of_that_queue_only() -> None:
    play = Play((), (), rules={1: TaskRules(queue="gpu")})
    assert play.sent(2, queue="gpu") == [[1]]
    assert (play.run.ready_count("gpu"), play.run.ready_count(), play.run.outstanding("gpu")) == (0, 1, 1)


def test_an_offer_whose_batch_is_in_flight_is_void() -> None:
    play = Play((), ())
    play.offer()
    play.batches = 0
    assert play.sent() == []


def test_a_failure_is_repeated_up_to_its_retries_then_its_dependants_are_skipped() -> None:
    """O2, B8."""
    play = Play((), (0,), (1,), (), rules={0: TaskRules(retries=1)})
    play.offer()
    assert play.tell(TaskFailed(0, "b1", 1.0)) == [Again(0, Charge(failures=1, not_before=1.0))]
    assert play.sent(now=2.0) == [[0]]
    actions = play.tell(TaskFailed(0, "b2", 3.0))
    assert actions == [Ended(0, FAILED), Ended(1, SKIPPED, 0), Ended(2, SKIPPED, 0)]
    assert (play.run.cause(2), play.run.charge(0).failures) == (0, 2)
    play.offer()
    assert play.tell(TaskSucceeded(3))[-1] == RunEnded(RunPhase.FAILED)


def test_a_hopeless_failure_is_not_repeated() -> None:
    """O2."""
    play = Play((), rules={0: TaskRules(retries=9)})
    play.offer()
    assert ended(play.tell(TaskFailed(0, "b1", 0.0, hopeless=True))) == {0: FAILED}


def test_a_retry_waits_for_its_backoff_without_holding_a_slot() -> None:
    """O3."""
    play = Play((), rules={0: TaskRules(retries=5, retry_delay=10.0)})
    play.offer(now=100.0)
    assert WakeAt(110.0) in play.tell(TaskFailed(0, "b1", 100.0))
    assert play.sent(now=109.0) == []
    assert play.run.outstanding() == 0
    assert play.tell(Woken(109.5)) == []
    play.tell(Woken(110.0))
    assert play.sent(now=110.0) == [[0]]
    assert WakeAt(140.0) in play.tell(TaskFailed(0, "b3", 110.0, jitter=1.5))


def test_a_wake_call_that_is_lost_is_made_good_by_the_next_event_with_a_time() -> None:
    play = Play((), (), rules={0: TaskRules(retries=5, retry_delay=10.0)})
    play.offer()
    play.tell(TaskFailed(0, "b1", 0.0))
    assert play.sent(2, now=50.0) == [[0], [1]]


@pytest.mark.parametrize("batch", ["b1", "unknown"])
def test_a_failure_counts_only_from_the_batch_that_holds_the_task(batch: str) -> None:
    play = Play(())
    play.offer()
    play.tell(BatchLost("b1", 0.0))
    play.offer()
    assert play.tell(TaskFailed(0, batch, 0.0)) == []
    assert play.names() == ["queued"]


def test_a_success_of_a_former_attempt_counts_and_the_new_batch_lets_go() -> None:
    play = Play((), (0,))
    play.offer()
    play.tell(BatchLost("b1", 0.0))
    play.offer()
    assert ended(play.tell(TaskSucceeded(0))) == {0: DONE}
    assert play.run.batch("b2") is None
    assert play.sent() == [[1]]


def test_a_late_success_of_a_failed_task_is_superseded() -> None:
    play = Play(())
    play.offer()
    play.tell(TaskFailed(0, "b1", 0.0))
    assert play.tell(TaskSucceeded(0)) == []


def test_a_lost_batch_charges_its_first_unfinished_task_only_and_that_goes_alone() -> None:
    """O7, P10."""
    play = Play((), (), (), ())
    play.run.durations.load({0: (0.001, 5)})
    assert play.sent(most=4, seconds=1.0) == [[0, 1, 2, 3]]
    play.tell(BatchClaimed("b1"))
    play.tell(TaskSucceeded(0))
    assert play.tell(BatchLost("b1", 0.0)) == [Again(1, Charge(losses=1, begun=1))]
    assert play.names() == ["done", "pending", "pending", "pending"]
    assert play.sent(2, most=4, seconds=1.0) == [[1], [2, 3]]


def test_three_losses_in_a_row_fail_the_task() -> None:
    """O7."""
    play = Play((), (0,))
    for _ in range(2):
        (dispatch,) = play.offer()
        play.tell(BatchLost(dispatch.batch, 0.0))
    play.offer()
    assert play.tell(BatchLost("b3", 0.0))[:2] == [Ended(0, FAILED, lost=True), Ended(1, SKIPPED, 0)]


@pytest.mark.parametrize(
    ("begun", "losses"), [("011", 3), ("0011", 4), ("0101", 4), ("001000001", 9), ("000000000", 9), ("000000001", 9)]
)
def test_a_row_of_losses_fails_a_task_that_had_begun_before_all_but_one_of_them(begun: str, losses: int) -> None:
    """O7, P10: a claim may be lost before its task begins, which says nothing about the task; but not for ever."""
    play = Play(())
    for number, has_begun in enumerate(begun, 1):
        (dispatch,) = play.offer()
        told = play.tell(BatchLost(dispatch.batch, 0.0, begun=has_begun == "1"))
        assert (Ended(0, FAILED, lost=True) in told) == (number == losses)


@pytest.mark.parametrize("peace", ["failure", "return"])
def test_a_failure_and_a_return_end_a_row_of_losses(peace: str) -> None:
    play = Play((), rules={0: TaskRules(retries=1)})
    for _ in range(2):
        (dispatch,) = play.offer()
        play.tell(BatchLost(dispatch.batch, 0.0))
    play.offer()
    play.tell(TaskFailed(0, "b3", 0.0) if peace == "failure" else BatchReturned("b3", (0,)))
    assert play.run.charge(0).losses == 0
    play.offer()
    play.tell(BatchLost("b4", 0.0))
    assert play.names() == ["pending"]


def test_a_cancel_ends_what_is_not_in_flight_and_waits_for_the_rest() -> None:
    play = Play((), (), (0,))
    play.offer()
    actions = play.tell(CancelRequested())
    assert actions == [StopBatch("b1"), Ended(1, CANCELLED), Ended(2, CANCELLED)]
    assert play.run.phase is RunPhase.CANCELLING
    assert play.sent() == []
    actions = play.tell(BatchReturned("b1", (0,)))
    assert actions == [Ended(0, CANCELLED), RunEnded(RunPhase.CANCELLED)]
    assert play.add(()) == [Ended(3, CANCELLED), RunEnded(RunPhase.CANCELLED)]


def test_a_task_that_fails_while_the_run_is_cancelled_is_not_repeated() -> None:
    play = Play((), (), rules={0: TaskRules(retries=1)})
    play.offer(2)
    play.tell(CancelRequested())
    assert ended(play.tell(TaskFailed(0, "b1", 0.0))) == {0: CANCELLED}
    assert ended(play.tell(TaskFailed(1, "b2", 0.0))) == {1: FAILED}
    assert play.run.phase is RunPhase.CANCELLED


def test_a_cancel_of_a_run_that_is_over_changes_nothing() -> None:
    play = Play(())
    play.offer()
    play.tell(TaskSucceeded(0))
    assert play.tell(CancelRequested()) == []
    play.add(())
    assert play.sent() == [[1]]


def test_fail_fast_stops_the_run_at_the_first_failure_and_ends_it_as_failed() -> None:
    play = Play((), (), (0,), (), fail_fast=True)
    play.offer(2)
    actions = play.tell(TaskFailed(0, "b1", 0.0))
    assert actions == [Ended(0, FAILED), Ended(2, SKIPPED, 0), StopBatch("b2"), Ended(3, CANCELLED)]
    assert play.tell(TaskSucceeded(1)) == [Ended(1, DONE), RunEnded(RunPhase.FAILED)]


def test_a_paused_run_dispatches_nothing() -> None:
    play = Play(())
    play.tell(PauseRequested())
    assert play.sent() == []
    play.tell(ResumeRequested())
    assert play.sent() == [[0]]


def test_a_retry_reopens_the_failed_task_and_all_that_was_skipped_for_it() -> None:
    play = Play((), (0,), (1,))
    play.offer()
    assert play.tell(TaskFailed(0, "b1", 0.0))[-1] == RunEnded(RunPhase.FAILED)
    assert play.tell(RetryRequested((0,))) == [Again(0, Charge()), Again(1, Charge()), Again(2, Charge())]
    assert play.run.phase is RunPhase.ACTIVE
    assert play.sent() == [[0]]


def test_a_retry_leaves_skipped_what_another_failure_holds_back() -> None:
    play = Play((), (), (0, 1))
    play.offer(2)
    play.tell(TaskFailed(0, "b1", 0.0))
    play.tell(TaskFailed(1, "b2", 0.0))
    play.tell(RetryRequested((0,)))
    assert play.names() == ["pending", "failed", "skipped"]
    assert play.run.cause(2) == 1


def test_a_retry_of_a_cancelled_task_takes_its_cancelled_dependencies_along() -> None:
    play = Play((), (0,), (), (1,))
    play.tell(CancelRequested())
    play.tell(RetryRequested((1,)))
    assert play.names() == ["pending", "pending", "cancelled", "cancelled"]
    play.tell(RetryRequested())
    assert play.names() == ["pending"] * 4


def test_an_invalidation_reopens_the_finished_descendants_and_holds_the_others_back() -> None:
    play = Play((), (0,), (1,), (0,), ())
    for task in (0, 1):
        play.offer()
        play.tell(TaskSucceeded(task))
    play.tell(TasksAdopted((4,)))
    assert play.tell(TasksInvalidated((0, 4))) == [Again(0, Charge()), Again(4, Charge()), Again(1, Charge())]
    assert play.sent(5) == [[0], [4]]


def test_an_invalidation_makes_an_ended_run_active_again() -> None:
    play = Play(())
    assert play.tell(TasksAdopted((0,))) == [Ended(0, CACHED), RunEnded(RunPhase.SUCCEEDED)]
    play.tell(TasksInvalidated((0,)))
    assert play.run.phase is RunPhase.ACTIVE
    play.offer()
    assert play.tell(TaskSucceeded(0))[-1] == RunEnded(RunPhase.SUCCEEDED)


def test_an_added_task_takes_the_results_that_are_there_and_the_fate_of_those_that_are_not() -> None:
    """Y2."""
    play = Play((), (), (1,))
    play.offer(2)
    play.tell(TaskSucceeded(0))
    play.tell(TaskFailed(1, "b2", 0.0))
    assert play.add((0,), (2,), (4,)) == [Ended(4, SKIPPED, 1), Ended(5, SKIPPED, 1)]
    assert play.sent() == [[3]]


def test_a_dependency_may_come_later_in_the_same_addition() -> None:
    play = Play((2,), (0,), ())
    assert play.sent(3) == [[2]]


@pytest.mark.parametrize("dependency", [5, -1])
def test_a_dependency_that_is_not_added_is_refused_and_leaves_the_run_as_it_was(dependency: int) -> None:
    play = Play(())
    with pytest.raises(MissingDependency, match=f"task {dependency},"):
        play.add((0,), (dependency,))
    assert len(play.run) == 1
    play.add((0,))
    assert play.sent(2) == [[0]]


def test_an_addition_that_comes_twice_counts_once_and_one_that_leaves_a_gap_is_refused() -> None:
    play = Play((), (0,))
    assert play.tell(TasksAdded(0, (NewTask(()), NewTask((0,))))) == []
    assert len(play.run) == 2
    with pytest.raises(GraphError, match="some are missing"):
        play.tell(TasksAdded(3, (NewTask(()),)))


def test_blocked_tasks_are_those_on_a_cycle_and_below() -> None:
    """Y3."""
    play = Play((1,), (0,), (1,), (), (3,))
    assert play.run.blocked() == [0, 1, 2]
    play.offer()
    play.tell(TaskSucceeded(3))
    assert play.run.blocked() == [0, 1, 2]


def test_resources_never_exceed_their_limit_and_hold_up_nobody_else() -> None:
    """O6."""
    heavy, light = TaskRules(resources=(("memory", 2.0),)), TaskRules(resources=(("memory", 1.0),))
    play = Play((), (), (), (), rules={0: light, 1: heavy, 2: light}, limits={"memory": 2.0})
    assert play.sent(4) == [[0], [2], [3]]
    play.tell(TaskSucceeded(0))
    assert play.sent() == []
    play.tell(TaskSucceeded(2))
    assert play.sent() == [[1]]


def test_ten_tenths_fit_into_one() -> None:
    play = Play(*[()] * 11, rules=dict.fromkeys(range(11), TaskRules(resources=(("cpu", 0.1),))), limits={"cpu": 1.0})
    assert len(play.sent(11)) == 10


def test_a_task_above_a_limit_is_refused_and_leaves_the_run_as_it_was() -> None:
    """O6."""
    play = Play((), limits={"memory": 2.0})
    with pytest.raises(InvalidTask, match="'memory'"):
        play.add((), (), rules={2: TaskRules(resources=(("memory", 3.0),))})
    play.add(())
    assert play.sent(3) == [[0], [1]]


def test_counts_follow_every_step() -> None:
    play = Play((), (0,))
    assert (play.run.ready_count(), play.run.waiting_count) == (1, 1)
    play.offer()
    play.tell(BatchClaimed("b1"))
    assert play.run.running() == [0]
    assert play.run.held_tasks("b1") == [0]
    counts = {state: number for state, number in play.run.counts().items() if number}
    assert counts == {TaskState.RUNNING: 1, TaskState.PENDING: 1}
