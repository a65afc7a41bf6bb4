"""What is told of an attempt that both its log and its worker tell of: each line once, in order where that can be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.certificates import last_part
from overnight.commands.telling import MISSING, Told
from overnight.log_tails import LONGEST_TAIL_BYTES


def test_what_is_printed_after_a_record_is_told_before_the_log_has_it_and_not_again() -> None:
    told = Told()
    assert told.by_log("started\n") == "started\n"
    assert told.by_worker("started\n") == ""
    assert told.by_worker("started\nnap 1\n") == "nap 1\n"
    assert told.by_worker("started\nnap 1\nnap 2\nna") == "nap 2\nna"
    assert told.latest == "started\nnap 1\nnap 2\nna"
    assert told.by_log("nap 1\nnap 2\nnap 3\nended\n") == "p 3\nended\n"


def test_last_lines_that_are_older_than_the_log_tell_nothing() -> None:
    told = Told()
    told.by_log("started\nnap 1\nnap 2\n")
    assert told.by_worker("started\nnap 1\n") == ""
    assert told.by_log("nap 3\n") == "nap 3\n"


def test_lines_that_are_missing_are_told_when_the_log_brings_them() -> None:
    told = Told()
    told.by_log("started\n")
    assert told.by_worker("nap 8\nnap 9\n") == f"{MISSING}nap 8\nnap 9\n"
    assert told.by_worker("nap 9\nnap 10\n") == "nap 10\n"
    late = told.by_log("nap 1\nnap 7\nnap 8\nnap 9\nnap 10\nended\n")
    assert late == f"{MISSING}nap 1\nnap 7\n{MISSING}ended\n"


def test_a_log_that_is_read_amid_what_was_told_tells_the_rest_once() -> None:
    told = Told()
    assert told.by_worker("a\nb\nc\n") == "a\nb\nc\n"
    assert [told.by_log(piece) for piece in ("a\n", "b\nc", "\nd\n", "e\n")] == ["", "", "d\n", "e\n"]


def test_what_the_log_holds_otherwise_is_told_whole() -> None:
    told = Told()
    assert told.by_worker("printed with a byte \\xe2\n") == "printed with a byte \\xe2\n"
    assert told.by_log("printed with a byte \N{EURO SIGN}\n") == "printed with a byte \N{EURO SIGN}\n"
    assert told.by_log("more\n") == "more\n"


@given(st.lists(st.sampled_from(["print", "record", "log", "worker", "late worker"]), max_size=60))
def test_whatever_comes_when_each_line_is_told_once_in_order(course: list[str]) -> None:
    """Of a task whose lines fit into what its worker tells."""
    told, said, lines, logged, read = Told(), "", "", 0, 0
    news = [""]
    for number, what in enumerate(course):
        match what:
            case "print" | "record":
                lines += f"{what} {number}\n"
                logged = len(lines) if what == "record" else logged
            case "log":
                said += told.by_log(lines[read:logged])
                read = logged
            case "worker":
                news.append(lines)
                said += told.by_worker(lines) if lines else ""
            case _:
                said += told.by_worker(news[-1]) if news[-1] else ""
    assert lines.startswith(said)
    assert said + told.by_log(lines[read:]) == lines


@pytest.mark.parametrize("length", [1, 100, LONGEST_TAIL_BYTES // 10 + 1])
def test_a_burst_of_lines_meets_what_was_told(length: int) -> None:
    told, lines = Told(), ""
    told.by_log("started\n")
    said = ""
    for number in range(length):
        lines += f"line {number:4}\n"
        said += told.by_worker(last_part(f"started\n{lines}", LONGEST_TAIL_BYTES))
    assert said == lines
    assert told.by_log(f"{lines}ended\n") == "ended\n"
