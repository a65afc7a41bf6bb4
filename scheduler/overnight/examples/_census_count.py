"""Counts one Python file: its lines by `tokenize`, its structure and its imports by `ast`.

A file that cannot be read, decoded or parsed is a finding, not a failure: its count carries the error in one
line, with its number of lines where the bytes could be read and zeros for the rest.
"""

from __future__ import annotations

import ast
import io
import time
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from overnight.naming import shown

LONGEST_ERROR = 200

#: What each counted field means, as the report tells its readers.
DEFINITIONS = {
    "lines": "physical lines; the one count of a file that does not parse",
    "code_lines": "lines that hold a token other than a comment; a string counts on each of its lines",
    "functions": "def and async def, methods and inner functions included",
    "classes": "class statements",
    "branches": "if, elif, for, while, except, case and conditional expressions",
    "imports": "import and from-import statements",
}

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case)
_IMPORTS = (ast.Import, ast.ImportFrom)
_NOT_CODE = frozenset(
    (
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENCODING,
        tokenize.ENDMARKER,
    )
)
# The compiler reports source that it declines in any of these; a very deep expression exhausts its stack.
_NOT_PYTHON = (SyntaxError, ValueError, tokenize.TokenError, RecursionError, MemoryError)


class FileCount(NamedTuple):
    """What was found in one file.

    `path` is relative to the counted directory, with ``/``; `imported` holds the absolute dotted names that the
    file asks for, sorted, each as long as the source spells it (``from os import path`` asks for ``os.path``);
    `error` is empty if the file parsed.
    """

    path: str
    package: str
    lines: int = 0
    code_lines: int = 0
    functions: int = 0
    classes: int = 0
    branches: int = 0
    imports: int = 0
    error: str = ""
    imported: tuple[str, ...] = ()


def count_file(file: str, path: str, package: str, slow: float = 0.0) -> FileCount:
    """Count `file`, reported as `path` of `package`, after a pause of `slow` seconds."""
    if slow > 0:
        time.sleep(slow)
    try:
        source = Path(file).read_bytes()
    except OSError as error:
        return FileCount(path, package, error=f"{type(error).__name__}: {error.strerror}")
    lines = len(source.splitlines())
    try:
        nodes = list(ast.walk(_parse(source, path)))
        code_lines = _count_code_lines(source)
    except _NOT_PYTHON as error:
        return FileCount(path, package, lines, error=_one_line(error))
    return FileCount(
        path,
        package,
        lines,
        code_lines,
        functions=_count(nodes, _FUNCTIONS),
        classes=_count(nodes, (ast.ClassDef,)),
        branches=_count(nodes, _BRANCHES),
        imports=_count(nodes, _IMPORTS),
        imported=tuple(sorted(set(_imported_names(nodes, path)))),
    )


def module_name(path: str) -> str:
    """Return the dotted name under which a file is imported: ``json/__init__.py`` is ``json``."""
    parts = path.removesuffix(".py").split("/")
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    return ".".join(parts)


def _parse(source: bytes, path: str) -> ast.Module:
    with warnings.catch_warnings():
        # Warnings about the style of the counted source are none of this program's own.
        warnings.simplefilter("ignore")
        return ast.parse(source, filename=path)


def _count_code_lines(source: bytes) -> int:
    numbers: set[int] = set()
    for token in tokenize.tokenize(io.BytesIO(source).readline):
        if token.type not in _NOT_CODE:
            numbers.update(range(token.start[0], token.end[0] + 1))
    return len(numbers)


def _count(nodes: list[ast.AST], kinds: tuple[type[ast.AST], ...]) -> int:
    return sum(isinstance(node, kinds) for node in nodes)


def _imported_names(nodes: list[ast.AST], path: str) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _imported_from(node, path)
            for alias in node.names if base else ():
                yield base if alias.name == "*" else f"{base}.{alias.name}"


def _imported_from(node: ast.ImportFrom, path: str) -> str:
    """Return the absolute name behind ``from <name> import``; empty if it leads out of the counted directory."""
    if not node.level:
        return node.module or ""
    enclosing = path.split("/")[: -node.level]
    return ".".join([*enclosing, node.module] if node.module else enclosing)


def _one_line(error: BaseException) -> str:
    sentence = shown(" ".join(f"{type(error).__name__}: {error}".split()))
    return sentence if len(sentence) <= LONGEST_ERROR else f"{sentence[: LONGEST_ERROR - 1]}…"
