"""Names made from task ids (BEHAVIOUR I)."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess

import pytest

from overnight.naming import (
    bounded_task_id,
    cut_task_id,
    file_name,
    flag_name,
    log_name,
    safe_task_id,
    shell_word,
    shown,
    without_controls,
)

FREE_TEXT = ["a b", "a/b", "C:\\x", "100%", "ä\n", "s3://b/x", "../../x", "-t", ".hidden", "A", "a.b", "😀"]


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_long_id_is_cut_to_200_characters_and_stays_distinct() -> None:
    """I2."""
    long = "x" * 201
    assert bounded_task_id(long) == cut_task_id(long) == "x" * 159 + "_" + sha(long)[:40]
    assert len(cut_task_id(long)) == 200
    assert bounded_task_id("y" * 200) == "y" * 200
    assert cut_task_id(long + "a") != cut_task_id(long + "b")


def test_a_plain_id_is_its_own_file_name_and_any_other_ends_in_a_digest() -> None:
    """I3."""
    assert file_name("part-1") == "part-1"
    assert file_name("A") == "A." + sha("A")[:32]
    for task_id in ("part 1", "part.1", "part:1"):
        assert file_name(task_id) == "part_1." + sha(task_id)[:32]


@pytest.mark.parametrize("task_id", FREE_TEXT)
def test_a_file_name_is_one_safe_component(task_id: str) -> None:
    """I4, I5."""
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", file_name(task_id))
    assert flag_name(task_id) == file_name(task_id) + ".flag"
    assert log_name(task_id) == "log_" + file_name(task_id) + ".log"


def test_file_names_of_distinct_ids_differ_also_when_case_is_folded() -> None:
    """I4."""
    ids = [*FREE_TEXT, *(text.lower() for text in FREE_TEXT), "e\u0301", "\u00e9"]
    assert len({file_name(task_id).lower() for task_id in ids}) == len(set(ids))


def test_an_id_is_shown_on_one_line_without_ambiguity() -> None:
    """I7."""
    assert shown("a\nb\\n\x1b\u2028") == "a\\x0ab\\\\n\\x1b\\u2028"
    assert shown("a\n") != shown("a\\x0a")


def test_the_documented_safe_id_replaces_nine_characters_and_nothing_else() -> None:
    """I8."""
    assert safe_task_id("a.b/c,d(e)f-g:h;i j") == "a_b_c_d_e_f_g_h_i_j"
    assert safe_task_id("ä_%\n") == "ä_%\n"
    long = "x-" * 101
    assert safe_task_id(long) == "x_" * 75 + "_" + sha(long)[:40]
    assert safe_task_id("y" * 200) == "y" * 200


def test_what_turns_the_order_of_letters_round_is_shown_and_letters_of_any_script_stay() -> None:
    assert shown("a\u202eb\u2066c") == "a\\u202eb\\u2066c"
    assert shown("\u05e9\u05dc\u05d5\u05dd \u65e5\u672c") == "\u05e9\u05dc\u05d5\u05dd \u65e5\u672c"
    assert without_controls("C:\\x\n\x1b[2J\u202e") == "C:\\x\n\\x1b[2J\\u202e"


@pytest.mark.parametrize(
    "word",
    ["a", "a b", "it's", "", "back\\slash", "esc \x1b[31mred's\\", "a\nb\rc", "\x85\u202e\u2066\u2028", "\udcff", "%s"],
)
def test_a_word_to_be_typed_reaches_the_command_as_it_was_and_steers_no_terminal(word: str) -> None:
    typed = shell_word(word)
    assert without_controls(typed) == typed
    assert "\n" not in typed
    given = subprocess.run(["bash", "-c", f"printf %s {typed}"], capture_output=True, check=True).stdout
    assert os.fsdecode(given) == word
