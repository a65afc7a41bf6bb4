"""The package has every name of the documented API, with its signature (BEHAVIOUR P2)."""

from __future__ import annotations
import __future__

import ast
import enum
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from overnight.cache import NO_TASK_CACHE

DOCUMENT = Path(__file__).with_name("documented_api.txt")
#: Where annotations say more than the documented ones: a narrower answer, or a parameter that takes more.
ANNOTATIONS = {
    "base_executor.TaskGraphExecutorBase.execute -> ": "Generator[tuple[Task, Any], None, None]",
    "graph.TaskGraph.as_directed_graph -> ": "DiGraph[Task]",
    "graph.TaskGraph.extract_tasks -> ": "list[TaskDesc]",
    "graph.TaskGraph.ready_tasks -> ": "list[Task]",
    "graph.TaskGraph.tasks -> ": "list[Task]",
    "graph.TaskGraph.topological_order -> ": "list[Task]",
    "logging.configure_task_logging verbosity: ": "int | None",
}
#: Values whose class has one more positional parameter, with a default, after the documented ones.
LAST_PARAMETERS = {"cache.CacheRecord": "reason", "graph.TaskDesc": "options"}

_MODULE_PREFIX = re.compile(r"\b[a-z_]+\.(?=[A-Z])")


@dataclass(frozen=True)
class Entry:
    """A documented name: `name` is that of a function or class, or `Class.member`."""

    module: str
    name: str
    node: ast.ClassDef | ast.FunctionDef | ast.AnnAssign | ast.Assign

    @property
    def key(self) -> str:
        return f"{self.module}.{self.name}"

    @property
    def marks(self) -> set[str]:
        """The decorators: staticmethod, property, abstractmethod."""
        decorators = self.node.decorator_list if isinstance(self.node, ast.FunctionDef) else []
        return {ast.unparse(decorator) for decorator in decorators}

    @property
    def actual(self) -> Any:
        """The object of that name in the package, taken without calling any property."""
        found: Any = importlib.import_module(f"overnight.{self.module}")
        for part in self.name.split("."):
            found = inspect.getattr_static(found, part)
        return found


def documented() -> Iterator[Entry]:
    """Yield what the document holds."""
    _, *sections = re.split(r"^# module (\w+)$", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for module, text in zip(sections[::2], sections[1::2], strict=True):
        for node in ast.parse(text).body:
            assert isinstance(node, ast.ClassDef | ast.FunctionDef)
            yield Entry(module, node.name, node)
            for member in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(member, ast.FunctionDef) and member.name != "__init__":
                    yield Entry(module, f"{node.name}.{member.name}", member)
                elif isinstance(member, ast.AnnAssign):
                    yield Entry(module, f"{node.name}.{ast.unparse(member.target)}", member)
                elif isinstance(member, ast.Assign):
                    yield Entry(module, f"{node.name}.{ast.unparse(member.targets[0])}", member)


ENTRIES = list(documented())


def of(*kinds: type) -> pytest.MarkDecorator:
    """Return the mark that runs a test once for each entry of these kinds."""
    return pytest.mark.parametrize("entry", [e for e in ENTRIES if isinstance(e.node, kinds)], ids=lambda e: e.key)


def annotation(written: object) -> str | None:
    """Return an annotation as text without module names, None where there is none."""
    if written is None or written is inspect.Parameter.empty:
        return None
    text = written if isinstance(written, str) else getattr(written, "__name__", repr(written))
    return ast.unparse(ast.parse(_MODULE_PREFIX.sub("", text), mode="eval"))


@dataclass(frozen=True)
class Parameter:
    """A parameter; `default` is its value, or the class's own `empty`."""

    name: str
    kind: Any
    annotation: str | None
    default: Any


def actual_parameters(function: Any) -> list[Parameter]:
    """Return the parameters of a function of the package, but for `self`."""
    given = inspect.signature(function).parameters.values()
    return [Parameter(p.name, p.kind, annotation(p.annotation), p.default) for p in given if p.name != "self"]


def documented_parameters(node: ast.FunctionDef) -> list[Parameter]:
    """Return the parameters that a stub declares, but for `self`."""
    code = compile(ast.Module([_bare(node)], []), str(DOCUMENT), "exec", flags=__future__.annotations.compiler_flag)
    names: dict[str, Any] = {}
    exec(code, names)
    return actual_parameters(names[node.name])


def _bare(node: ast.FunctionDef) -> ast.FunctionDef:
    bare = ast.parse(ast.unparse(node)).body[0]
    assert isinstance(bare, ast.FunctionDef)
    bare.decorator_list = []
    return bare


def compare(entry: Entry, node: ast.FunctionDef, function: Any) -> None:
    """Fail unless a function of the package can be called in every documented way, and says so."""
    wanted, given = documented_parameters(node), actual_parameters(function)
    assert [p.name for p in given if p.name in {w.name for w in wanted}] == [w.name for w in wanted]
    for want in wanted:
        have = next(p for p in given if p.name == want.name)
        assert have.kind is want.kind, want.name
        expected = ANNOTATIONS.get(f"{entry.key} {want.name}: ", want.annotation)
        assert want.annotation is None or have.annotation == expected, want.name
        assert have.default is (NO_TASK_CACHE if want.default == {} else have.default), want.name
        assert want.default == have.default, want.name
    for more in given:
        if more not in wanted and more.name not in {want.name for want in wanted}:
            assert more.default is not inspect.Parameter.empty, more.name
            assert more.kind is more_kind(entry, more.name), more.name


def more_kind(entry: Entry, name: str) -> Any:
    """Return the kind that an undocumented parameter must have."""
    if LAST_PARAMETERS.get(entry.key) == name:
        return inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter.KEYWORD_ONLY


def test_the_document_is_whole() -> None:
    """P2: 10 modules, 85 names, each once."""
    assert len({entry.module for entry in ENTRIES}) == 10
    assert len({entry.key for entry in ENTRIES}) == len(ENTRIES) == 85


@of(ast.FunctionDef)
def test_every_function_method_and_property_is_there_with_its_signature(entry: Entry) -> None:
    """P2."""
    assert isinstance(entry.node, ast.FunctionDef)
    actual = entry.actual
    assert isinstance(actual, property) is ("property" in entry.marks)
    assert isinstance(actual, staticmethod) is ("staticmethod" in entry.marks)
    assert getattr(actual, "__isabstractmethod__", False) is ("abstractmethod" in entry.marks)
    function: Any = actual.fget if isinstance(actual, property) else actual
    compare(entry, entry.node, function)
    returns = ast.unparse(entry.node.returns) if entry.node.returns else None
    expected = ANNOTATIONS.get(f"{entry.key} -> ", returns)
    assert annotation(inspect.signature(function).return_annotation) == expected


@of(ast.ClassDef)
def test_every_class_is_there_with_its_bases_and_can_be_made_as_documented(entry: Entry) -> None:
    """P2, P4: the default of each `task_cache` is the one shared NoTaskCache."""
    assert isinstance(entry.node, ast.ClassDef)
    order = [base.__name__ for base in entry.actual.__mro__]
    bases = [ast.unparse(base).partition("[")[0] for base in entry.node.bases]
    assert [name for name in order if name in bases] == bases
    init = [node for node in entry.node.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    if init:
        compare(entry, init[0], entry.actual)
    elif not issubclass(entry.actual, enum.Enum):
        assert isinstance(entry.actual(), entry.actual)


@of(ast.AnnAssign)
def test_every_field_is_there_with_its_type(entry: Entry) -> None:
    """P2, G1, G3, C2."""
    assert isinstance(entry.node, ast.AnnAssign)
    class_name, _, name = entry.name.partition(".")
    holder = getattr(importlib.import_module(f"overnight.{entry.module}"), class_name)
    assert annotation(holder.__annotations__[name]) == ast.unparse(entry.node.annotation)
    if entry.node.value is not None:
        assert getattr(holder, name) == ast.literal_eval(entry.node.value)


@of(ast.Assign)
def test_every_constant_is_there_with_its_value(entry: Entry) -> None:
    """P2, C1, DK1."""
    assert isinstance(entry.node, ast.Assign)
    assert getattr(entry.actual, "value", entry.actual) == ast.literal_eval(entry.node.value)
