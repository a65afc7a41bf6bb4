"""What the scheduler offers to a queue, and what the core makes of it."""

from __future__ import annotations

import pytest

from overnight.core.actions import Dispatch
from overnight.core.events import SlotsOffered
from overnight.service.window import BATCH_SECONDS, MOST_TASKS_IN_BATCH, Window
from tests.support.core_play import Play

SHORT = {0: (0.001, 5)}
TINY = {0: (0.00001, 5)}


def batches(play: Play, window: Window, number: int, ready: int) -> list[list[int]]:
    offers = [offer._replace(queue=None) for offer in window.offers("default", number, ready)]
    actions = play.tell(SlotsOffered(0.0, offers))
    return [list(action.tasks) for action in actions if isinstance(action, Dispatch)]


@pytest.mark.parametrize(("workers", "expected"), [(0, 2), (1, 2), (2, 4), (50, 100)])
def test_the_window_is_twice_the_workers_and_never_closed(workers: int, expected: int) -> None:
    assert Window(workers).batches == expected


def test_one_batch_takes_no_more_of_the_ready_tasks_than_its_share_of_the_window() -> None:
    play = Play(*[()] * 80)
    play.run.durations.load(SHORT)
    assert batches(play, Window(2), 1, 80) == [list(range(20))]


def test_a_chain_of_short_tasks_is_one_batch_though_only_its_head_is_ready() -> None:
    play = Play((), *[(task,) for task in range(49)])
    play.run.durations.load(SHORT)
    assert batches(play, Window(2), 1, 1) == [list(range(50))]


def test_tasks_that_follow_in_a_batch_do_not_count_as_its_share() -> None:
    play = Play(*[()] * 40, *[(task,) for task in range(40)])
    play.run.durations.load(SHORT)
    assert batches(play, Window(2), 1, 40) == [[*range(10), *range(40, 50)]]


def test_little_work_is_not_spread_over_several_batches() -> None:
    play = Play(*[()] * 12)
    play.run.durations.load(TINY)
    assert batches(play, Window(2), 4, 12) == [list(range(12))]


def test_a_few_longer_tasks_are_spread_over_the_batches() -> None:
    play = Play(*[()] * 4)
    play.run.durations.load({0: (0.04, 5)})
    assert batches(play, Window(2), 4, 4) == [[0], [1], [2], [3]]


def test_a_batch_holds_no_more_than_its_limits() -> None:
    play = Play(*[()] * 5000)
    play.run.durations.load(TINY)
    assert [len(tasks) for tasks in batches(play, Window(1), 1, 5000)] == [MOST_TASKS_IN_BATCH]
    long = Play(*[()] * 5000)
    long.run.durations.load(SHORT)
    (tasks,) = batches(long, Window(1), 1, 5000)
    assert len(tasks) == pytest.approx(BATCH_SECONDS / 0.001, abs=1)
