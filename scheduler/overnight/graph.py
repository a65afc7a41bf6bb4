"""The graph of tasks: what is to run, and in which order it may (BEHAVIOUR G).

`TaskGraph` is the documented API over a `GraphContent`, which keeps nodes, unmet edges and the set of ready tasks
up to date with each change, so asking what is ready, completing and extracting cost what they touch. Every public
method takes one re-entrant lock; `with graph as nodes:` holds it.

Executors that keep results elsewhere use `get_declared` (the desc as it was added, for `resolve_arguments`),
`mark_completed` (no value enters the graph), `mark_failed` (tells what is skipped) and, after an abandoned run,
`fill_in`. A task may stay in the graph while it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from threading import RLock
from typing import TYPE_CHECKING, Any

from overnight.arguments import Call, resolve_arguments, value_dependencies
from overnight.chain import chain_tasks, function_name
from overnight.errors import MissingDependency, MissingExtra, UsageError, nearest
from overnight.graph_content import GraphContent, NodesByTask
from overnight.graph_node import TaskNode, node_of
from overnight.graph_order import by_generation
from overnight.making import checked_list, make_task, named_task, refuse_function
from overnight.task import DEFAULT_OPTIONS, Task, TaskDesc, TaskOptions, bounded_task, make_options, sync_tasks

if TYPE_CHECKING:
    import networkx as nx

__all__ = [
    "DEFAULT_OPTIONS",
    "Call",
    "Task",
    "TaskDesc",
    "TaskGraph",
    "TaskNode",
    "TaskOptions",
    "chain_tasks",
    "function_name",
    "make_options",
    "make_task",
    "missing_dependencies",
    "resolve_arguments",
    "sync_tasks",
    "value_dependencies",
]

#: A desc as it was added, and the results of its dependencies that the graph itself holds.
Declared = tuple[TaskDesc, dict[Task, Any]]


class TaskGraph:
    """A graph of tasks. `input_files` are files from which the whole graph was made (G14)."""

    def __init__(self) -> None:
        self.input_files: list[str] = []
        self._content = GraphContent()
        self._lock = RLock()
        self._listener: Callable[[], None] | None = None

    make_task = staticmethod(make_task)

    def create_task(
        self,
        task_id: str,
        func: Callable[..., Any],
        *,
        args: Sequence[Any],
        kwargs: dict[str, Any] | None = None,
        deps: Sequence[Task] | None = None,
        input_files: Sequence[str] | None = None,
        output_files: Sequence[str] | None = None,
        intermediate_output_files: Sequence[str] | None = None,
        retries: int = 0,
        retry_delay: float = 0.0,
        timeout: float | None = None,
        priority: int = 0,
        queue: str | None = None,
        resources: Mapping[str, float] | None = None,
    ) -> Task:
        """Create a new task, add it and return its Task (G5). Parameters and errors: `make_task`, `add_task`."""
        if not callable(func):
            refuse_function(task_id, func)
        options = make_options(retries, retry_delay, timeout, priority, queue, resources)
        node = TaskNode().describe(named_task(task_id), func, args, options)
        if kwargs or deps or input_files or output_files or intermediate_output_files:
            node.describe_further(kwargs, deps, input_files, output_files, intermediate_output_files)
        with self._lock:
            self._content.add_one(node)
        if self._listener is not None:
            self._listener()
        return node.task

    def add_task(self, task_desc: TaskDesc) -> Task:
        """Add a task; raises DuplicateTask for an id in the graph, InvalidTaskId for an unusable one (G9)."""
        return self.add_tasks([task_desc])[0]

    def add_tasks(self, task_descs: Sequence[TaskDesc]) -> list[Task]:
        """Add all of the tasks, or none of them if one cannot be added (G10). Errors: `add_task`."""
        nodes = [node_of(desc) for desc in task_descs]
        with self._lock:
            self._content.add(nodes)
        if self._listener is not None:
            self._listener()
        return [node.task for node in nodes]

    @property
    def tasks(self) -> list[Task]:
        """All tasks in the graph, in insertion order; a new list."""
        with self._lock:
            return [node.task for node in self._content.nodes.values()]

    def __len__(self) -> int:
        return len(self._content.nodes)

    def empty(self) -> bool:
        """Check if the graph is empty."""
        return not self._content.nodes

    def has_task(self, task: Task) -> bool:
        """Check if the graph contains a task."""
        with self._lock:
            return bounded_task(task).task_id in self._content.nodes

    def get_task_desc(self, task: Task) -> TaskDesc:
        """Return a fresh desc as things stand: results put in, remaining `deps` (G15). Raises UnknownTask."""
        with self._lock:
            return self._content.node(task).desc(self.input_files)

    def get_task_deps(self, task: Task) -> list[Task]:
        """Return a copy of the remaining dependencies (G16). Raises UnknownTask."""
        with self._lock:
            return list(self._content.node(task).remaining)

    def check(self) -> None:
        """Raise CyclicGraph if dependencies form a cycle; only additions call for a new search (G12)."""
        with self._lock:
            self._content.check()

    def topological_order(self) -> list[Task]:
        """Return the tasks in topological order, generation by generation (G18). Raises CyclicGraph."""
        with self._lock:
            self._content.check()
            return by_generation(self._content.nodes, self._content.edges.absent)

    def as_directed_graph(self) -> nx.DiGraph[Task]:
        """Return the graph as a networkx DiGraph, edges from dependency to task (G17). Raises CyclicGraph."""
        try:
            import networkx as nx
        except ImportError:
            raise MissingExtra("as_directed_graph needs networkx; install it with: pip install networkx") from None
        with self._lock:
            self._content.check()
            nodes = self._content.nodes.values()
            directed: nx.DiGraph[Task] = nx.DiGraph()
            directed.add_nodes_from(sorted(node.task for node in nodes))
            directed.add_edges_from((dep, node.task) for node in nodes for dep in node.remaining)
            return directed

    def ready_tasks(self, limit: int = 0) -> list[Task]:
        """Return up to `limit` (0: all) tasks without remaining dependencies, higher priority first (G19)."""
        if limit < 0:
            raise UsageError(f"The limit of ready_tasks must be 0 (all) or more, not {limit}.")
        with self._lock:
            return self._content.ready(limit)

    def extract_tasks(self, selected_tasks: Sequence[Task]) -> list[TaskDesc]:
        """Remove the tasks and return their descs; dependants go on waiting for them (G21).

        Raises UnknownTask or DuplicateTask, and removes nothing, for a task that is absent or named twice.
        """
        with self._lock:
            nodes = self._content.distinct_nodes(selected_tasks)
            descs = [node.desc(self.input_files) for node in nodes]
            self._content.remove(nodes)
            return descs

    def process_completed_tasks(self, task_result: Sequence[tuple[Task, Any]]) -> None:
        """Remove the completed tasks (G22).

        Direct dependants get the result in place of the Task. A result that is an exception removes all
        transitive dependants.
        """
        with self._lock:
            for task, result in task_result:
                if isinstance(result, BaseException):
                    self._content.fail(task)
                else:
                    self._content.complete(task, result)

    def prune(self, tasks_to_keep: Sequence[Task | str]) -> None:
        """Keep the named tasks and all their ancestors (G24). Raises UnknownTask and changes nothing."""
        names = checked_list("tasks_to_keep", tasks_to_keep)
        with self._lock:
            self._content.prune(names)

    # For executors that keep results elsewhere, and for tasks that are added while a run goes on.

    def get_declared(self, task: Task) -> Declared:
        """Return the desc as it was added, no result put in, and the results that the graph holds for it.

        `resolve_arguments(desc, results)` puts them in together with those that the caller holds.
        """
        with self._lock:
            return _declared(self._content.node(task), self.input_files)

    def extract_declared(self, selected_tasks: Sequence[Task]) -> list[Declared]:
        """Remove the tasks as `extract_tasks` does and return what `get_declared` would."""
        with self._lock:
            nodes = self._content.distinct_nodes(selected_tasks)
            declared = [_declared(node, self.input_files) for node in nodes]
            self._content.remove(nodes)
            return declared

    def mark_completed(self, tasks: Iterable[Task]) -> None:
        """Remove tasks that succeeded and satisfy their dependants; the values stay with the caller."""
        with self._lock:
            for task in tasks:
                self._content.complete(task)

    def mark_failed(self, task: Task) -> list[Task]:
        """Remove a task that failed and all its transitive dependants; return these."""
        with self._lock:
            return self._content.fail(task)

    def fill_in(self, results: Mapping[Task, Any]) -> None:
        """Put the results of tasks that were marked completed into the tasks that are left (B6).

        `results` is asked only for what the arguments of a task that is left take. A Task without one stays.
        """
        with self._lock:
            self._content.fill_in(results)

    @property
    def additions(self) -> int:
        """How many tasks were ever added: changes whenever the graph grows."""
        return self._content.additions

    def added_after(self, additions: int) -> list[Task]:
        """Return the tasks in the graph that were added since `additions` had that value, in order."""
        with self._lock:
            return self._content.added_after(additions)

    def tell_additions_to(self, listener: Callable[[], None] | None) -> None:
        """Call `listener` after each addition, in the thread that adds, until it is replaced by None."""
        self._listener = listener

    def refuse_ids_of(self, finished: Container[Task]) -> None:
        """Refuse to add a Task that is in `finished`, a live container, until it is replaced by ``()`` (G11)."""
        with self._lock:
            self._content.finished = finished

    # The lock, copies and pickles.

    def __enter__(self) -> Mapping[Task, TaskNode]:
        self._lock.acquire()
        return NodesByTask(self._content)

    def __exit__(self, *_exception: object) -> None:
        self._lock.release()

    def __getstate__(self) -> tuple[list[str], list[TaskNode]]:
        with self._lock:
            return list(self.input_files), [node.copy() for node in self._content.nodes.values()]

    def __setstate__(self, state: tuple[list[str], list[TaskNode]]) -> None:
        self.input_files, nodes = state
        self._content = GraphContent(nodes)
        self._lock = RLock()
        self._listener = None

    def __deepcopy__(self, memo: dict[int, Any]) -> TaskGraph:
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__setstate__(self.__getstate__())
        return copied


def missing_dependencies(graph: TaskGraph, completed: Container[Task]) -> None:
    """Raise MissingDependency if a task depends on one that is neither in the graph nor in `completed` (B5)."""
    with graph as nodes:
        for node in nodes.values():
            for dep in node.remaining:
                if dep not in nodes and dep not in completed:
                    hint = nearest(dep.task_id, [task.task_id for task in nodes])
                    raise MissingDependency(
                        f"Task {node.task.task_id!r} depends on {dep.task_id!r}, which is neither in the graph nor "
                        f"completed{hint} Add it, or remove the dependency."
                    )


def _declared(node: TaskNode, graph_inputs: Sequence[str]) -> Declared:
    return node.declared_desc(graph_inputs), {Task(task_id): value for task_id, value in node.held_results.items()}
