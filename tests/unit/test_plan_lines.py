"""What people read of a plan."""

from __future__ import annotations

from overnight.commands.plan_lines import rows_of, total_lines
from overnight.commands.planning import Plan, PlannedTask, Told
from overnight.config import Settings
from overnight.forecast import Forecast


def plan(*tasks: PlannedTask, fresh: int = 0, known: int = 0) -> Plan:
    seconds = [task.seconds for task in tasks if task.seconds is not None]
    forecast = Forecast(sum(seconds), max(seconds, default=0.0), len(seconds) + known, len(tasks) - len(seconds))
    return Plan(tasks, [f"fresh {number}" for number in range(fresh)], {}, forecast, Told({}, 1), "records")


def task(
    number: int, *, function: str = "m:count", reason: str = "never ran", seconds: float | None = 1.0
) -> PlannedTask:
    return PlannedTask(f"t{number}", function, reason, seconds, None)


def test_one_task_is_told_as_one_and_a_failed_one_is_not_said_never_to_have_run() -> None:
    failed = task(0, function="m:index", reason="failed with ValueError", seconds=None)
    lines = list(total_lines(plan(failed, task(1), fresh=1), Settings()))
    assert lines[0] == "2 of 3 tasks would run. 1 is up to date."
    assert lines[-1].endswith(", without 1 task of unknown duration (index).")
    assert next(total_lines(plan(failed, fresh=2), Settings())).endswith(" 2 are up to date.")


def test_tasks_in_a_row_that_are_alike_are_told_by_a_few() -> None:
    many = [task(number) for number in range(20)]
    titles, rows = rows_of(plan(*many, task(20, function="m:merge"), *many[:2]), every_task=False)
    assert titles == ["TASK", "TAKES", "REASON"]
    assert [row[0] for row in rows] == ["t0", "t1", "t2", "... 17 more of count", "t20", "t0", "t1"]
    assert rows[3] == ["... 17 more of count", "17 s", "likewise; -v lists them"]
    assert len(rows_of(plan(*many), every_task=True)[1]) == 20


def test_reasons_that_differ_only_in_a_file_that_a_task_makes_are_alike() -> None:
    many = [task(number, reason=f"output out{number} is missing", seconds=None) for number in range(20)]
    titles, rows = rows_of(plan(*many), every_task=False)
    assert titles == ["TASK", "REASON"]
    assert rows[0] == ["t0", "output out0 is missing"]
    assert rows[-1] == ["... 17 more of count", "likewise; -v lists them"]
