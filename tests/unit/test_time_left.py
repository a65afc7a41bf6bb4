"""How much time a run still takes: bounds that hold for every order in which its tasks may run."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.commands.time_left import (
    HANDLING_SECONDS,
    TimeLeft,
    at_pace,
    expected_seconds,
    read_time_left,
    time_left,
)
from overnight.core.events import TaskRules
from overnight.core.states import RunPhase, TaskState
from overnight.forecast import Pools
from overnight.keyring import Keyring
from overnight.messages import SpecChunk
from overnight.store.memory import MemoryStore
from overnight.store.records import WorkerRecord
from overnight.structure import Structure
from overnight.wire import PROTOCOL
from tests.support.stores import Night, begin, run_record, success

PENDING, DONE, RUNNING = TaskState.PENDING, TaskState.DONE, TaskState.RUNNING
Rows = list[tuple[str, Sequence[int]]]


def left(rows: Rows, codes: list[TaskState], seconds: dict[str, float], workers: int = 2, **ages: float) -> TimeLeft:
    found = time_left(
        rows, bytes(codes), seconds, {int(task[1:]): age for task, age in ages.items()}, Pools.single(workers)
    )
    assert found is not None
    return found


def test_independent_tasks_are_shared_among_the_workers() -> None:
    found = left([("f", ())] * 100, [PENDING] * 100, {"f": 1.0})
    assert found.least == pytest.approx(50, abs=0.1)
    assert found.most == pytest.approx(50.5, abs=0.1)


def test_a_chain_takes_its_length_however_many_workers_there_are() -> None:
    rows: Rows = [("f", ()), ("f", (0,)), ("f", (1,))]
    found = left(rows, [DONE, PENDING, PENDING], {"f": 10.0}, workers=8)
    assert found.least == pytest.approx(20, abs=0.1)
    assert found.text() == "about 20 s left"


def test_a_task_that_runs_is_worth_what_is_left_of_it() -> None:
    assert left([("f", ())], [RUNNING], {"f": 10.0}, workers=1, t0=7.0).least == pytest.approx(3, abs=0.1)


def test_a_task_that_runs_for_longer_than_expected_may_do_so_for_as_long_again() -> None:
    found = left([("f", ()), ("f", (0,))], [RUNNING, PENDING], {"f": 10.0}, workers=1, t0=70.0)
    assert [found.least, found.most] == pytest.approx([10, 80], abs=0.1)


def test_a_function_of_which_nothing_is_known_leaves_the_end_open() -> None:
    found = left([("f", ()), ("g", ())], [PENDING] * 2, {"f": 65.0}, workers=1)
    assert found.most is None
    assert found.text() == "about 1:05 or more left"
    assert TimeLeft(0.0, None).text() == "time left unknown"


def test_nothing_is_said_where_all_tasks_have_ended() -> None:
    assert time_left([("f", ())], bytes([DONE]), {"f": 1.0}, {}, Pools.single(2)) is None


def test_workers_of_one_queue_are_no_help_to_another() -> None:
    pools = Pools(11, {"default": 10, "gpu": 1}, lambda task: "gpu" if task < 20 else "default")
    found = time_left([("f", ())] * 120, bytes([PENDING] * 120), {"f": 1.0}, {}, pools)
    assert found is not None
    assert found.least == pytest.approx(20, abs=0.1)
    assert found.most == pytest.approx(30.9, abs=0.1)
    pools = Pools(2, {"default": 2, "gpu": 2}, pools.of)
    shared = time_left([("f", ())] * 120, bytes([PENDING] * 120), {"f": 1.0}, {}, pools)
    assert shared is not None
    assert [shared.least, shared.most] == pytest.approx([60, 60.5], abs=0.1)


def test_both_ends_that_read_the_same_are_said_once() -> None:
    assert TimeLeft(61.1, 61.4).text() == "about 1:01 left"
    assert TimeLeft(61.1, 75.0).text() == "about 1:01 to 1:15 left"


def test_nothing_is_said_of_a_run_that_cannot_go_on() -> None:
    """A task's own queue without a worker, and a note of the scheduler, keep the run from its end."""
    store = MemoryStore()
    worker = WorkerRecord("w", "host", 1, ["default"], "3.11.7", PROTOCOL, started_at=0.0)
    gpu = replace(worker, instance="g", queues=["gpu"])
    run = replace(run_record("r1"), phase=RunPhase.ACTIVE, queue="default")
    chunk = SpecChunk(0, ["a", "b"], ["f"], [0, 0], [[], []], {1: TaskRules(queue="gpu")}).sealed("r1", Keyring())
    structure = Structure("r1", [chunk], Keyring())
    store.write_durations({"f": (4.0, 9)})

    def read(*workers: WorkerRecord, states: bytes = b"xp", note: str = "") -> TimeLeft | None:
        return read_time_left(store, replace(run, note=note), structure, states, workers, 0.0, None)

    assert read(worker) is None
    assert read(worker, replace(gpu, draining=True)) is None
    both = read(worker, gpu)
    assert both is not None
    assert [both.least, both.most] == pytest.approx([4, 8], abs=0.1)
    assert read() is None
    assert read(worker, gpu, note="it lacks the key") is None
    assert read(worker, states=b"xd") is not None


@given(
    st.lists(st.tuples(st.integers(1, 30), st.lists(st.integers(0, 100), max_size=3)), min_size=1, max_size=25),
    st.integers(1, 4),
)
def test_a_schedule_in_which_no_worker_idles_ends_within_the_range(
    tasks: list[tuple[int, list[int]]], workers: int
) -> None:
    rows: Rows = []
    seconds = {}
    for number, (cost, wanted) in enumerate(tasks):
        rows.append((f"f{number}", sorted({one % number for one in wanted} if number else set())))
        seconds[f"f{number}"] = float(cost)
    found = left(rows, [PENDING] * len(rows), seconds, workers)
    took = played(rows, seconds, workers)
    assert found.most is not None
    assert found.least - (len(rows) + 1) * HANDLING_SECONDS <= took <= found.most


def test_what_is_left_of_short_tasks_reaches_to_what_the_pace_says() -> None:
    assert at_pace(TimeLeft(1.0, 2.0), 10.0) == TimeLeft(7.0, 13.0)
    assert at_pace(TimeLeft(20.0, 21.0), 10.0) == TimeLeft(20.0, 21.0)
    assert at_pace(TimeLeft(1.0, None), 10.0) == TimeLeft(7.0, None)


def played(rows: Rows, seconds: dict[str, float], workers: int) -> float:
    """Run the tasks on so many workers, each taking the first ready one, and return when the last has ended."""
    now, running, ended, started = 0.0, list[tuple[float, int]](), set[int](), set[int]()
    while len(ended) < len(rows):
        for task, (function, dependencies) in enumerate(rows):
            if task not in started and len(running) < workers and ended.issuperset(dependencies):
                started.add(task)
                heapq.heappush(running, (now + seconds[function], task))
        now, task = heapq.heappop(running)
        ended.add(task)
    return now


def test_what_was_not_learned_before_is_told_by_tasks_of_this_run_that_have_ended() -> None:
    store = MemoryStore()
    night: Night = begin(store, 3)
    store.write_durations({"f": (4.0, 9)})
    night.start("b", [1])
    report = success(1)
    night.commit("b", type(report)(1, True, report.record, report.digest, report.lineage, b'{"seconds":2.5}', 2.5))
    rows: Rows = [("f", ()), ("g", ()), ("g", ())]
    assert expected_seconds(store, "r1", rows, store.states("r1")[::2]) == {"f": 4.0, "g": 2.5}
