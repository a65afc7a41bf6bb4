"""Rates, times and counts as people read them."""

from __future__ import annotations

import pytest

from overnight.commands.progress import Pace, Running, Standing, pace_text, summary_line
from overnight.commands.screen import duration
from overnight.commands.time_left import TimeLeft
from overnight.core.states import TaskState

DONE, CACHED = TaskState.DONE, TaskState.CACHED


def test_a_rate_counts_neither_cached_tasks_nor_what_ended_before_the_first_look() -> None:
    pace = Pace()
    assert pace.note(100.0, {DONE: 10, CACHED: 50}) is None
    assert pace.note(110.0, {DONE: 30, CACHED: 50}) == 2.0


def test_a_rate_counts_neither_skipped_nor_cancelled_tasks() -> None:
    pace = Pace()
    pace.note(0.0, {})
    assert pace.note(10.0, {TaskState.SKIPPED: 40, TaskState.CANCELLED: 40}) is None
    assert pace.note(20.0, {DONE: 15, TaskState.FAILED: 5, TaskState.SKIPPED: 80}) == 1.0


def test_a_rate_is_unknown_before_a_second_has_passed() -> None:
    pace = Pace()
    pace.note(0.0, {})
    assert pace.note(0.5, {DONE: 5}) is None


def test_a_rate_is_that_of_the_last_half_minute() -> None:
    pace = Pace()
    for second in range(101):
        pace.note(float(second), {DONE: 10 * min(second, 50) + max(0, second - 50)})
    assert pace.note(101.0, {DONE: 551}) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("rate", "text"),
    [(13e3, "13000.0 tasks/s"), (0.5, "0.5 tasks/s"), (0.1, "6.0 tasks/min"), (1e-3, "3.6 tasks/h")],
)
def test_a_slow_pace_is_told_in_a_longer_unit(rate: float, text: str) -> None:
    assert pace_text(rate) == text


def test_a_line_names_the_task_that_has_run_longest_and_escapes_it() -> None:
    standing = Standing(
        {DONE: 3, TaskState.RUNNING: 2}, 10, 1.5, TimeLeft(90.0, 90.2), [Running("a\nb", 12.0), Running("c", 3.0)]
    )
    line = r"3/10 ended; 3 done, 2 running; 1.5 tasks/s; about 1:30 left; oldest: a\x0ab, 12 s"
    assert summary_line(standing) == line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0 s"), (0, "0.0 s"), (2e-5, "20 µs"), (0.04, "40 ms"), (0.44, "0.4 s"), (12, "12 s"), (185, "3:05"),
        (7385, "2:03:05"), (266_600, "3 d 02:03"),
    ],
)  # fmt: skip
def test_a_duration_reads_as_people_say_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text
