"""The graphs of `tests.support.graphs` are what their docstrings say, so that tests can lean on them."""

from __future__ import annotations

import os
import pickle
import threading
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from overnight.errors import CyclicGraph
from overnight.graph import Task, TaskGraph
from overnight.pickling import dump_exception
from tests.support import graphs
from tests.support.drain import drain

CULPRITS = [
    graphs.calls_sys_exit,
    graphs.dies_by_signal,
    graphs.exits,
    graphs.function_of_a_missing_module,
    graphs.overruns,
    graphs.overruns_stubbornly,
    graphs.raises,
    graphs.raises_base_exception,
    graphs.raises_unrebuildable,
    graphs.returns_error,
    graphs.returns_generator,
    graphs.unpicklable_argument,
    graphs.unpicklable_function,
    graphs.unpicklable_result,
]


def call_of(graph: TaskGraph, task_id: str = "culprit") -> tuple[Any, list[Any]]:
    desc = graph.get_task_desc(Task(task_id))
    return desc.func, desc.args


def test_shapes_have_the_values_that_they_promise() -> None:
    assert drain(graphs.noops(n=3)) == {"noop 0": None, "noop 1": None, "noop 2": None}
    assert drain(graphs.chain(n=3)) == {"link 0": 0, "link 1": 1, "link 2": 2}
    assert drain(graphs.fan_in(n=4))["total"] == 6
    assert drain(graphs.diamond()) == {"top": 0, "left": 1, "right": 1, "bottom": 2}
    assert drain(graphs.sleeps(seconds=0, n=2)) == {"sleep 0": 0, "sleep 1": 0}
    assert drain(graphs.large_results(size=10, n=3))["size"] == 30


def test_each_value_of_layers_is_its_layer() -> None:
    values = drain(graphs.layers(k=4, n=3))
    assert len(values) == 12
    assert all(value == int(task_id.split()[1].split(":")[0]) for task_id, value in values.items())


@pytest.mark.parametrize("seed", range(5))
def test_a_ledger_holds_a_start_and_an_end_of_each_task_in_dependency_order(seed: int, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    values = drain(graphs.ledger_graph(ledger=str(ledger), n=30, edges=3, seed=seed))
    assert values == graphs.ledger_values(n=30, edges=3, seed=seed)
    lines = graphs.read_ledger(ledger)
    assert sorted(lines) == sorted((event, task_id) for event in ("start", "end") for task_id in values)
    for number, earlier in enumerate(graphs.ledger_edges(n=30, edges=3, seed=seed)):
        for index in earlier:
            assert lines.index(("end", f"entry {index}")) < lines.index(("start", f"entry {number}"))


def test_a_ledger_chain_is_a_chain(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    assert drain(graphs.ledger_chain(ledger=str(ledger), n=3)) == {"entry 0": 0, "entry 1": 1, "entry 2": 2}
    assert [task_id for _, task_id in graphs.read_ledger(ledger)[::2]] == ["entry 0", "entry 1", "entry 2"]


def test_a_gate_opens_when_its_fifo_is_closed_and_not_before(tmp_path: Path) -> None:
    fifo, ledger = tmp_path / "fifo", tmp_path / "ledger"
    os.mkfifo(fifo)
    running = threading.Thread(target=drain, args=[graphs.gated(fifo=str(fifo), ledger=str(ledger))])
    running.start()
    with fifo.open("wb"):
        assert graphs.read_ledger(ledger) == [("start", "gate")]
    running.join(timeout=30)
    assert graphs.read_ledger(ledger)[1:] == [("end", "gate"), ("start", "entry 0"), ("end", "entry 0")]


def test_a_flaky_task_succeeds_after_its_failures(tmp_path: Path) -> None:
    graph = graphs.flaky(ledger=str(tmp_path / "ledger"), failures=1, retries=2)
    assert graph.get_task_desc(Task("flaky")).options.retries == 2
    func, args = call_of(graph, "flaky")
    with pytest.raises(RuntimeError, match="attempt 1"):
        func(*args)
    assert func(*args) == 1


@pytest.mark.parametrize("build", CULPRITS, ids=lambda build: build.__name__)
def test_every_culprit_has_a_dependant_and_a_bystander(build: Any) -> None:
    graph = build()
    assert [task.task_id for task in graph.tasks] == ["culprit", "dependant", "bystander"]
    assert graph.get_task_deps(Task("dependant")) == [Task("culprit")]
    func, args = call_of(graph, "bystander")
    assert func(*args) == "unharmed"


@pytest.mark.parametrize("build", [graphs.unpicklable_argument, graphs.unpicklable_function])
def test_an_unpicklable_call_cannot_be_pickled(build: Any) -> None:
    with pytest.raises(TypeError, match="pickle"):
        cloudpickle.dumps(call_of(build()))


@pytest.mark.parametrize("build", [graphs.unpicklable_result, graphs.returns_generator])
def test_an_unpicklable_result_cannot_be_pickled(build: Any) -> None:
    func, args = call_of(build())
    with pytest.raises(TypeError, match="pickle"):
        cloudpickle.dumps(func(*args))


def test_an_unrebuildable_error_pickles_and_does_not_come_back() -> None:
    func, args = call_of(graphs.raises_unrebuildable())
    with pytest.raises(graphs.Unrebuildable) as raised:
        func(*args)
    # Not by pickle.dumps: tblib, which distributed loads, makes that rebuild any exception.
    pickled = dump_exception(raised.value)
    with pytest.raises(TypeError):
        pickle.loads(pickled)


def test_targets_that_cannot_run_are_what_they_are_named_for() -> None:
    with pytest.raises(CyclicGraph):
        graphs.cyclic().topological_order()
    assert graphs.missing_dependency().ready_tasks() == []
    assert graphs.empty().empty()
    with pytest.raises(LookupError):
        graphs.cannot_be_built()
