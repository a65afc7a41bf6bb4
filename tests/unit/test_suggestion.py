"""What is said about a task id that nobody knows."""

from __future__ import annotations

from overnight.commands.suggestion import ending_about

IDS = ["count json/decoder.py", "count json/encoder.py", "merge", "page"]


def test_the_nearest_id_is_offered() -> None:
    assert ending_about("megre", IDS) == "; did you mean 'merge'?"


def test_a_part_of_an_id_gives_those_that_contain_it() -> None:
    assert ending_about("JSON", IDS) == "; did you mean 'count json/decoder.py' or 'count json/encoder.py'?"


def test_an_id_like_no_other_tells_some_that_there_are() -> None:
    assert ending_about("nosuch", IDS[2:]) == "; there are 'merge' and 'page'."
    many = [f"part {number}" for number in range(40)]
    assert ending_about("nosuch", many).endswith("'part 4' and 35 more.")


def test_a_graph_without_tasks_has_none() -> None:
    assert ending_about("nosuch", []) == "; there are none."
