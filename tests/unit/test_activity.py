"""Which tasks are told as running, and by whom."""

from __future__ import annotations

from dataclasses import replace

from overnight.commands.activity import Held, as_fact, held_tasks, lines
from overnight.commands.workers import as_of_now
from overnight.core.states import TaskState
from overnight.store.memory import MemoryStore
from overnight.store.records import WorkerRecord
from tests.support.stores import begin, success

DONE, RUNNING = TaskState.DONE, TaskState.RUNNING
IDS = ["zero", "one", "t\nwo", "three", "four", "five", "six", "seven"]


def worker(task: int | None, run_id: str = "r") -> WorkerRecord:
    return WorkerRecord("w", "host", 7, ("default",), "3.11", 1, 0.0, run_id=run_id, task=task, task_since=90.0)


def test_a_task_that_no_worker_has_named_yet_is_told_too() -> None:
    named = worker(2)
    held = held_tasks("r", bytes([DONE, RUNNING, RUNNING]), [named, worker(None), worker(1, run_id="other")])
    assert held == [Held(2, named), Held(1, None)]
    assert [as_fact(each, IDS[each.task], 100.0)["seconds"] for each in held] == [10.0, None]


def test_a_worker_that_names_a_task_which_has_ended_since_runs_nothing() -> None:
    assert held_tasks("r", bytes([DONE]), [worker(0)]) == []


def test_people_read_who_runs_what_and_a_few_of_those_that_are_only_claimed() -> None:
    held = held_tasks("r", bytes([RUNNING] * 8), [worker(2)])
    assert lines(held, IDS, 100.0) == [
        r"  running: t\x0awo for 10 s on host, process 7",
        "  claimed by workers: zero, one, three, four, five and 2 more",
    ]


def test_a_worker_is_not_told_to_run_what_has_ended_since_it_said_so() -> None:
    """Nor of a run that is over, or that the server has lost, nor what another batch of the run runs."""
    store = MemoryStore()
    night = begin(store, 3)
    night.start("b", [0, 1])
    night.commit("b", success(0))
    names = {"ended": worker(0, "r1"), "runs": worker(1, "r1"), "between": worker(None, "r1"), "lost": worker(0, "r2")}
    told = [replace(one, instance=name) for name, one in names.items()]
    now, ended = as_of_now(store, told)
    assert ended == {"ended", "lost"}
    assert [(one.run_id, one.task) for one in now] == [(None, None), ("r1", 1), ("r1", None), (None, None)]
    night.commit("b", success(1))
    assert as_of_now(store, told)[1] == set(names)
