"""The table of states is the whole truth about states: the gate, the retry rules and the diagram follow it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import overnight.core
from overnight.core.diagram import mermaid
from overnight.core.events import Charge, TaskRules
from overnight.core.invariants import check
from overnight.core.readiness import READY
from overnight.core.retry import after_failure
from overnight.core.states import TERMINAL, TRANSITIONS, TaskState
from overnight.core.tasks import TaskTable
from overnight.errors import InvariantBroken
from tests.support.core_play import Play


@pytest.mark.parametrize("old", list(TaskState))
@pytest.mark.parametrize("new", list(TaskState))
def test_the_gate_allows_exactly_the_transitions_of_the_table(old: TaskState, new: TaskState) -> None:
    table = TaskTable()
    table.add(1)
    table.load(bytes((old, 1)), {})
    if (old, new) in TRANSITIONS:
        table.move(0, new)
        assert table.states[0] == new
        assert (table.counts[old], table.counts[new]) == (0, 1)
    else:
        with pytest.raises(InvariantBroken, match=f"from {old.name} to {new.name}"):
            table.move(0, new)
        assert table.states[0] == old


def test_the_diagram_shows_every_transition_and_every_terminal_state() -> None:
    text = mermaid()
    for old, new in TRANSITIONS:
        assert f"{old.name} --> {new.name}: " in text
    assert text.count(" terminal\n") == len(TERMINAL)
    assert all(line.count(":") <= 1 for line in text.splitlines())


@pytest.mark.parametrize(
    ("failures", "jitter", "expected"), [(0, 1.0, 10.0), (1, 1.0, 20.0), (3, 0.5, 40.0), (20, 1.0, 3600.0)]
)
def test_the_delay_doubles_with_each_failure_up_to_an_hour(failures: int, jitter: float, expected: float) -> None:
    """O3."""
    charge = after_failure(Charge(failures=failures, losses=2), TaskRules(retry_delay=10.0), 1000.0, jitter)
    assert charge == Charge(failures + 1, 0, 1000.0 + expected)


def test_the_delay_of_the_ten_thousandth_failure_is_finite() -> None:
    charge = after_failure(Charge(failures=10_000), TaskRules(retry_delay=1e-9), 0.0, 1.0)
    assert 0.0 < charge.not_before <= 3600.0


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda life: life.readiness.withdraw(0), "forgotten"),
        (lambda life: life.readiness.waiting.__setitem__(1, 0), "waits for 0"),
        (lambda life: life.table.states.__setitem__(1, TaskState.DONE), "counted"),
        (lambda life: life.readiness.marks.__setitem__(1, READY), "must not be"),
        (lambda life: life.readiness.lanes[0].pop(), "lanes hold"),
        (lambda life: life.flights.release(2), "in flight"),
    ],
)
def test_the_check_finds_damage(damage: object, found: str) -> None:
    play = Play((), (0,), (), rules={2: TaskRules(priority=1)})
    play.offer()
    damage(play.run.life)  # type: ignore[operator]  # a lambda of the table above
    with pytest.raises(InvariantBroken, match=found):
        check(play.run)


def test_the_core_imports_nothing_but_itself_the_errors_and_pure_standard_modules() -> None:
    """It decides and does nothing else: no clock, no socket, no thread, no file, no randomness."""
    pure = {"__future__", "array", "collections", "dataclasses", "enum", "heapq", "math", "typing"}
    for file in Path(overnight.core.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                own = name.startswith("overnight.core") or name == "overnight.errors"
                assert own or name.partition(".")[0] in pure, f"{file.name} imports {name}"
