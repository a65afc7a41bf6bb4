"""What a graph answers and how it changes (BEHAVIOUR G12 to G27)."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
from collections.abc import Callable
from statistics import median
from time import process_time
from typing import Any

import cloudpickle
import pytest

from overnight.errors import MissingDependency
from overnight.graph import Task, TaskGraph, make_task, missing_dependencies
from tests.benchmarks.graph_million import chain, drain, fan_in

A, B, C, D = (Task(name) for name in "abcd")


def graph_of(**deps: str) -> TaskGraph:
    """Return a graph of tasks that take the results of the tasks with the given one-letter names."""
    graph = TaskGraph()
    for task_id, names in deps.items():
        graph.create_task(task_id, len, args=[[Task(name) for name in names]])
    return graph


CHECKING: list[Callable[[TaskGraph], Any]] = [
    TaskGraph.as_directed_graph,
    TaskGraph.topological_order,
    TaskGraph.ready_tasks,
    TaskGraph.check,
]


@pytest.mark.parametrize("ask", CHECKING)
def test_a_cycle_is_named_in_order_until_it_is_gone(ask: Callable[[TaskGraph], Any]) -> None:
    """G12."""
    graph = graph_of(d="", a="c", b="a", c="b")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^Cyclic dependency: 'a' -> 'b' -> 'c' -> 'a'"):
            ask(graph)
    graph.extract_tasks([B])
    ask(graph)
    graph.create_task("b", len, args=[B])
    with pytest.raises(ValueError, match=r"^Cyclic dependency: 'b' -> 'b'"):
        ask(graph)


def test_tasks_are_listed_in_insertion_order() -> None:
    """G13, G14."""
    graph = graph_of(b="", a="b")
    assert graph.tasks == [B, A]
    assert graph.tasks is not graph.tasks
    assert len(graph) == 2
    assert not graph.empty()
    assert graph.has_task(A)
    assert not graph.has_task(C)
    assert TaskGraph().input_files == []
    assert TaskGraph().empty()


def test_a_desc_holds_the_graphs_files_and_the_remaining_dependencies() -> None:
    """G15, G16."""
    graph = graph_of(a="")
    graph.input_files.append("g")
    graph.create_task("t", len, args=[A, B], deps=[C], input_files=["own"])
    graph.process_completed_tasks([(A, 1), (C, 2)])
    desc = graph.get_task_desc(Task("t"))
    assert (desc.input_files, desc.deps, desc.args) == (["g", "own"], [B], [1, B])
    graph.get_task_deps(Task("t")).clear()
    assert graph.get_task_deps(Task("t")) == [B]
    for ask in (graph.get_task_desc, graph.get_task_deps, graph.get_declared):
        with pytest.raises(ValueError, match="'a'"):
            ask(A)


def test_the_directed_graph_has_sorted_tasks_and_edges_to_dependants() -> None:
    """G17."""
    directed = graph_of(c="b", b="ax").as_directed_graph()
    assert list(directed.nodes) == [B, C, A, Task("x")]
    assert set(directed.edges) == {(B, C), (A, B), (Task("x"), B)}


def test_the_order_goes_generation_by_generation() -> None:
    """G18."""
    graph = TaskGraph()
    late = graph.create_task("3", len, args=[])
    early = graph.create_task("2", len, args=[])
    graph.create_task("1", len, args=[late, early, Task("outside")])
    assert [task.task_id for task in graph.topological_order()] == ["2", "3", "1"]
    chains = TaskGraph()
    for number in "12":
        for name, before in (("A", None), ("B", "A"), ("C", "B")):
            deps = [Task(before + number)] if before else []
            chains.create_task(name + number, len, args=[], deps=deps)
    assert [task.task_id for task in chains.topological_order()] == ["A1", "A2", "B1", "B2", "C1", "C2"]


def test_ready_tasks_come_by_priority_and_then_by_insertion() -> None:
    """G19, O5."""
    graph = graph_of(w="z")
    for task_id, priority in (("z", 0), ("a", -5), ("m", 10**30), ("b", 0)):
        graph.create_task(task_id, len, args=[], priority=priority)
    expected = [Task(name) for name in "mzba"]
    assert graph.ready_tasks() == graph.ready_tasks() == expected
    assert [graph.ready_tasks(limit) for limit in (1, 2, 9)] == [expected[:1], expected[:2], expected]
    graph.process_completed_tasks([(Task("z"), 0)])
    assert graph.ready_tasks(2) == [Task("m"), Task("w")], "w was inserted before b"
    with pytest.raises(ValueError, match="-1"):
        graph.ready_tasks(-1)


def test_the_context_gives_the_live_nodes_under_the_lock() -> None:
    """G20, G26."""
    graph = graph_of(a="", b="a")
    adding = threading.Thread(target=lambda: graph.create_task("c", len, args=[]))
    with pytest.raises(KeyError), graph as nodes:
        adding.start()
        adding.join(0.05)
        assert adding.is_alive()
        assert list(nodes) == [A, B]
        nodes[A].output_files.append("out")
        graph.create_task("d", len, args=[])
        assert D in nodes
        assert len(nodes) == 3
        nodes[Task("x")]
    adding.join()
    assert graph.get_task_desc(A).output_files == ["out"]
    assert graph.has_task(C)


@pytest.mark.parametrize("wrong", [[A, Task("x")], [A, B, A]])
def test_extracting_is_checked_whole_first(wrong: list[Task]) -> None:
    """G21."""
    graph = graph_of(a="", b="a")
    with pytest.raises(ValueError, match=repr(wrong[-1].task_id)):
        graph.extract_tasks(wrong)
    assert graph.tasks == [A, B]
    assert [desc.task for desc in graph.extract_tasks([A])] == [A]
    assert graph.get_task_deps(B) == [A]
    assert graph.ready_tasks() == []


def test_every_pair_is_handled_and_an_exception_removes_what_depends_on_it() -> None:
    """G22, G23."""
    graph = graph_of(a="", b="", c="a", d="cb", e="b")
    graph.process_completed_tasks([(Task("unknown"), 1), (A, KeyboardInterrupt()), (B, [7])])
    assert graph.tasks == [Task("e")]
    assert graph.get_task_desc(Task("e")).args == [[[7]]]
    assert graph.ready_tasks() == [Task("e")]


def test_pruning_keeps_ancestors_and_order_or_changes_nothing() -> None:
    """G24."""
    graph = graph_of(e="c", a="", c="ax", b="a", d="b")
    with pytest.raises(ValueError, match=r"'cc'.*did you mean 'c'"):
        TaskGraph.prune(graph_of(c="", bbbbbb=""), ["cc"])
    with pytest.raises(ValueError, match="'x'"):
        graph.prune([A, "x"])
    assert len(graph) == 5
    graph.prune([C, "b"])
    assert graph.tasks == [A, C, B]
    assert graph.get_task_deps(C) == [A, Task("x")]
    graph.process_completed_tasks([(A, 1)])
    assert graph.ready_tasks() == [B]
    graph.prune([])
    assert graph.empty()
    assert graph.ready_tasks() == [] == graph.topological_order()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda graph: pickle.loads(cloudpickle.dumps(graph))])
def test_a_copy_is_independent_and_as_far_as_the_original(copied: Callable[[TaskGraph], TaskGraph]) -> None:
    """G25."""
    graph = graph_of(a="", b="a", c="ab")
    graph.input_files.append("in")
    graph.create_task("d", lambda: 1, args=[], priority=3, output_files=["o"])
    graph.process_completed_tasks([(A, 1)])
    with graph:
        twin = copied(graph)
    with twin as nodes:
        nodes[D].output_files.append("more")
    twin.input_files.append("too")
    assert twin.tasks == graph.tasks
    assert twin.ready_tasks() == graph.ready_tasks() == [D, B]
    assert twin.get_task_desc(C).args == [[1, B]]
    assert twin.get_task_desc(D).func() == 1
    twin.process_completed_tasks([(B, 2)])
    assert graph.get_task_deps(C) == [B]
    assert graph.input_files == ["in"]
    assert graph.get_task_desc(D).output_files == ["o"]


def test_results_kept_elsewhere_can_be_filled_in_afterwards() -> None:
    """B6, G22."""
    graph = graph_of(a="", b="", c="ab", d="c")
    graph.process_completed_tasks([(A, "kept")])
    graph.mark_completed([B])
    desc, held = graph.get_declared(C)
    assert (desc.args, desc.deps, held) == ([[A, B]], [A, B], {A: "kept"})
    assert graph.get_task_desc(C).args == [["kept", B]]
    assert graph.get_task_deps(C) == []
    graph.fill_in({B: "late"})
    assert graph.get_task_desc(C).args == [["kept", "late"]]
    assert graph.extract_declared([C])[0][1] == {A: "kept", B: "late"}
    assert graph.mark_failed(C) == [D]
    assert graph.empty()


def test_tasks_added_since_a_moment_are_known() -> None:
    """Y1."""
    graph = graph_of(a="", b="")
    before = graph.additions
    graph.create_task("d", len, args=[], priority=9)
    graph.create_task("c", len, args=[], priority=-9)
    assert graph.added_after(before) == [D, C]
    assert graph.added_after(graph.additions) == []


def test_a_missing_dependency_is_named_with_the_nearest_known_task() -> None:
    """B5."""
    graph = TaskGraph()
    graph.create_task("align", len, args=[])
    graph.create_task("merge", len, args=[Task("alignn")])
    with pytest.raises(MissingDependency, match=r"'merge'.*'alignn'.*did you mean 'align'"):
        missing_dependencies(graph, ())
    missing_dependencies(graph, {Task("alignn")})


@pytest.mark.parametrize("build", [chain, fan_in])
def test_everything_works_on_long_chains_and_wide_fans(build: Callable[[list[str]], TaskGraph]) -> None:
    """G25, G27."""
    ids = [f"t{number}" for number in range(20_000)]
    graph = pickle.loads(pickle.dumps(copy.deepcopy(build(ids))))
    assert len(graph.topological_order()) == len(ids)
    twin = copy.deepcopy(graph)
    twin.process_completed_tasks([(Task("t0"), ValueError())])
    assert len(twin) == (0 if build is chain else len(ids) - 2)
    graph.prune([ids[-1]])
    assert drain(graph) == len(ids)


def test_a_long_cycle_is_found_without_recursion() -> None:
    """G12, G27."""
    graph = TaskGraph()
    for number in range(20_000):
        graph.add_task(make_task(str(number), len, args=[Task(str((number + 1) % 20_000))]))
    with pytest.raises(ValueError, match=r"^Cyclic dependency: '0' -> '19999'"):
        graph.ready_tasks()


@pytest.mark.parametrize("build", [chain, fan_in])
def test_ten_times_the_tasks_cost_about_ten_times_the_time(build: Callable[[list[str]], TaskGraph]) -> None:
    """G27. CPU time, without the garbage collector, whose passes go over all objects of the process."""

    def seconds(count: int) -> float:
        ids = [f"t{number}" for number in range(count)]
        started = process_time()
        graph = build(ids)
        graph.topological_order()
        drain(graph)
        return process_time() - started

    gc.disable()
    try:
        pairs = [(seconds(3_000), seconds(30_000)) for _ in range(5)]
    finally:
        gc.enable()
    assert median(large / small for small, large in pairs) <= 20


def test_ready_tasks_leaves_out_those_that_left_from_the_middle_while_others_came_out_of_order() -> None:
    """G19: three stand in order of which the middle one left, and one of higher priority came last."""
    graph = TaskGraph()
    first, middle, last = (graph.create_task(name, len, args=[[]]) for name in ("first", "middle", "last"))
    urgent = graph.create_task("urgent", len, args=[[]], priority=1)
    graph.extract_tasks([middle])
    assert graph.ready_tasks() == [urgent, first, last]
    assert [graph.ready_tasks(limit) for limit in (1, 2, 3)] == [[urgent], [urgent, first], [urgent, first, last]]
