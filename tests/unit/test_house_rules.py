"""The house rules that no other tool checks: sizes, and where user's bytes are opened (STYLE, ADVERSITY C1)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOST_LINES = 300
MOST_LINES_OF_A_FUNCTION = 40
#: What may be longer, with the reason.
LONGER = {
    "scheduler/overnight/store/records.py": "declarations alone: the values that pass through the store's ports",
    "scheduler/overnight/local_fleet.py:ensure_fleet": "half of it is its signature, docstring and one call by keyword",
}
OPENS_PICKLES = "scheduler/overnight/pickling.py"
_OPENING = re.compile(r"\b(?:cloud)?pickle\.loads?\(|(?<![\w.])eval\(|yaml\.load\(")


def modules() -> Iterator[tuple[str, str]]:
    """Yield path and text of each module of the product."""
    for source in ("scheduler", "worker"):
        for path in sorted((ROOT / source).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_no_module_is_longer_than_can_be_read_at_once() -> None:
    too_long = {path for path, text in modules() if len(text.splitlines()) > MOST_LINES}
    assert too_long - LONGER.keys() == set()


def test_no_function_is_longer_than_a_screen() -> None:
    too_long = set()
    for path, text in modules():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _lines(node) > MOST_LINES_OF_A_FUNCTION:
                too_long.add(f"{path}:{node.name}")
    assert too_long - LONGER.keys() == set()


def test_every_exception_to_the_sizes_is_still_needed() -> None:
    texts = dict(modules())
    assert [name for name in LONGER if name.partition(":")[0] not in texts] == []


def test_one_module_opens_pickles() -> None:
    """C1, C2: nothing else can open bytes that were not checked before."""
    assert [path for path, text in modules() if _OPENING.search(text)] == [OPENS_PICKLES]
