"""Graphs for tests and benchmarks, each the target of a command: ``tests.support.graphs:chain``.

Every function that returns a TaskGraph makes a fresh one and takes keyword parameters only. The shapes are here:
they compute values that their docstrings tell. `ledgers` has graphs that leave a trace, `culprits` those that come
to a bad end; all are offered here under one name.
"""

from __future__ import annotations

from overnight.graph import Task, TaskGraph
from tests.support.culprits import (
    Unrebuildable,
    calls_sys_exit,
    cannot_be_built,
    cyclic,
    dies_by_signal,
    empty,
    exits,
    forks,
    function_of_a_missing_module,
    holds,
    kills_its_parent,
    many_raise,
    missing_dependency,
    no_graph,
    overruns,
    overruns_stubbornly,
    raises,
    raises_base_exception,
    raises_unrebuildable,
    returns_error,
    returns_generator,
    shouts,
    unpicklable_argument,
    unpicklable_function,
    unpicklable_result,
)
from tests.support.functions import noop, one_more, pause, pause_after, total, total_size, value_of
from tests.support.ledgers import (
    flaky,
    gated,
    ledger_census,
    ledger_chain,
    ledger_edges,
    ledger_graph,
    ledger_values,
    read_ledger,
)

__all__ = [
    "Unrebuildable",
    "calls_sys_exit",
    "cannot_be_built",
    "chain",
    "chain_behind_sleeps",
    "cyclic",
    "diamond",
    "dies_by_signal",
    "empty",
    "exits",
    "fan_in",
    "flaky",
    "forks",
    "function_of_a_missing_module",
    "gated",
    "holds",
    "kills_its_parent",
    "large_results",
    "layers",
    "ledger_census",
    "ledger_chain",
    "ledger_edges",
    "ledger_graph",
    "ledger_values",
    "many_raise",
    "missing_dependency",
    "no_graph",
    "noops",
    "overruns",
    "overruns_stubbornly",
    "raises",
    "raises_base_exception",
    "raises_unrebuildable",
    "read_ledger",
    "returns_error",
    "returns_generator",
    "shouts",
    "sleeps",
    "unpicklable_argument",
    "unpicklable_function",
    "unpicklable_result",
]


def noops(*, n: int = 100) -> TaskGraph:
    """``noop 0`` .. ``noop n-1``, independent, each None."""
    graph = TaskGraph()
    for number in range(n):
        graph.create_task(f"noop {number}", noop, args=[])
    return graph


def chain(*, n: int = 100) -> TaskGraph:
    """``link 0`` -> .. -> ``link n-1``; each value is its number."""
    graph = TaskGraph()
    before: list[Task] = []
    for number in range(n):
        before = [graph.create_task(f"link {number}", one_more, args=before)]
    return graph


def fan_in(*, n: int = 100) -> TaskGraph:
    """``part 0`` .. ``part n-1``, each its number, then ``total``, their sum."""
    graph = TaskGraph()
    parts = [graph.create_task(f"part {number}", value_of, args=[number]) for number in range(n)]
    graph.create_task("total", total, args=[parts])
    return graph


def layers(*, k: int = 10, n: int = 50) -> TaskGraph:
    """`k` layers of `n` tasks ``cell <layer>:<number>``, two dependencies each; each value is its layer."""
    graph = TaskGraph()
    above: list[Task] = []
    for layer in range(k):
        above = [
            graph.create_task(
                f"cell {layer}:{number}", one_more, args=[above[number], above[(number + 1) % n]] if above else []
            )
            for number in range(n)
        ]
    return graph


def chain_behind_sleeps(*, links: int = 40, n: int = 80, seconds: float = 0.05) -> TaskGraph:
    """``sleep 0`` .. ``sleep n-1``, independent, and a chain ``link 0`` -> .. of sleeps twice as long."""
    graph = sleeps(seconds=seconds, n=n)
    before: list[Task] = []
    for number in range(links):
        before = [graph.create_task(f"link {number}", pause_after, args=[2 * seconds, *before])]
    return graph


def diamond() -> TaskGraph:
    """``top`` (0), ``left`` and ``right`` (1 each), ``bottom`` (2)."""
    graph = TaskGraph()
    top = graph.create_task("top", one_more, args=[])
    sides = [graph.create_task(name, one_more, args=[top]) for name in ("left", "right")]
    graph.create_task("bottom", one_more, args=sides)
    return graph


def sleeps(*, seconds: float = 0.05, n: int = 1) -> TaskGraph:
    """``sleep 0`` .. ``sleep n-1``, independent, of `seconds` each, which is their value."""
    graph = TaskGraph()
    for number in range(n):
        graph.create_task(f"sleep {number}", pause, args=[seconds])
    return graph


def large_results(*, size: int = 1_000_000, n: int = 4) -> TaskGraph:
    """``large 0`` .. ``large n-1``, each `size` bytes, then ``size``, their sum in bytes."""
    graph = TaskGraph()
    parts = [graph.create_task(f"large {number}", bytes, args=[size]) for number in range(n)]
    graph.create_task("size", total_size, args=[parts])
    return graph
