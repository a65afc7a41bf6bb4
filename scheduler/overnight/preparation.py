"""What precedes every run: the graph is checked, and what is finished already is found (BEHAVIOUR B4, B5, B12, F2 e).

`prepare` changes nothing. A stored result is loaded only if a task that will run takes it as a value, or if the
caller wants all of them; one that cannot be loaded makes its task run, and with it what the rule then asks for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from overnight.cache import NoTaskCache, TaskCache
from overnight.errors import BadSeal, RecordMismatch
from overnight.garbage import uncollected
from overnight.graph import Task, TaskGraph, missing_dependencies, value_dependencies
from overnight.inspection import Decisions, decide
from overnight.task import TaskDesc, sent_desc


@dataclass(frozen=True, slots=True)
class Preparation:
    """The completed tasks in graph order, the results of theirs that were loaded, and why the others run."""

    completed: list[Task] = field(default_factory=list)
    results: dict[Task, Any] = field(default_factory=dict)
    decisions: Decisions | None = None


def check_is_graph(graph: object) -> None:
    """Raise TypeError for what is no graph."""
    if not isinstance(graph, TaskGraph):
        raise TypeError(f"A TaskGraph was expected, not {graph!r}.")


def all_descs(graph: TaskGraph) -> list[TaskDesc]:
    """Return a fresh desc of each task as things stand, in insertion order, for a run that sends them all (G15)."""
    with graph as nodes, uncollected():
        return [node.desc(graph.input_files, sent_desc) for node in nodes.values()]


def prepare(graph: TaskGraph, cache: TaskCache, *, force: bool = False, load_all: bool = False) -> Preparation:
    """Check the graph and decide what of it is completed. `force` reads no record (B14).

    Raises CyclicGraph, MissingDependency, Unreachable for a remote status directory, UnusableDirectory for a local one.
    """
    graph.check()
    missing_dependencies(graph, ())
    if force or isinstance(cache, NoTaskCache):
        return Preparation()
    decisions = decide(graph, cache, with_bodies=load_all)
    loader = _Loader(graph, decisions)
    if load_all:
        with uncollected():
            loader.load(decisions.completed)
    else:
        loader.load_needed()
    results = {task: value for task, value in loader.results.items() if not decisions.runs(task)}
    return Preparation(decisions.completed, results, decisions)


class _Loader:
    """Loads stored results; a task whose result cannot be loaded is told to run."""

    def __init__(self, graph: TaskGraph, decisions: Decisions) -> None:
        self.results: dict[Task, Any] = {}
        self._graph = graph
        self._decisions = decisions

    def load_needed(self) -> None:
        """Load what tasks that must run take as values, until no further task enters the set."""
        seen: set[Task] = set()
        while new := [task for task in self._decisions.must_run if task not in seen]:
            seen.update(new)
            for task in new:
                self.load(self._taken_by(task))

    def load(self, tasks: Iterable[Task]) -> None:
        """Load the results of those of the tasks that need not run."""
        for task in tasks:
            if task in self.results or self._decisions.runs(task):
                continue
            try:
                self.results[task] = self._decisions.load(task)
            except (BadSeal, RecordMismatch):
                self._decisions.also_run(task)

    def _taken_by(self, task: Task) -> list[Task]:
        desc, held = self._graph.get_declared(task)
        taken = value_dependencies(desc.args, desc.kwargs)
        return [dep for dep in taken if dep not in held and self._graph.has_task(dep)]
