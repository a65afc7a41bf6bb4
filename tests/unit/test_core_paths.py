"""Which of the ready tasks starts first: the one with the longest way to the end, by learned durations (O5)."""

from __future__ import annotations

import pytest

from overnight.core.edges import Edges
from overnight.core.events import NewTask, Offer, SlotsOffered, TaskRules, TasksAdded, TaskSucceeded
from overnight.core.invariants import check
from overnight.core.paths import rank_of
from overnight.core.run_state import RunState
from tests.support.simulated_workers import SimulatedWorkers

CHAIN, SHORT = 1, 2
LINK_SECONDS, SHORT_SECONDS = 0.1, 0.05
LINKS, SHORTS = 100, 200


def chain_behind_short_tasks() -> list[NewTask]:
    """Independent short tasks, and after them in order a chain that takes as long as half of all work."""
    tasks = [NewTask((), function=SHORT) for _ in range(SHORTS)]
    return tasks + [NewTask((SHORTS + n - 1,) if n else (), function=CHAIN) for n in range(LINKS)]


def makespan(*, by_paths: bool, learned: bool) -> float:
    seconds = [SHORT_SECONDS] * SHORTS + [LINK_SECONDS] * LINKS
    simulated = SimulatedWorkers(chain_behind_short_tasks(), seconds, 2, by_paths=by_paths)
    if learned:
        simulated.state.durations.load({CHAIN: (LINK_SECONDS, 10), SHORT: (SHORT_SECONDS, 10)})
    return simulated.run()


IDEAL = max(LINKS * LINK_SECONDS, (LINKS * LINK_SECONDS + SHORTS * SHORT_SECONDS) / 2)


@pytest.mark.parametrize("learned", [True, False], ids=["learned", "unknown at first"])
def test_a_long_chain_beside_short_tasks_ends_within_five_percent_of_the_ideal(learned: bool) -> None:
    assert makespan(by_paths=True, learned=learned) <= 1.05 * IDEAL


def test_first_in_first_out_takes_half_as_long_again() -> None:
    """What the order is worth."""
    assert makespan(by_paths=False, learned=True) >= 1.45 * IDEAL


def first(state: RunState, now: float = 0.0, number: int = 1) -> list[int]:
    offers = [Offer(f"{now}-{n}", None) for n in range(number)]
    dispatched = [action.tasks[0] for action in state.handle(SlotsOffered(now, offers))]  # type: ignore[union-attr]
    check(state)
    return dispatched


def ways(*tasks: NewTask) -> RunState:
    state = RunState(by_paths=True)
    state.handle(TasksAdded(0, tasks))
    return state


def test_priority_comes_before_the_length_of_the_way() -> None:
    state = ways(NewTask(()), NewTask((0,)), NewTask((), TaskRules(priority=1)), NewTask((), TaskRules(priority=-1)))
    assert first(state, number=3) == [2, 0, 3]


def test_equal_ways_start_in_the_order_of_addition() -> None:
    assert first(ways(*[NewTask(())] * 4), number=4) == [0, 1, 2, 3]


def test_of_independent_tasks_the_longest_start_first() -> None:
    state = ways(NewTask((), function=1), NewTask((), function=2), NewTask((), function=1))
    state.durations.load({1: (0.1, 5), 2: (3.0, 5)})
    assert first(state, number=3) == [1, 0, 2]


def test_what_is_added_later_lengthens_the_ways_before_it() -> None:
    state = ways(NewTask(()), NewTask(()), NewTask(()))
    assert first(state) == [0]
    state.handle(TasksAdded(3, [NewTask((2,)), NewTask((3,))]))
    assert first(state, now=10.0) == [2]


def test_the_order_follows_durations_that_have_changed() -> None:
    state = ways(*[NewTask((), function=1)] * 2, *[NewTask((), function=2)] * 8)
    state.durations.load({1: (1.0, 5), 2: (0.1, 5)})
    assert first(state) == [0]
    for task in range(2, 6):
        state.handle(TaskSucceeded(task, 50.0))
    assert first(state, now=10.0, number=2) == [6, 7]


def test_what_is_ready_already_is_put_into_the_new_order_whatever_left_in_between() -> None:
    state = ways(*[NewTask((), function=task) for task in range(20)])
    assert first(state) == [0]
    state.durations.load({task: (float(task + 1), 5) for task in range(20)})
    state.handle(TaskSucceeded(19, 20.0))
    assert first(state, now=10.0, number=3) == [18, 17, 16]


@pytest.mark.parametrize("order", ["forward", "backward"])
def test_ways_are_right_in_whatever_order_tasks_were_added(order: str) -> None:
    edges = Edges()
    if order == "forward":
        edges.extend([(), (0,), (1,), (0, 2)])
        assert list(edges.longest_ways([1.0, 2.0, 3.0, 4.0])) == [10.0, 9.0, 7.0, 4.0]
    else:
        edges.extend([(1, 3), (2,), (3,), ()])
        assert list(edges.longest_ways([4.0, 3.0, 2.0, 1.0])) == [4.0, 7.0, 9.0, 10.0]


def test_ranks_tell_ways_apart_by_their_ratio() -> None:
    assert rank_of(0.0) == 0
    assert rank_of(1.0) < rank_of(1.01) < rank_of(100.0) < rank_of(101.0) < rank_of(1e9) < 65535
