"""Pictures of graphs: what is folded, and that no id of a task is taken for a part of the language."""

from __future__ import annotations

import builtins
import re
from collections.abc import Sequence
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from overnight.errors import UsageError
from overnight.pictures.dot import as_dot
from overnight.pictures.layout import place
from overnight.pictures.mermaid import as_mermaid
from overnight.pictures.model import COLOURS, Picture, TaskInPicture, make_picture
from overnight.pictures.svg import as_svg

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = 'a "b" <c> & \\ ]]> | `d` {e} \x1b[31m\nf #34;'


def task(name: str, function: str, needs: Sequence[int] = (), state: str = "done") -> TaskInPicture:
    return TaskInPicture(name, f"flow:{function}", state, needs)


def map_merge_map(n: int) -> list[TaskInPicture]:
    """``n`` x count -> merge -> ``n`` x count -> report."""
    tasks = [task(f"count {number}", "count") for number in range(n)]
    tasks.append(task("merge", "merge", range(n), "failed"))
    tasks += [task(f"again {number}", "count", [n], "skipped") for number in range(n)]
    return [*tasks, task("report", "report", range(n + 1, 2 * n + 1), "skipped")]


def test_a_small_graph_is_shown_task_by_task() -> None:
    picture = make_picture("t", map_merge_map(3), fold_above=10)
    assert [node.label for node in picture.nodes][:4] == ["count 0", "count 1", "count 2", "merge"]
    assert (len(picture.edges), picture.is_folded) == (9, False)


def test_a_large_graph_is_folded_by_function_once_for_each_level() -> None:
    picture = make_picture("t", map_merge_map(300), fold_above=100)
    assert [(node.label, dict(node.counts)) for node in picture.nodes] == [
        ("count x 300", {"done": 300}),
        ("merge", {"failed": 1}),
        ("count x 300", {"skipped": 300}),
        ("report", {"skipped": 1}),
    ]
    assert picture.edges == {(0, 1): 300, (1, 2): 300, (2, 3): 300}
    assert picture.counts == {"done": 300, "failed": 1, "skipped": 301}


def test_a_chain_of_one_function_is_one_node_and_two_in_turn_are_two() -> None:
    chain = [task(f"s{n}", "step", [n - 1] if n else []) for n in range(500)]
    folded = make_picture("t", chain, fold_above=100)
    assert [node.label for node in folded.nodes] == ["step x 500"]
    assert "499 of its dependencies are among themselves" in folded.nodes[0].note
    turns = [task(f"s{n}", ("to", "fro")[n % 2], [n - 1] if n else []) for n in range(500)]
    picture = make_picture("t", turns, fold_above=100)
    assert [node.label for node in picture.nodes] == ["to x 250", "fro x 250"]
    assert as_svg(picture)


def test_dependencies_that_hide_each_other_are_folded_too() -> None:
    dense = [task(f"a{n}", "a") for n in range(40)] + [task(f"b{n}", "b", range(40)) for n in range(40)]
    assert len(make_picture("t", dense, fold_above=100).nodes) == 2


def test_a_node_of_many_tasks_has_a_bar_with_the_share_of_each_state() -> None:
    tasks = [task(f"t{n}", "f", state="failed" if n < 50 else "done") for n in range(200)]
    root = ET.fromstring(as_svg(make_picture("t", tasks, fold_above=10)))
    bars = [rect for rect in root.iter(f"{SVG}rect") if rect.get("stroke-width") == "0.5"]
    widths = {bar.get("fill"): float(bar.get("width", "0")) for bar in bars}
    assert widths[COLOURS["done"][0]] == pytest.approx(3 * widths[COLOURS["failed"][0]], rel=0.02)


def hostile_picture() -> Picture:
    return make_picture(HOSTILE, [task(HOSTILE, "f"), task("x", "f", [0], "failed")], fold_above=10)


def test_an_id_is_never_markup_in_an_svg() -> None:
    text = as_svg(hostile_picture())
    root = ET.fromstring(text)
    assert "\x1b" not in text
    assert {element.tag.removeprefix(SVG) for element in root.iter()} == {
        "svg", "title", "rect", "text", "g", "defs", "marker", "path",
    }  # fmt: skip
    assert any("<c> & \\\\ ]]> | `d` {e} \\x1b[31m" in (title.text or "") for title in root.iter(f"{SVG}title"))


def test_an_id_is_never_language_in_dot_or_mermaid() -> None:
    dot, mermaid = as_dot(hostile_picture()), as_mermaid(hostile_picture())
    assert "\x1b" not in dot + mermaid
    quoted = r'"(?:[^"\\\n]|\\.)*"'
    assert re.search(
        rf"^  n0 \[label={quoted}, tooltip={quoted}, fillcolor=\"#\w+\", color=\"#\w+\"\];$", dot, re.MULTILINE
    )
    assert re.search(r'^  n0\("[^"<>&`\[\]{}|]*"\):::is_done$', mermaid.replace("<br>", ""), re.MULTILINE)
    assert "  n0 -> n1;" in dot
    assert "  n0 --> n1" in mermaid


def test_nodes_do_not_overlap_and_dependencies_are_on_the_left() -> None:
    picture = make_picture("t", map_merge_map(12), fold_above=100)
    sizes = [(80.0, 24.0)] * len(picture.nodes)
    layout = place(sizes, picture.edges)
    for start, end in picture.edges:
        assert layout.centres[start][0] + 80 < layout.centres[end][0]
    boxes = sorted(layout.centres)
    assert all(abs(x - u) >= 80 or abs(y - v) >= 24 for (x, y), (u, v) in pairwise(boxes))
    assert all(40 <= x <= layout.width - 40 and 12 <= y <= layout.height - 12 for x, y in layout.centres)
    assert [node for node, _ in sorted(enumerate(layout.centres[:12]), key=lambda one: one[1][1])] == list(range(12))


def test_a_graph_without_tasks_is_a_picture_too() -> None:
    assert ET.fromstring(as_svg(make_picture("t", [], fold_above=10))).tag == f"{SVG}svg"


def test_without_the_library_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    really_import = builtins.__import__

    def without(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("grandalf"):
            raise ImportError(name)
        return really_import(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"needs the library grandalf: pip install 'overnight\[graph\]'"):
        as_svg(hostile_picture())
    assert as_dot(hostile_picture())
