"""Transcripts of the core: a worker does not find what was recorded of a result (P12, decision 0048)."""

from __future__ import annotations

from collections.abc import Sequence

from overnight.core.actions import Again, Ended, Repair, RunEnded
from overnight.core.events import (
    BatchClaimed,
    CancelRequested,
    Charge,
    Flight,
    RetryRequested,
    StateRead,
    TaskFailed,
    TaskRules,
    TaskSucceeded,
)
from overnight.core.repairs import MOST_REPAIRS
from overnight.core.states import RunPhase, TaskState
from tests.support.core_play import Play


def play_of(*dependencies: Sequence[int], done: Sequence[int], retries: int = 0) -> Play:
    """Play a run in which these tasks are done, in this order."""
    play = Play(*dependencies, rules=dict.fromkeys(range(len(dependencies)), TaskRules(retries=retries)))
    for task in done:
        play.offer()
        play.tell(TaskSucceeded(task))
    return play


def lose(play: Play, task: int, *lost: int) -> list[object]:
    """Dispatch whatever is ready; `task` lacks these inputs."""
    batch = next(dispatch.batch for dispatch in play.offer(9) if task in dispatch.tasks)
    return list(play.tell(TaskFailed(task, batch, 5.0, lost=lost)))


def test_a_lost_input_is_computed_again_and_the_task_that_lacked_it_is_charged_nothing() -> None:
    play = play_of((), (0,), done=(0,))
    assert lose(play, 1, 0) == [Repair((0,), (1, 0)), Again(0, Charge()), Again(1, Charge())]
    assert play.names() == ["pending", "pending"]
    assert play.sent(9) == [[0]]
    play.tell(TaskSucceeded(0))
    assert play.sent(9) == [[1]]
    assert play.tell(TaskSucceeded(1))[-1] == RunEnded(RunPhase.SUCCEEDED)


def test_all_that_was_computed_from_it_runs_again_each_forgotten_before_what_it_was_computed_from() -> None:
    """P4: whatever is carried out of it when the scheduler dies, no result outlives what it was computed from."""
    play = play_of((), (0,), (1,), (0, 2), (), (3, 4, 0), done=(0, 4, 1, 2, 3))
    actions = lose(play, 5, 0)
    assert actions[0] == Repair((0,), (5, 3, 2, 1, 0))
    assert play.names() == ["pending"] * 4 + ["done", "pending"]


def test_what_is_in_flight_below_it_is_named_and_stays_in_flight() -> None:
    play = play_of((), (0,), (0,), (0,), done=(0,))
    batches = {dispatch.tasks[0]: dispatch.batch for dispatch in play.offer(3)}
    play.tell(BatchClaimed(batches[2]))
    repair, *_ = play.tell(TaskFailed(1, batches[1], 5.0, lost=(0,)))
    assert isinstance(repair, Repair)
    assert set(repair.tasks) == {0, 1, 2, 3}
    assert play.names() == ["pending", "pending", "running", "queued"]


def test_two_that_lack_the_same_input_have_it_computed_again_once() -> None:
    play = play_of((), (0,), (0,), done=(0,))
    batches = {dispatch.tasks[0]: dispatch.batch for dispatch in play.offer(2)}
    play.tell(TaskFailed(1, batches[1], 5.0, lost=(0,)))
    assert play.tell(TaskFailed(2, batches[2], 5.0, lost=(0,))) == [Again(2, Charge())]
    assert play.run.life.repairs == {0: 1}


def test_failures_of_the_task_itself_stay_on_its_record() -> None:
    play = play_of((), (0,), done=(0,), retries=1)
    (dispatch,) = play.offer()
    play.tell(TaskFailed(1, dispatch.batch, 1.0))
    lose(play, 1, 0)
    assert play.run.charge(1).failures == 1


def test_an_input_that_is_lost_again_and_again_fails_the_task_which_says_what_it_lacked() -> None:
    play = play_of((), (0,), (1,), done=(0,))
    for _ in range(MOST_REPAIRS):
        assert lose(play, 1, 0)[0] == Repair((0,), (1, 0))
        play.offer()
        play.tell(TaskSucceeded(0))
    actions = lose(play, 1, 0)
    assert actions[0] == Ended(1, TaskState.FAILED, lacked=0)
    assert play.names() == ["done", "failed", "skipped"]


def test_a_task_with_retries_uses_them_up_then() -> None:
    play = play_of((), (0,), done=(0,), retries=1)
    play.run.life.repairs[0] = MOST_REPAIRS
    assert lose(play, 1, 0) == [Again(1, Charge(failures=1, not_before=5.0))]
    (dispatch,) = play.offer(now=6.0)
    assert play.tell(TaskFailed(1, dispatch.batch, 7.0, lost=(0,)))[0] == Ended(1, TaskState.FAILED, lacked=0)


def test_a_retry_of_the_task_has_it_computed_again_once_more() -> None:
    play = play_of((), (0,), done=(0,))
    play.run.life.repairs[0] = MOST_REPAIRS
    lose(play, 1, 0)
    play.tell(RetryRequested((1,)))
    assert isinstance(lose(play, 1, 0)[0], Repair)


def test_what_is_no_dependency_of_the_task_is_no_excuse() -> None:
    play = play_of((), (), done=(0,))
    assert lose(play, 1, 0, 7)[0] == Ended(1, TaskState.FAILED)


def test_a_run_that_is_being_cancelled_mends_nothing() -> None:
    play = play_of((), (0,), (), done=(0,))
    (dispatch, *_) = play.offer(2)
    play.tell(CancelRequested())
    assert play.tell(TaskFailed(1, dispatch.batch, 5.0, lost=(0,)))[0] == Ended(1, TaskState.CANCELLED)
    assert play.run.state(0) is TaskState.DONE


def read(play: Play, text: str, lacking: dict[int, tuple[int, ...]], repairs: dict[int, int]) -> list[object]:
    states = b"".join(bytes((ord(code), 1)) for code in text)
    flights = [Flight("old", "q", (text.index("x"),), True)] if "x" in text else []
    return list(play.tell(StateRead(5.0, states, flights, lacking=lacking, repairs=repairs)))


def test_a_scheduler_that_takes_over_mends_what_the_former_had_heard_of_and_not_mended() -> None:
    play = Play((), (0,), (0,), (1,))
    assert read(play, "dtxp", {1: (0,)}, {}) == [Repair((0,), (2, 3, 1, 0)), Again(0, Charge()), Again(1, Charge())]


def test_a_scheduler_that_takes_over_does_not_mend_again_what_the_former_had_mended() -> None:
    play = Play((), (0,))
    assert read(play, "pt", {1: ()}, {0: 1}) == [Again(1, Charge())]
    assert read(play, "dt", {1: ()}, {0: 1}) == [Again(1, Charge())]


def test_a_scheduler_that_takes_over_knows_how_often_a_result_was_lost() -> None:
    play = Play((), (0,))
    assert read(play, "dt", {1: (0,)}, {0: MOST_REPAIRS})[0] == Ended(1, TaskState.FAILED, lacked=0)
