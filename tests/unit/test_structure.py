"""The structure of a run as its chunks tell it."""

from __future__ import annotations

from overnight.core.events import TaskRules
from overnight.keyring import Keyring
from overnight.messages import SpecChunk
from overnight.structure import Structure


def structure_of(*chunks: SpecChunk) -> Structure:
    return Structure("r1", [chunk.sealed("r1", Keyring()) for chunk in chunks], Keyring())


def test_rules_and_reasons_are_those_of_each_task() -> None:
    """Paths in reasons may hold bytes that are no text."""
    rules, reason = TaskRules(priority=3, resources=(("gpu", 1.0),)), "input \udcff.txt is missing"
    first = SpecChunk(0, ["a", "b"], ["f"], [0, 0], [[], [0]], {1: rules}, {1: reason})
    found = structure_of(first, SpecChunk(2, ["c"], ["f"], [0], [[1]]))
    assert [found.rules(task) for task in range(3)] == [TaskRules(), rules, TaskRules()]
    assert [found.reason(task) for task in range(3)] == [None, reason, None]


def test_dependencies_come_first_in_the_order_whatever_their_indices() -> None:
    found = structure_of(SpecChunk(0, list("abcde"), ["f"], [0] * 5, [[3], [], [1], [4], []]))
    assert found.order() == [4, 3, 0, 1, 2]


def test_the_order_of_a_long_chain_is_found() -> None:
    number = 50_000
    needs = [[task + 1] if task + 1 < number else [] for task in range(number)]
    assert (
        structure_of(SpecChunk(0, list(map(str, range(number))), ["f"], [0] * number, needs)).order()[0] == number - 1
    )
