"""The graph's shortcuts for plain tasks against the general ways that they stand for (BEHAVIOUR G1, G3, G6, G15)."""

from __future__ import annotations

import copy
import pickle
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.arguments import positional_dependencies, value_dependencies
from overnight.errors import InvalidTaskId
from overnight.graph import DEFAULT_OPTIONS, Task, TaskDesc, TaskGraph
from overnight.making import named_task
from overnight.naming import bounded_task_id, check_task_id
from overnight.task import plain_desc

IDS = st.sampled_from(["a", "b", "c", "x" * 200, "y" * 201])
VALUES = st.one_of(st.integers(), st.none(), st.text(max_size=2), IDS.map(Task), st.lists(IDS.map(Task), max_size=2))
CONTAINERS = ["kwargs", "deps", "input_files", "output_files", "intermediate_output_files"]


def combine(*_values: object) -> None:
    """Stand for a task's function, which never runs here."""


def whole_desc() -> TaskDesc:
    return TaskDesc(Task("a"), combine, [1], {}, [], [], [], [], DEFAULT_OPTIONS)


def sparse_desc() -> TaskDesc:
    return plain_desc(Task("a"), combine, [1], DEFAULT_OPTIONS)


@given(args=st.lists(VALUES, max_size=4).map(tuple))
def test_dependencies_among_positional_arguments_are_those_of_the_general_search(args: tuple[object, ...]) -> None:
    """G6, I2."""
    assert list(positional_dependencies(args)) == value_dependencies(args, {})


@given(task_id=st.text(st.characters(exclude_categories=[]), max_size=4) | IDS)
def test_a_new_task_has_the_id_that_the_checks_let_through(task_id: str) -> None:
    """I1, I2."""
    try:
        expected = bounded_task_id(check_task_id(task_id))
    except InvalidTaskId:
        with pytest.raises(InvalidTaskId):
            named_task(task_id)
    else:
        assert named_task(task_id) == Task(expected)
        assert repr(named_task(task_id)) == repr(Task(expected))


@given(args=st.lists(VALUES, max_size=3), results=st.sets(st.sampled_from(["a", "b", "c"])))
def test_a_plain_task_is_described_as_the_same_task_among_file_declaring_ones(
    args: list[object], results: set[str]
) -> None:
    """G15, G22."""
    graph = TaskGraph()
    plain = graph.create_task("plain", combine, args=args)
    other = graph.create_task("other", combine, args=args, output_files=["out"])
    graph.process_completed_tasks([(Task(task_id), task_id.upper()) for task_id in sorted(results)])
    expected = replace(graph.get_task_desc(other), task=plain, output_files=[])
    assert graph.get_task_desc(plain) == expected
    assert graph.extract_tasks([plain]) == [expected]


@given(seen=st.lists(st.sampled_from(CONTAINERS)))
def test_a_desc_without_its_empty_containers_is_a_whole_one_to_all_who_look(seen: list[str]) -> None:
    """G3: the containers are ordinary mutable ones, the same at each look."""
    desc = sparse_desc()
    for field in seen:
        container = getattr(desc, field)
        assert type(container) is type(getattr(whole_desc(), field))
        assert getattr(desc, field) is container
    assert desc == whole_desc()
    assert repr(sparse_desc()) == repr(whole_desc())
    assert pickle.loads(pickle.dumps(sparse_desc())) == whole_desc()
    assert copy.copy(sparse_desc()) == copy.deepcopy(sparse_desc()) == whole_desc()
    assert replace(sparse_desc(), task=Task("b")) == replace(whole_desc(), task=Task("b"))
    assert [getattr(sparse_desc(), field.name) for field in fields(TaskDesc)] == [
        getattr(whole_desc(), field.name) for field in fields(TaskDesc)
    ]


def test_descs_share_no_container_and_keep_what_is_put_into_one() -> None:
    """G3."""
    one, other = sparse_desc(), sparse_desc()
    one.output_files.append("out")
    assert one.output_files == ["out"]
    assert other.output_files == []


def test_a_desc_has_no_attribute_but_its_fields() -> None:
    with pytest.raises(AttributeError, match="input_file'"):
        _ = sparse_desc().input_file  # type: ignore[attr-defined]  # whether there is one is the question
