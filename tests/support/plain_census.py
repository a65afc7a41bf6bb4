"""The census of a directory by a plain loop: no tasks, and other ways of counting than the product's.

Code lines are found by exclusion: all lines that are neither blank, nor a comment alone, nor a lone backslash,
and those inside a token that spans lines.
"""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from collections import Counter
from pathlib import Path


def plain_census(root: str) -> dict[str, int]:
    """Return the totals over the ``.py`` files under `root`, by the field names of the census."""
    totals: Counter[str] = Counter(dict.fromkeys(FIELDS, 0))
    for path in Path(root).rglob("*.py"):
        if _LEFT_OUT.isdisjoint(path.relative_to(root).parts) and path.is_file():
            totals.update(_count(path.read_bytes()))
    return dict(totals)


FIELDS = ("files", "failed", "lines", "code_lines", "functions", "classes", "branches", "imports")

_LEFT_OUT = {"site-packages", "dist-packages", "__pycache__"}

_FIELD_OF_NODE = {
    "FunctionDef": "functions",
    "AsyncFunctionDef": "functions",
    "ClassDef": "classes",
    "If": "branches",
    "IfExp": "branches",
    "For": "branches",
    "AsyncFor": "branches",
    "While": "branches",
    "ExceptHandler": "branches",
    "match_case": "branches",
    "Import": "imports",
    "ImportFrom": "imports",
}


def _count(source: bytes) -> Counter[str]:
    text = source.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    found = Counter(files=1, lines=text.count(b"\n") + (not text.endswith(b"\n") and text != b""))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            waiting: list[ast.AST] = [compile(source, "counted", "exec", ast.PyCF_ONLY_AST)]
        code_lines = _code_lines(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError):
        return found + Counter(failed=1)
    found["code_lines"] = code_lines
    while waiting:
        node = waiting.pop()
        waiting.extend(ast.iter_child_nodes(node))
        if field := _FIELD_OF_NODE.get(type(node).__name__):
            found[field] += 1
    return found


def _code_lines(source: bytes) -> int:
    full = {number for number, line in enumerate(io.BytesIO(source), 1) if line.strip() not in (b"", b"\\")}
    if source.startswith(b"\xef\xbb\xbf") and not source.splitlines()[0][3:].strip():
        full.discard(1)
    alone: set[int] = set()
    inside: set[int] = set()
    for token in tokenize.tokenize(io.BytesIO(source).readline):
        first, last = token.start[0], token.end[0]
        if token.type == tokenize.COMMENT and not token.line[: token.start[1]].strip():
            alone.add(first)
        elif last > first and token.string.strip("\r\n"):
            inside.update(range(first, last + 1))
    return len(full - alone | inside)
