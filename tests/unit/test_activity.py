"""Which tasks are told as running, and by whom."""

from __future__ import annotations

from overnight.commands.activity import Held, as_fact, held_tasks, lines
from overnight.core.states import TaskState
from overnight.store.records import WorkerRecord

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
