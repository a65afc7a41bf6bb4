"""Each line of ADVERSITY.md names the tests that prove it, and these exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "scheduler" / "ADVERSITY.md").read_text("utf-8")
#: What the lines speak of is not there yet.
WITHOUT = {"C5", "H8"}
_PROMISE = re.compile(r"^\| (P\d+) ", re.MULTILINE)
_BAD_INPUT = re.compile(r"^\| (\d+) \|", re.MULTILINE)
_DEMAND = re.compile(r"^\| (?:critical|high|medium|low) ([CHML]\d+) \|", re.MULTILINE)
_PROOF = re.compile(r"^\| (P\d+|7\.\d+|[CHML]\d+) \| (.+) \|$", re.MULTILINE)


def section(number: int) -> str:
    """Return a section of the document."""
    return re.split(r"^## \d+\. .*$", TEXT, flags=re.MULTILINE)[number]


def lines() -> list[str]:
    """Return the lines that are to be proven, in order."""
    rows = [f"7.{number}" for number in _BAD_INPUT.findall(section(7))]
    return [*_PROMISE.findall(section(2)), *rows, *_DEMAND.findall(section(8))]


def proofs() -> dict[str, list[str]]:
    """Return the tests that are named for each line."""
    return {line: re.findall(r"`([^`]+)`", tests) for line, tests in _PROOF.findall(section(9))}


@cache
def names_in(path: Path) -> frozenset[str]:
    """Return the names of the test functions of a module, those in classes too."""
    return frozenset(_functions(ast.parse(path.read_text("utf-8")))) if path.exists() else frozenset()


def _functions(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        yield from (one.name for one in inner if isinstance(one, ast.FunctionDef) and one.name.startswith("test"))


def test_each_line_is_proven() -> None:
    assert len(lines()) == 17 + 54 + 24
    assert list(proofs()) == [line for line in lines() if line not in WITHOUT]


def found() -> dict[str, list[str]]:
    """Return the tests that are named for each defect that the simulation has found."""
    rows = re.findall(r"^\| (.+) \| (`.+`) \|$", section(9).partition("| defect |")[2], re.MULTILINE)
    return {defect: re.findall(r"`([^`]+)`", tests) for defect, tests in rows}


def test_each_defect_has_its_row() -> None:
    assert len(found()) == section(9).partition("| defect |")[2].count("\n| ")


@pytest.mark.parametrize("line", [*proofs(), *found()])
def test_each_proof_exists(line: str) -> None:
    named = {**proofs(), **found()}[line]
    assert named
    assert len(set(named)) == len(named)
    for proof in named:
        file, _, name = proof.partition("::")
        assert name in names_in(ROOT / "tests" / file), f"{line} is to be proven by {proof}, which is not there"
