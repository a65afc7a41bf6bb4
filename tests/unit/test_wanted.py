"""How many workers would empty the ready work within a time."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from overnight.commands.wanted import ASSUMED_SECONDS, Lane, demand_of, joined, ready_lanes, seconds_of, workers_for
from overnight.core.events import TaskRules
from overnight.core.states import RunPhase
from overnight.errors import UsageError
from overnight.keyring import Keyring
from overnight.messages import SpecChunk
from overnight.structure import Structure
from tests.support.stores import run_record

RUN = replace(run_record("r1"), phase=RunPhase.ACTIVE, queue="default", resource_limits={"gpu": 2.0})


def lanes_of(states: str, needs: list[list[int]], rules: dict[int, TaskRules] | None = None) -> dict[str, list[Lane]]:
    number = len(states)
    ids = [f"t{task}" for task in range(number)]
    chunk = SpecChunk(0, ids, ["f"], [0] * number, needs, rules or {}).sealed("r1", Keyring())
    return ready_lanes(Structure("r1", [chunk], Keyring()), states.encode(), RUN, frozenset({0}), {"db": 3.0})


def test_ready_work_is_what_could_run_now_and_what_is_being_run() -> None:
    """Task 0 backs off, 1 waits for it; 2 is queued, 3 runs, 4 has what it needs, 5 has ended."""
    lanes = lanes_of("ppqxpd", [[], [0], [], [], [5], []])
    assert lanes == {"default": [Lane(None, Counter({"f": 3}))]}


def test_tasks_of_another_queue_or_with_a_limit_are_lanes_of_their_own() -> None:
    rules = {1: TaskRules(queue="big"), 2: TaskRules(resources=(("gpu", 1.0), ("disk", 9.0)))}
    lanes = lanes_of("pppp", [[], [], [], []], rules)
    assert lanes == {
        "big": [Lane(None, Counter({"f": 1}))],
        "default": [Lane(2, Counter({"f": 1})), Lane(None, Counter({"f": 1}))],
    }


def test_a_limit_over_all_runs_holds_for_the_lanes_of_all_runs_together() -> None:
    rules = {1: TaskRules(resources=(("db", 1.0),)), 2: TaskRules(resources=(("db", 1.0), ("gpu", 1.0)))}
    [free, one, two] = lanes_of("qpp", [[], [], []], rules)["default"]
    assert (free.shared, one.shared, two.shared) == ((), (("db", 1.0),), (("db", 1.0),))
    assert (one.most, two.most) == (None, 2)
    one.functions = two.functions = Counter({"f": 9})
    [alone, both] = joined([one, free, two], {"db": 3.0})
    assert (alone, both.most, both.functions) == (free, 3, Counter({"f": 18}))
    assert joined([two], {"db": 3.0})[0].most == 2
    assert demand_of("q", joined([one, two], {"db": 3.0}), 1.0, {"f": 6.0}).wanted == 3


def test_workers_are_as_many_as_the_work_needs_and_no_more_than_can_work() -> None:
    plenty = [Lane(None, Counter({"f": 100}))]
    assert demand_of("q", plenty, 60.0, {"f": 6.0}).wanted == 10
    assert demand_of("q", plenty, 1.0, {"f": 6.0}).wanted == 100
    assert demand_of("q", plenty, 1e6, {"f": 6.0}).wanted == 1
    assert demand_of("q", [Lane(2, Counter({"f": 100}))], 60.0, {"f": 6.0}).wanted == 2
    assert demand_of("q", [], 60.0, {}).wanted == 0


def test_a_task_is_not_cut_to_fill_two_workers() -> None:
    """One worker ends one of them in ten minutes and no more, though three make no more than twenty."""
    assert demand_of("q", [Lane(None, Counter({"f": 3}))], 600.0, {"f": 400.0}).wanted == 3
    assert demand_of("q", [Lane(None, Counter({"f": 5}))], 1000.0, {"f": 400.0}).wanted == 3


def test_small_tasks_fill_what_long_ones_leave() -> None:
    lengths = {"long": 40.0, "short": 1.0, "endless": 3600.0}
    both = Lane(None, Counter({"long": 2, "short": 40}))
    assert demand_of("q", [both], 60.0, lengths).wanted == 2
    assert demand_of("q", [Lane(None, Counter({"long": 2, "short": 41}))], 60.0, lengths).wanted == 3
    assert demand_of("q", [Lane(None, Counter({"endless": 1, "short": 26}))], 10.0, lengths).wanted == 1 + 3


def test_the_small_work_of_many_runs_and_limits_takes_one_worker() -> None:
    runs = [Lane(None, Counter({"f": 1})) for _ in range(20)]
    assert demand_of("q", runs, 600.0, {"f": 1.0}).wanted == 1
    assert demand_of("q", [*runs, Lane(1, Counter({"f": 5}))], 600.0, {"f": 1.0}).wanted == 1
    assert demand_of("q", [*runs, Lane(1, Counter({"g": 2}))], 600.0, {"f": 1.0, "g": 400.0}).wanted == 1 + 1


def test_workers_are_enough_and_few() -> None:
    """No fewer than the work takes undivided; no more than twice that, and one for each task that takes longer."""
    numbers = Random(7)
    for _ in range(300):
        lengths = Counter({numbers.uniform(0.001, 120.0): numbers.randint(1, 50) for _ in range(numbers.randint(1, 9))})
        found = workers_for(lengths, 60.0)
        own = sum(number for seconds, number in lengths.items() if seconds > 60)
        work = sum(seconds * number for seconds, number in lengths.items() if seconds <= 60)
        assert own + work / 60 <= found + 1e-6
        assert found <= own + 2 * work / 60 + 1


def test_a_task_of_unknown_duration_is_counted_as_a_minute_and_said_to_be() -> None:
    found = demand_of("q", [Lane(None, Counter({"f": 3, "g": 1}))], 60.0, {"g": 60.0})
    assert (found.seconds, found.unknown, found.wanted) == (3 * ASSUMED_SECONDS + 60, 3, 4)


def test_times_are_told_in_units() -> None:
    assert [seconds_of(text) for text in ("90", "90s", "30min", "1.5h", "2 d")] == [90, 90, 1800, 5400, 172_800]
    for text in ("", "soon", "5x", "0", "-3min", "9" * 400):
        with pytest.raises(UsageError, match="such as 90s, 30min, 2h or 1d"):
            seconds_of(text)
