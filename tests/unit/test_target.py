"""Targets: how a module or file is found, and one sentence, with the author's file and line, for what is wrong."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from overnight.commands.target import Target, build_graph, parse_target
from overnight.errors import GraphError, UsageError

WriteModule = Callable[[str, str], Path]
ONE_TASK = """
from overnight import TaskGraph

def build(*, n: int = 1) -> TaskGraph:
    graph = TaskGraph()
    for number in range(n):
        graph.create_task(f"task {number}", answer, args=[])
    return graph

def answer():
    return 42
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WriteModule]:
    """Writes modules in the current directory, which are forgotten after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    known = set(sys.modules)

    def write_module(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    yield write_module
    for name in set(sys.modules) - known:
        del sys.modules[name]


def ids(text: str, *parameters: str) -> list[str]:
    return [task.task_id for task in build_graph(parse_target(text), parameters).tasks]


def fault(text: str, *parameters: str) -> str:
    with pytest.raises(UsageError) as raised:
        ids(text, *parameters)
    return str(raised.value)


def test_a_module_is_found_from_the_current_directory(write: WriteModule) -> None:
    write("flow_here.py", ONE_TASK)
    assert ids("flow_here:build", "n=2") == ["task 0", "task 1"]


def test_a_file_is_imported_under_its_own_name(write: WriteModule) -> None:
    write("deep/down/flow_there.py", ONE_TASK)
    graph = build_graph(parse_target("deep/down/flow_there.py:build"))
    assert graph.get_task_desc(graph.tasks[0]).func.__module__ == "flow_there"


def test_a_file_of_a_package_is_imported_as_a_part_of_it(write: WriteModule) -> None:
    write("kit_of_flows/__init__.py", "")
    write("kit_of_flows/base.py", ONE_TASK)
    write("kit_of_flows/flow.py", "from .base import build")
    assert ids("kit_of_flows/flow.py:build") == ["task 0"]


def test_a_callable_may_be_an_attribute_of_a_class(write: WriteModule) -> None:
    write("flow_class.py", ONE_TASK + "\nclass Flow:\n    build = staticmethod(build)\n")
    assert ids("flow_class:Flow.build") == ["task 0"]


@pytest.mark.parametrize("text", ["flow", "flow:", ":build", "flow:bu ild", "flow:1", "a b:build"])
def test_what_has_not_the_form_of_a_target_is_told_the_form(write: WriteModule, text: str) -> None:
    assert "package.module:callable" in fault(text)


def test_a_missing_module_is_told_with_where_it_was_looked_for(write: WriteModule, tmp_path: Path) -> None:
    assert fault("no_such_flow:build").startswith(
        f"There is no module 'no_such_flow': no_such_flow:build is looked for from {tmp_path}"
    )


def test_a_missing_file_is_told_with_the_nearest_one(write: WriteModule) -> None:
    write("pipeline.py", ONE_TASK)
    assert fault("pipelin.py:build") == "There is no file 'pipelin.py'; did you mean 'pipeline.py'?"


def test_a_missing_callable_is_told_with_the_nearest_one_and_all(write: WriteModule) -> None:
    write("flow_names.py", ONE_TASK)
    assert fault("flow_names:biuld") == "flow_names has no 'biuld'; did you mean 'build'? It has answer, build."


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "\nimport module_nobody_has\n",
            "ModuleNotFoundError: No module named 'module_nobody_has' (flow_bad.py, line 2)",
        ),
        ("x = 1\ny = x / 0\n", "ZeroDivisionError: division by zero (flow_bad.py, line 2)"),
        ("def build(:\n", "SyntaxError: invalid syntax (flow_bad.py, line 1)"),
        ("raise SystemExit(3)", "SystemExit: 3 (flow_bad.py, line 1)"),
    ],
)
def test_a_module_that_does_not_import_is_told_by_its_own_line(write: WriteModule, text: str, sentence: str) -> None:
    write("flow_bad.py", text)
    assert fault("flow_bad:build") == f"flow_bad:build cannot be imported: {sentence}."


def test_a_callable_that_fails_is_told_by_its_own_line(write: WriteModule) -> None:
    write("flow_fails.py", "def build():\n    return {}['inputs']\n")
    assert fault("flow_fails:build") == "flow_fails:build failed: KeyError: 'inputs' (flow_fails.py, line 2)."


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def build():\n    return [1]\n", "returned a list; a target returns a TaskGraph"),
        ("build = 3\n", "is an int; a target is a function that returns a TaskGraph"),
    ],
)
def test_what_is_no_graph_is_told_by_its_type(write: WriteModule, text: str, sentence: str) -> None:
    write("flow_odd.py", text)
    assert sentence in fault("flow_odd:build")


def test_a_graph_that_cannot_be_made_is_no_usage_error(write: WriteModule) -> None:
    """G9: exit status 3, with the line of the author's own file."""
    write(
        "flow_twice.py",
        ONE_TASK + "\ndef twice():\n    graph = build()\n    graph.create_task('task 0', answer, args=[])\n",
    )
    with pytest.raises(GraphError, match=r"'task 0'.*\(flow_twice.py, line 15\)") as raised:
        ids("flow_twice:twice")
    assert raised.value.exit_status == 3


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("graph.create_task('a', answer, args=[], retries=-1)", "retries must be 0 or more, not -1"),
        ("graph.create_task('a', answer)", "missing 1 required keyword-only argument: 'args'"),
        ("graph.create_task('a', answer, args=[], retry=1)", "unexpected keyword argument 'retry'"),
        ("graph.create_task(3, answer, args=[])", "A task id must be a str, not int: 3"),
    ],
)
def test_what_no_graph_can_be_made_of_is_told_with_the_authors_line(write: WriteModule, call: str, told: str) -> None:
    """Exit status 3, also where Python itself refuses the call."""
    name = f"flow_call_{len(call)}"
    write(f"{name}.py", ONE_TASK + f"\ndef wrong():\n    graph = build()\n    {call}\n")
    with pytest.raises(GraphError, match=rf"{re.escape(told)}.*\({name}\.py, line 15\)") as raised:
        ids(f"{name}:wrong")
    assert raised.value.exit_status == 3


def test_a_type_error_of_the_targets_own_code_is_a_failure_of_the_target(write: WriteModule) -> None:
    write("flow_own.py", "def build():\n    return len(3)\n")
    assert fault("flow_own:build").startswith("flow_own:build failed: TypeError: ")


@pytest.mark.parametrize("name", ["random.py", "json.py"])
def test_a_file_with_the_name_of_another_module_is_refused(write: WriteModule, name: str) -> None:
    write(name, ONE_TASK)
    assert "has the name of another module" in fault(f"./{name}:build")


def test_a_file_whose_name_no_module_can_have_is_refused(write: WriteModule) -> None:
    write("my-flow.py", ONE_TASK)
    assert "'my-flow' is no module name" in fault("my-flow.py:build")


def test_a_target_is_shown_escaped() -> None:
    assert str(Target("a\x1b[31m.py", "build")) == r"a\x1b[31m.py:build"


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        ("class Own(BaseException): ...\nraise Own('no')", "Own: no"),
        ("class Mute(Exception):\n    def __str__(self): raise RuntimeError\nraise Mute", "Mute: <unprintable>"),
    ],
)
def test_whatever_a_module_raises_is_one_sentence(write: WriteModule, raised: str, told: str) -> None:
    write(f"flow_raises_{len(raised)}.py", raised)
    assert told in fault(f"flow_raises_{len(raised)}:build")
