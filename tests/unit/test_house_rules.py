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


def too_long() -> set[str]:
    """Name the modules and functions above the sizes."""
    found = set()
    for path, text in modules():
        if len(text.splitlines()) > MOST_LINES:
            found.add(path)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _lines(node) > MOST_LINES_OF_A_FUNCTION:
                found.add(f"{path}:{node.name}")
    return found


def test_modules_and_functions_keep_to_their_sizes_but_for_those_listed() -> None:
    """An exception that is no longer needed leaves the list too."""
    assert too_long() == LONGER.keys()


def test_one_module_opens_pickles() -> None:
    """C1, C2: nothing else can open bytes that were not checked before."""
    assert [path for path, text in modules() if _OPENING.search(text)] == [OPENS_PICKLES]
