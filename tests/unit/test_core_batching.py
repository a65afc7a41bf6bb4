"""How batches are sized, and what they are made of."""

from __future__ import annotations

import math

import pytest

from overnight.core.batching import Durations, Room, fair_share
from overnight.core.events import BatchReturned, TaskFailed, TaskRules, TaskSucceeded
from tests.support.core_play import Play

SHORT = {0: (0.001, 5)}


def test_a_task_of_unknown_duration_goes_alone() -> None:
    assert Play((), (), ()).sent(1, most=100, seconds=0.1) == [[0]]


def test_short_tasks_share_a_batch_up_to_the_seconds_offered() -> None:
    play = Play(*[()] * 30)
    play.offer()
    play.tell(TaskSucceeded(0, 0.01))
    assert play.sent(most=100, seconds=0.1) == [list(range(1, 11))]


def test_short_tasks_share_a_batch_up_to_the_number_offered() -> None:
    play = Play(*[()] * 30)
    play.run.durations.load(SHORT)
    assert play.sent(most=4, seconds=0.1) == [[0, 1, 2, 3]]


def test_a_batch_holds_the_number_of_tasks_that_comes_nearest_to_the_seconds_offered() -> None:
    """Tasks of 50 ms take a little longer than that; a fifth of all batches would be for nothing."""
    for seconds, number in ((0.0502, 5), (0.06, 4), (0.1, 2), (0.101, 2), (0.16, 2), (0.17, 1), (0.26, 1)):
        play = Play(*[()] * 30)
        play.run.durations.load({0: (seconds, 5)})
        assert play.sent(most=100, seconds=0.25) == [list(range(number))]


def test_a_long_task_goes_alone() -> None:
    play = Play((), ())
    play.run.durations.load({0: (5.0, 1)})
    assert play.sent(most=100, seconds=0.1) == [[0]]


def test_a_task_that_takes_longer_than_all_that_is_offered_has_no_place() -> None:
    """Were one of minutes followed along its path, that would run on although the run is cancelled as it ends."""
    assert Room(10, 5.0).seat(4.9)
    assert not Room(10, 5.0).seat(5.1)


def test_the_offers_of_one_event_share_the_ready_tasks_fairly() -> None:
    play = Play(*[()] * 10)
    play.run.durations.load(SHORT)
    assert [len(tasks) for tasks in play.sent(4, most=100, seconds=0.1)] == [3, 3, 2, 2]
    assert [fair_share(*pair) for pair in ((0, 3), (1, 3), (4, 3), (9, 1))] == [1, 1, 2, 9]


def test_a_chain_of_short_tasks_is_one_batch() -> None:
    play = Play((), (0,), (1,), (2,), (3, 5), (6,), ())
    play.run.durations.load(SHORT)
    assert play.sent(2, most=4, seconds=0.1) == [[0, 1, 2, 3], [6, 5]]


def test_a_task_follows_only_when_all_it_waits_for_is_in_the_batch() -> None:
    play = Play((), (), (0, 1), (0, 0))
    play.run.durations.load(SHORT)
    assert play.sent(2, most=10, seconds=0.1) == [[0, 3], [1]]


def test_a_follower_that_is_given_back_shares_the_fate_of_what_it_waited_for() -> None:
    play = Play((), (0,), (1,), rules={0: TaskRules(retries=1)})
    play.run.durations.load(SHORT)
    assert play.sent(most=3, seconds=0.1) == [[0, 1, 2]]
    play.tell(TaskFailed(0, "b1", 0.0))
    assert play.names() == ["pending", "running", "running"]
    play.tell(BatchReturned("b1", (1, 2)))
    play.offer(most=3, seconds=0.1)
    play.tell(TaskFailed(0, "b2", 0.0))
    play.tell(BatchReturned("b2", (1, 2)))
    assert play.names() == ["failed", "skipped", "skipped"]
    assert play.run.cause(2) == 0


def test_a_batch_holds_tasks_of_one_demand_for_resources() -> None:
    play = Play(*[()] * 4, rules=dict.fromkeys((1, 2), TaskRules(resources=(("gpu", 1.0),))), limits={"gpu": 1.0})
    play.run.durations.load(SHORT)
    assert play.sent(most=9, seconds=0.1) == [[0, 3]]
    assert play.sent(most=9, seconds=0.1) == [[1, 2]]


def test_one_task_that_hung_does_not_make_a_function_slow() -> None:
    durations = Durations()
    for seconds in [0.01] * 10 + [30_000.0]:
        durations.learn(1, seconds)
    expected = durations.expected(1)
    assert expected is not None
    assert expected < 0.02


def test_a_slow_first_task_is_soon_forgotten_and_a_lasting_change_soon_learned() -> None:
    durations = Durations()
    for seconds in [2.0] + [0.0001] * 60:
        durations.learn(1, seconds)
    assert durations.expected(1) == pytest.approx(0.0001, rel=0.1)
    for _ in range(60):
        durations.learn(1, 2.0)
    assert durations.expected(1) == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0])
def test_what_is_not_a_duration_is_not_learned(seconds: float) -> None:
    durations = Durations()
    durations.learn(1, seconds)
    assert durations.expected(1) is None


def test_learned_durations_move_to_another_run() -> None:
    first, second = Durations(), Durations()
    first.learn(7, 0.5)
    second.learn(8, 0.1)
    second.load(first.export())
    assert second.export() == {7: (0.5, 1), 8: (0.1, 1)}
