"""Every numbered statement of BEHAVIOUR.md that a machine can test is cited by a test that would fail without it.

A citation is the statement's number in the docstring of a test function, or in a comment inside one. The promises of
ADVERSITY.md have numbers with the letter P too, so the statements about the package are cited in two files only.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Statements that no machine can test, each with the reason.
NOT_BY_MACHINE: dict[str, str] = {}
PACKAGE_TESTS = {"tests/unit/test_package.py", "tests/contract/test_documented_api.py"}

_LETTERS = "PP|DK|QX|[PIGOXBYSCFLDNR]"
_STATEMENT = re.compile(rf"^((?:{_LETTERS})\d+)\. ", re.MULTILINE)
_CITATION = re.compile(rf"\b(?:{_LETTERS})\d+\b")


def statements() -> list[str]:
    """Return the numbers of all statements, in the order of the document."""
    return _STATEMENT.findall((ROOT / "scheduler" / "BEHAVIOUR.md").read_text(encoding="utf-8"))


@cache
def citations() -> Mapping[str, list[str]]:
    """Return for each cited number the tests that cite it."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        name = path.relative_to(ROOT).as_posix()
        for function, text in cited_texts(path.read_text(encoding="utf-8")):
            for number in _CITATION.findall(text):
                if not re.fullmatch(r"P\d+", number) or name in PACKAGE_TESTS:
                    found[number].append(f"{name}::{function}")
    return found


def cited_texts(source: str) -> Iterator[tuple[str, str]]:
    """Yield each test function of a module with its docstring and the comments inside it."""
    comments = [
        (token.start[0], token.string)
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    ]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            inside = [text for line, text in comments if first <= line <= (node.end_lineno or first)]
            yield node.name, " ".join([ast.get_docstring(node) or "", *inside])


def test_every_statement_is_cited_by_a_test() -> None:
    """Those listed apart are left out."""
    uncited = [number for number in statements() if number not in citations()]
    left = [number for number in uncited if number not in NOT_BY_MACHINE]
    assert left == [], f"no test cites {', '.join(left)}"


def test_what_is_listed_apart_is_a_statement_that_no_test_cites() -> None:
    """An exception that is no longer needed leaves the list."""
    assert set(NOT_BY_MACHINE) <= set(statements()) - set(citations())


def test_no_test_cites_a_statement_that_does_not_exist() -> None:
    """A misspelt number would count for nothing."""
    unknown = {number: tests for number, tests in citations().items() if number not in statements()}
    assert unknown == {}


def test_a_citation_is_found_in_docstrings_and_comments_of_tests_alone() -> None:
    """The document is read whole, too: 175 numbers, none twice."""
    source = (
        '"""G1."""\n# G2\ndef test_a():\n    """G3: so. G4, PP1."""\n    x = "G5"  # G6\n'
        'class T:\n    """G7"""\n    @mark  # G8\n    def test_b(self): ...\ndef helper():\n    """G9."""\n'
    )
    found = {name: _CITATION.findall(text) for name, text in cited_texts(source)}
    assert found == {"test_a": ["G3", "G4", "PP1", "G6"], "test_b": ["G8"]}
    assert len(statements()) == len(set(statements())) == 175
