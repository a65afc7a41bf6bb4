"""How the end of a run is told: a message of several lines stays readable, and bounded."""

from __future__ import annotations

from overnight.commands.ending import MOST_LINES, FailedTask, _failed_lines


def failed(message: str) -> FailedTask:
    return FailedTask("hog", "TaskDied", message, "", None, 1)


def test_the_first_line_stands_with_the_task_and_the_rest_below_it() -> None:
    lines = _failed_lines(failed("killed.\nlast words\n\x1b[31mred"), verbose=False)
    assert lines == ["  failed: hog: TaskDied: killed.", "    last words", "    \\x1b[31mred"]


def test_a_message_of_many_lines_is_cut() -> None:
    assert len(_failed_lines(failed("line\n" * 100), verbose=False)) == 1 + MOST_LINES


def test_a_failure_without_a_message_is_named_by_its_type() -> None:
    assert _failed_lines(failed(""), verbose=False) == ["  failed: hog: TaskDied"]
