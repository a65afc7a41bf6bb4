"""Corners of the graph's statements that no main path meets (BEHAVIOUR I2, G)."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import pytest

from overnight.graph import Task, TaskGraph, chain_tasks, make_task, resolve_arguments, value_dependencies

A, B, C = Task("a"), Task("b"), Task("c")


class Holder:
    """An object with a Task as an attribute, and as what it iterates over."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def __iter__(self) -> Any:
        return iter([self.task])


def test_attributes_of_other_objects_are_not_looked_at() -> None:
    """G6, G8: such an object is passed as it is."""
    holder = Holder(A)
    assert make_task("t", len, args=[holder, [holder]], kwargs={"k": holder}).deps == []
    args, kwargs = resolve_arguments((B, [holder, [holder, A]], {"k": holder}), {A: 1})
    assert args[0] is args[1][0] is kwargs["k"] is holder
    assert args[1][1] == 1


def test_a_dependency_that_is_given_twice_is_one() -> None:
    """G6, G7: the first place counts."""
    desc = make_task("t", len, args=[B, [A, B]], kwargs={"x": A, "y": C}, deps=[C, B, C])
    assert desc.deps == [C, B, A]
    assert value_dependencies([B, [A, B]], {"x": A}) == [B, A]


@pytest.mark.parametrize("kind", [list, tuple])
def test_rebuilt_containers_are_of_their_kind(kind: type) -> None:
    """G8: dict values, not keys."""
    given = [kind([A, 1]), {"k": kind([A]), "n": None}, OrderedDict(k=1)]
    args, _ = resolve_arguments((B, given, {}), {A: "result"})
    assert args == [kind(["result", 1]), {"k": kind(["result"]), "n": None}, OrderedDict(k=1)]
    assert [type(arg) for arg in args] == [kind, dict, OrderedDict]
    assert args[2] is given[2]
    assert given[0] == kind([A, 1]), "the declared arguments stay"


@pytest.mark.parametrize("bad", [5, None, b"a", Task("a")])
def test_an_id_that_is_no_text_is_a_type_error(bad: Any) -> None:
    """I1."""
    graph = TaskGraph()
    for create in (
        lambda: make_task(bad, len, args=[]),
        lambda: graph.create_task(bad, len, args=[]),
        lambda: graph.add_task(replace(make_task("x", len, args=[]), task=Task(bad))),
    ):
        with pytest.raises(TypeError):
            create()
    assert graph.empty()


@pytest.mark.parametrize("task_id", ["a b", "a/b", "a:b", "100%", "a\nb", "é", "{x}", "%s", "\\"])
def test_free_text_is_an_id(task_id: str) -> None:
    """I1."""
    graph = TaskGraph()
    assert graph.create_task(task_id, len, args=[]) == Task(task_id)
    assert graph.get_task_desc(Task(task_id)).task.task_id == task_id


def test_a_long_id_leads_to_its_task_wherever_it_is_given(caplog: pytest.LogCaptureFixture) -> None:
    """I2: and is told of once, where the task is made."""
    long = Task("y" * 400)
    graph = TaskGraph()
    graph.input_files.append("of the graph")
    with caplog.at_level(logging.WARNING):
        made = graph.add_task(make_task(long.task_id, len, args=[], input_files=["own"]))
        graph.create_task("user", len, args=[], deps=[long])
    assert len(caplog.records) == 1
    assert graph.get_task_desc(long).task == made
    assert graph.get_task_deps(long) == []
    link = chain_tasks(make_task("y" * 300, len, args=[]), make_task("z", len, args=[Task("y" * 300)]))
    assert link.task == Task("z")
    (desc,) = graph.extract_tasks([long])
    assert (desc.task, desc.input_files) == (made, ["of the graph", "own"])
    graph.process_completed_tasks([(long, 1)])
    assert graph.ready_tasks() == [Task("user")]


def test_extracted_tasks_come_in_the_given_order_with_the_graphs_files() -> None:
    """G21, G15: the descs are those that a call of get_task_desc gave."""
    graph = TaskGraph()
    graph.input_files.append("of the graph")
    for name in "abc":
        graph.create_task(name, len, args=[name], input_files=[name])
    expected = [graph.get_task_desc(task) for task in (C, A)]
    assert graph.extract_tasks([C, A]) == expected
    assert graph.tasks == [B]
    assert expected[0].input_files == ["of the graph", "c"]


def test_a_cycle_is_told_by_every_question_and_gone_with_its_task() -> None:
    """G12: what removes a task removes its part of the cycle."""
    graph = TaskGraph()
    graph.create_task("a", len, args=[B])
    graph.create_task("b", len, args=[A])
    for question in (graph.topological_order, graph.ready_tasks, graph.as_directed_graph):
        with pytest.raises(ValueError, match=r"^Cyclic dependency: 'a' -> 'b' -> 'a'"):
            question()
    graph.process_completed_tasks([(A, 1)])
    assert graph.topological_order() == graph.ready_tasks() == [B]


def test_a_failed_task_that_is_not_in_the_graph_takes_its_dependants_along() -> None:
    """G22: extracted tasks are known as dependencies; others are ignored."""
    graph = TaskGraph()
    graph.create_task("a", len, args=[])
    graph.create_task("b", len, args=[A])
    graph.create_task("c", len, args=[B])
    graph.create_task("free", len, args=[])
    graph.extract_tasks([A])
    graph.process_completed_tasks([(Task("unheard"), ValueError()), (A, ValueError())])
    assert graph.tasks == [Task("free")]


def test_a_chain_keeps_all_three_lists_of_files_in_order() -> None:
    """G28."""
    descs = [
        make_task(name, len, args=[], kwargs={"k": name}, input_files=[f"i{name}"], output_files=[f"o{name}"],
                  intermediate_output_files=[f"m{name}"])
        for name in "abc"
    ]  # fmt: skip
    chain = chain_tasks(*descs)
    assert chain.kwargs == {"k": "a"}
    assert (chain.input_files, chain.output_files) == (["ia", "ib", "ic"], ["oa", "ob", "oc"])
    assert chain.intermediate_output_files == ["ma", "mb", "mc"]
