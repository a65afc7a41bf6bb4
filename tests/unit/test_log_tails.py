"""The last lines of a task that runs: what is taken of them, what is believed, and what is new."""

from __future__ import annotations

import pytest

from overnight.certificates import DeathCertificate
from overnight.commands.task_logs import harmless, kept_of
from overnight.errors import BadSeal
from overnight.keyring import Keyring
from overnight.log_tails import LONGEST_RECORD_BYTES, LONGEST_TAIL_BYTES, added_to, opened_tail, sealed_tail
from overnight.store.records import RunRecord
from overnight.wire import Purpose, seal

OPEN = Keyring()
RUN = RunRecord("r1", "name", "key", "", "me", "here", "3.11", 1, 2, "default", "overnight run x")


def test_the_end_of_a_text_comes_back_from_the_beginning_of_a_line_on() -> None:
    text = "".join(f"line {number}\x1b[31m\n" for number in range(100_000))
    record = sealed_tail(text, "r1", 7, 2, OPEN)
    assert len(record) <= LONGEST_RECORD_BYTES
    told = opened_tail(record, "r1", 7, 2, OPEN)
    assert len(told) > LONGEST_TAIL_BYTES / 2
    assert text.endswith(told)
    assert told.startswith("line ")


@pytest.mark.parametrize("place", [("r2", 7, 2), ("r1", 8, 2), ("r1", 7, 3)])
def test_lines_of_another_run_task_or_attempt_are_refused(place: tuple[str, int, int]) -> None:
    with pytest.raises(BadSeal):
        opened_tail(sealed_tail("text", "r1", 7, 2, OPEN), *place, OPEN)


def test_a_record_that_is_damaged_unsigned_or_too_long_is_refused() -> None:
    key = Keyring((b"k" * 32,))
    place = {"run": "r1", "task": 7, "attempt": 2}
    for keyring, record in (
        (key, sealed_tail("text", "r1", 7, 2, OPEN)),
        (OPEN, sealed_tail("text", "r1", 7, 2, OPEN)[:-1]),
        (OPEN, b""),
        (OPEN, seal(Purpose.CERTIFICATE, place, b"text", OPEN)),
        (OPEN, seal(Purpose.TAIL, place, bytes(LONGEST_RECORD_BYTES), OPEN)),
    ):
        with pytest.raises(BadSeal):
            opened_tail(record, "r1", 7, 2, keyring)


@pytest.mark.parametrize(
    ("told", "text", "added"),
    [
        ("", "a\n", "a\n"),
        ("a\nb\n", "a\nb\n", ""),
        ("a\nb\n", "b\nc\n", "c\n"),
        ("a\nb", "b and more\nc", " and more\nc"),
        ("a\nb\n", "d\n", None),
    ],
)
def test_what_is_new_follows_what_was_told(told: str, text: str, added: str | None) -> None:
    assert added_to(told, text) == added


@pytest.mark.parametrize(
    ("told", "lines"),
    [
        ("one\ntwo\n", ["three"]),
        ("one\ntwo", ["", "three"]),
        ("one\ntw", ["o", "three"]),
        ("one\ntwo\nthree\n", []),
        ("one\ntwo\nthree", [""]),
        ("zero\n", ["---- t run r1 attempt 1 (from the server)", "two", "three"]),
    ],
)
def test_the_end_of_an_attempt_goes_on_where_its_last_lines_had_ended(told: str, lines: list[str]) -> None:
    tail = "two\nthree" if told == "zero\n" else "one\ntwo\nthree"
    certificate = DeathCertificate(1, "SIGKILL", "TaskDied", "died", tail=tail)
    assert list(kept_of(certificate, RUN, "t", "", told)) == [*lines, "t: ended by SIGKILL: TaskDied: died"]


def test_what_was_made_harmless_once_is_shown_as_it_is_the_second_time() -> None:
    """M2: what the server tells is escaped where it comes in, and again before a terminal."""
    text = "C:\\new\tred \x1b[31m\nnext\u202e"
    once = harmless(text)
    assert once == "C:\\new\tred \\x1b[31m\nnext\\u202e"
    assert harmless(once) == once
