"""Tasks, descs, options and the adding of tasks (BEHAVIOUR I, G1 to G11, O1)."""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import pickle
from collections import OrderedDict
from typing import Any, NamedTuple

import pytest

from overnight.errors import InvalidTask, UnresolvedTask
from overnight.graph import (
    DEFAULT_OPTIONS,
    Task,
    TaskDesc,
    TaskGraph,
    TaskOptions,
    make_task,
    resolve_arguments,
    value_dependencies,
)

A, B, C = Task("a"), Task("b"), Task("c")


class Pair(NamedTuple):
    left: Any
    right: Any


def test_a_task_is_a_frozen_value_ordered_by_its_id_as_text() -> None:
    """G1."""
    assert Task("a") == A
    assert hash(Task("a")) == hash(A)
    assert Task("10") < Task("9")
    assert repr(A) == "Task(task_id='a')"
    with pytest.raises(dataclasses.FrozenInstanceError):
        A.task_id = "b"  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(A)) == copy.deepcopy(A) == A


def test_a_desc_takes_eight_positional_values_and_cannot_be_hashed() -> None:
    """G3."""
    desc = TaskDesc(A, len, [], {}, [], [], [], [])
    assert desc.options is DEFAULT_OPTIONS
    assert pickle.loads(pickle.dumps(desc)).options is DEFAULT_OPTIONS
    with pytest.raises(TypeError):
        hash(desc)


def test_make_task_copies_containers_but_not_values() -> None:
    """G4."""
    args, value, files = [[1]], {"k": 1}, ["f"]
    desc = make_task("a", len, args=args, kwargs={"v": value}, input_files=files)
    assert desc.args == args
    assert desc.args is not args
    assert desc.args[0] is args[0]
    assert desc.kwargs["v"] is value
    assert desc.input_files is not files
    with pytest.raises(TypeError):
        make_task("a", len)  # type: ignore[call-arg]


@pytest.mark.parametrize("bad", ["", "a\0b", "\ud800"])
def test_an_unusable_id_is_refused_where_it_is_created(bad: str) -> None:
    """I1."""
    graph = TaskGraph()
    desc = TaskDesc(Task(bad), len, [], {}, [], [], [], [])
    for create in (
        lambda: make_task(bad, len, args=[]),
        lambda: graph.create_task(bad, len, args=[]),
        lambda: graph.add_task(desc),
        lambda: graph.add_tasks([make_task("good", len, args=[]), desc]),
    ):
        with pytest.raises(ValueError, match="task id"):
            create()
    assert graph.empty()
    with pytest.raises(TypeError):
        graph.create_task(5, len, args=[])  # type: ignore[arg-type]


def test_a_long_id_is_cut_everywhere_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """I2, G5."""
    long, twin = "x" * 299 + "1", "x" * 299 + "2"
    graph = TaskGraph()
    with caplog.at_level(logging.WARNING):
        task = graph.create_task(long, len, args=[])
    assert len(caplog.records) == 1
    assert long in caplog.text
    assert len(task.task_id) == 200
    graph.create_task("user", len, args=[[Task(long)]])
    assert graph.has_task(Task(long))
    assert not graph.has_task(Task(twin))
    assert graph.get_task_deps(Task("user")) == [task]
    graph.prune([long, "user"])
    graph.process_completed_tasks([(Task(long), 7)])
    assert graph.get_task_desc(Task("user")).args == [[7]]
    assert len(caplog.records) == 1


def test_dependencies_are_found_in_order_and_only_in_exact_containers() -> None:
    """G6, G7."""
    desc = make_task("t", len, args=[1, (B, [A, {"k": C, A: 1}])], kwargs={"z": A, "y": Task("d")}, deps=[C])
    assert desc.deps == [C, B, A, Task("d")]
    hidden = [Pair(A, B), OrderedDict(a=A), {A}, {C: 1}]
    assert value_dependencies(hidden, {}) == []


def test_the_search_neither_recurses_nor_repeats_itself() -> None:
    """G6."""
    deep: list[Any] = [A]
    for _ in range(50_000):
        deep = [deep]
    assert value_dependencies(deep, {}) == [A]
    shared: list[Any] = [A]
    for _ in range(60):
        shared = [shared, shared]
    assert value_dependencies(shared, {}) == [A]
    args, _ = resolve_arguments((B, [shared], {}), {A: 1})
    assert args[0][0] is args[0][1]


def test_a_container_that_holds_itself_and_a_task_is_refused() -> None:
    """G6."""
    loop: list[Any] = []
    loop.append({"again": loop})
    assert value_dependencies([loop], {}) == []
    loop.append(A)
    with pytest.raises(ValueError, match="contains itself"):
        value_dependencies([loop], {})


def test_resolving_rebuilds_the_path_to_a_task_and_nothing_else() -> None:
    """G8."""
    untouched, value = [1, 2], object()
    args, kwargs = resolve_arguments((C, [[A, untouched], untouched], {"k": (B,)}), {A: value, B: [A]})
    assert args[0][0] is value
    assert args[0][1] is untouched
    assert args[1] is untouched
    assert kwargs == {"k": ([A],)}, "a Task inside a result is a value"
    plain = [1, untouched]
    assert resolve_arguments((C, plain, {}), {})[0] is plain


@pytest.mark.parametrize(
    "arg", [A, [A], {B: 1}, {A, 1}, Pair(1, A), OrderedDict(x=[A]), [{("t", A): 1}], Pair([{1: A}], 2)]
)
def test_a_task_that_cannot_be_replaced_is_named(arg: object) -> None:
    """G8."""
    with pytest.raises(UnresolvedTask, match=r"'user'.*'[ab]'"):
        resolve_arguments((Task("user"), [arg], {}), {})


def test_a_desc_by_hand_gets_the_dependencies_of_its_arguments() -> None:
    """G2, G7, G9."""
    graph = TaskGraph()
    args = [A]
    graph.add_task(TaskDesc(B, len, args, {}, [], [], [], []))
    args.append(C)
    assert graph.get_task_deps(B) == [A]
    assert graph.get_task_desc(B).args == [A]
    with pytest.raises(ValueError, match="'b'"):
        graph.create_task("b", len, args=[])


@pytest.mark.parametrize("bad", ["a", "new", ""])
def test_a_batch_is_added_whole_or_not_at_all(bad: str) -> None:
    """G10."""
    graph = TaskGraph()
    graph.create_task("a", len, args=[])
    batch = [make_task("new", len, args=[]), TaskDesc(Task(bad), len, [], {}, [], [], [], [])]
    with pytest.raises(ValueError, match=repr(bad) if bad else "empty"):
        graph.add_tasks(batch)
    assert graph.tasks == [A] == graph.ready_tasks()


def test_an_id_is_free_again_once_its_task_has_left_unless_the_run_forbids_it() -> None:
    """G11."""
    graph = TaskGraph()
    graph.create_task("a", len, args=[])
    graph.extract_tasks([A])
    graph.create_task("a", len, args=[])
    graph.process_completed_tasks([(A, 1)])
    finished = {A}
    graph.refuse_ids_of(finished)
    with pytest.raises(ValueError, match="'a'"):
        graph.create_task("a", len, args=[])
    graph.refuse_ids_of(())
    assert graph.create_task("a", len, args=[]) == A


def test_options_travel_with_the_desc_and_through_the_graph() -> None:
    """O1."""
    graph = TaskGraph()
    graph.create_task("a", len, args=[], retries=2, timeout=1.5, queue="big", resources={"gpu": 1, "cpu": 2})
    options = graph.get_task_desc(A).options
    assert options == TaskOptions(2, 0.0, 1.5, 0, "big", (("cpu", 2), ("gpu", 1)))
    assert options.resource_amounts == {"cpu": 2, "gpu": 1}
    assert pickle.loads(pickle.dumps(options)) == options
    assert hash(options)
    assert make_task("b", len, args=[]).options is DEFAULT_OPTIONS


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("retries", -1), ("retry_delay", -0.1), ("retry_delay", math.nan), ("timeout", 0), ("timeout", math.nan),
        ("timeout", -1), ("queue", ""), ("resources", {"gpu": 0}), ("resources", {"gpu": math.nan}),
    ],
)  # fmt: skip
def test_an_option_out_of_range_is_named(field: str, value: Any) -> None:
    """O1."""
    with pytest.raises(InvalidTask, match=field):
        make_task("a", len, args=[], **{field: value})


@pytest.mark.parametrize("field", ["args", "input_files", "output_files", "intermediate_output_files", "deps"])
def test_a_text_in_place_of_a_list_is_refused(field: str) -> None:
    given: dict[str, Any] = {"args": [], field: "x.txt"}
    for create in (make_task, TaskGraph().create_task):
        with pytest.raises(TypeError, match=field):
            create("a", len, **given)


@pytest.mark.parametrize(
    ("argument", "place"),
    [
        ({B}, "inside a set"),
        (frozenset({B}), "inside a set"),
        ({B: 1}, "in the key of a dict"),
        ({(1, B): 1}, "in the key of a dict"),
        (Pair([B], 2), "inside a Pair"),
        (OrderedDict(k=B), "inside a OrderedDict"),
    ],
)
def test_where_a_task_cannot_be_replaced_is_said(argument: object, place: str) -> None:
    """G8."""
    with pytest.raises(
        UnresolvedTask, match=f"Task 'user' holds 'b' {place}, where it cannot be replaced by its result"
    ):
        resolve_arguments((Task("user"), [argument], {}), {})
