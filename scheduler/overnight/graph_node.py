"""A task inside a graph: its description and how far its dependencies have come.

A node names its dependencies by id. The nodes that wait for it are the graph's affair: no copy and no pickle has them,
so a chain of a million is copied and pickled without recursion. A result is not put into a node's arguments when it
arrives: it is kept beside them and put in when the desc is asked for, so a completion costs its own edges and nothing
else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, final

from overnight.arguments import positional_dependencies, substitute_known, unique_tasks, value_dependencies
from overnight.making import checked_dependencies, checked_keywords, checked_list, checked_paths, named_task
from overnight.task import DEFAULT_OPTIONS, Task, TaskDesc, TaskOptions, new_desc, plain_desc


class _Value(Enum):
    """Stands for the value of a completed dependency that the graph does not hold."""

    NOT_HELD = 0


NOT_HELD = _Value.NOT_HELD
_NO_IDS: frozenset[str] = frozenset()
_NO_KWARGS: dict[str, Any] = {}
SEQUENCE_BITS = 48


@dataclass(slots=True)
class _Extras:
    """What many tasks do not have: keyword arguments and files; None for a container that holds nothing."""

    kwargs: dict[str, Any] | None = None
    inputs: list[str] | None = None
    outputs: list[str] | None = None
    intermediates: list[str] | None = None

    def copy(self) -> _Extras:
        """Return extras with containers of their own."""
        files = (None if names is None else list(names) for names in (self.inputs, self.outputs, self.intermediates))
        return _Extras(None if self.kwargs is None else dict(self.kwargs), *files)


_NO_EXTRAS = _Extras()


@final
class TaskNode:
    """A task in a graph: its description, and what of its dependencies is settled.

    `deps` are all declared dependencies. `unmet` counts those that have not completed. `wanted` are the ids
    whose results the arguments take, None meaning all of `deps`. `waiting` are the nodes that wait for this one.
    `rank` orders ready tasks: higher priority first, then insertion. `alive` is False once the task has left the
    graph.
    """

    rank: int

    __slots__ = (
        "_args", "_extras", "_settled",
        "alive", "deps", "func", "options", "rank", "task", "unmet", "waiting", "wanted",
    )  # fmt: skip

    def describe(
        self, task: Task, func: Callable[..., Any], args: Sequence[Any], options: TaskOptions = DEFAULT_OPTIONS
    ) -> TaskNode:
        """Fill in a new node and return it. Takes the place of a construction, which would cost twice as much."""
        kind = type(args)
        positional = tuple(args if kind is list or kind is tuple else checked_list("args", args))
        deps = positional_dependencies(positional)
        self.task = task
        self.func = func
        self.options = options
        self.deps = deps
        self.wanted: frozenset[str] | None = None
        self.unmet = len(deps)
        self.waiting: Waiting | None = None
        self.alive = True
        self._args: tuple[Any, ...] = positional
        self._extras: _Extras | None = None
        self._settled: dict[str, Any] | None = None
        return self

    def describe_further(
        self,
        kwargs: Mapping[str, Any] | None,
        deps: Sequence[Task] | None,
        input_files: Sequence[str] | None,
        output_files: Sequence[str] | None,
        intermediate_output_files: Sequence[str] | None,
    ) -> TaskNode:
        """Add what many tasks do not have, before any dependency is settled, and return the node."""
        if kwargs or input_files or output_files or intermediate_output_files:
            self._extras = _Extras(
                checked_keywords(kwargs) if kwargs else None,
                checked_paths("input_files", input_files) if input_files else None,
                checked_paths("output_files", output_files) if output_files else None,
                checked_paths("intermediate_output_files", intermediate_output_files)
                if intermediate_output_files
                else None,
            )
        if kwargs or deps:
            self.deps, self.wanted = self._dependencies(kwargs or _NO_KWARGS, deps)
            self.unmet = len(self.deps)
        return self

    def _dependencies(
        self, kwargs: Mapping[str, Any], explicit: Sequence[Task] | None
    ) -> tuple[tuple[Task, ...], frozenset[str] | None]:
        values = value_dependencies(self._args, kwargs) if kwargs else self.deps
        if not explicit:
            return tuple(values), None
        deps = unique_tasks([*checked_dependencies(explicit), *values])
        wanted = frozenset([task.task_id for task in values]) if values else _NO_IDS
        return tuple(deps), None if len(wanted) == len(deps) else wanted

    def _made_extras(self) -> _Extras:
        if self._extras is None:
            self._extras = _Extras()
        return self._extras

    @property
    def input_files(self) -> list[str]:
        """The task's own input files: a live list."""
        extras = self._made_extras()
        if extras.inputs is None:
            extras.inputs = []
        return extras.inputs

    @property
    def output_files(self) -> list[str]:
        """The output files: a live list."""
        extras = self._made_extras()
        if extras.outputs is None:
            extras.outputs = []
        return extras.outputs

    @property
    def intermediate_output_files(self) -> list[str]:
        """The intermediate output files: a live list."""
        extras = self._made_extras()
        if extras.intermediates is None:
            extras.intermediates = []
        return extras.intermediates

    @property
    def declared_files(self) -> tuple[Sequence[str], Sequence[str], Sequence[str]] | None:
        """Inputs, outputs and intermediate outputs, to be read only; None if the task declares no file."""
        extras = self._extras
        if extras is None or not (extras.inputs or extras.outputs or extras.intermediates):
            return None
        return extras.inputs or (), extras.outputs or (), extras.intermediates or ()

    @property
    def remaining(self) -> Sequence[Task]:
        """The dependencies that have not completed, in declared order."""
        if not self.unmet:
            return ()
        if self._settled is None:
            return self.deps
        return [dep for dep in self.deps if dep.task_id not in self._settled]

    @property
    def held_results(self) -> dict[str, Any]:
        """Results of completed dependencies that the arguments take and the graph holds, by id."""
        settled = self._settled or {}
        if not self.unmet:
            return settled
        return {task_id: value for task_id, value in settled.items() if value is not NOT_HELD}

    @property
    def sequence(self) -> int:
        """The number of the addition that brought the task in."""
        return self.rank & ((1 << SEQUENCE_BITS) - 1)

    def settle(self, task_id: str, value: Any = NOT_HELD) -> None:
        """Note that the dependency `task_id` has completed; its value is kept only if the arguments take it."""
        self.unmet = unmet = self.unmet - 1
        if self.wanted is not None and task_id not in self.wanted:
            value = NOT_HELD
        settled = self._settled
        if settled is None:
            if unmet or value is not NOT_HELD:
                self._settled = {task_id: value}
            return
        settled[task_id] = value
        if not unmet:
            self._settled = {key: held for key, held in settled.items() if held is not NOT_HELD} or None

    def fill_in(self, results: Mapping[Task, Any]) -> None:
        """Take over the wanted values of completed dependencies that only `results` holds."""
        if self.unmet == len(self.deps):
            return
        waiting = {dep.task_id for dep in self.remaining}
        filled = dict(self._settled or {})
        for dep in self.deps:
            task_id = dep.task_id
            wanted = self.wanted is None or task_id in self.wanted
            if wanted and task_id not in waiting and filled.get(task_id, NOT_HELD) is NOT_HELD and dep in results:
                filled[task_id] = results[dep]
        self._settled = filled or None

    def desc(
        self,
        graph_inputs: Sequence[str],
        make: Callable[[Task, Callable[..., Any], list[Any], TaskOptions], TaskDesc] = plain_desc,
    ) -> TaskDesc:
        """Return the description as it stands: held results put in, `deps` the remaining ones (G15).

        `make` makes that of a task which has neither further arguments, nor files, nor remaining dependencies.
        """
        extras, settled = self._extras, self._settled
        if extras is None and not self.unmet and (not settled or self.deps is self._args):
            args = self._args_with(settled) if settled else list(self._args)
            if not graph_inputs:
                return make(self.task, self.func, args, self.options)
            return self._desc(args, {}, [], _NO_EXTRAS, graph_inputs)
        if extras is None:
            extras = _NO_EXTRAS
        args, kwargs = list(self._args), dict(extras.kwargs or {})
        if settled:
            args, kwargs = substitute_known(args, kwargs, self.held_results)
        return self._desc(args, kwargs, list(self.remaining), extras, graph_inputs)

    def declared_desc(self, graph_inputs: Sequence[str]) -> TaskDesc:
        """Return the description as it was declared: Tasks in their places, all dependencies."""
        extras = self._extras or _NO_EXTRAS
        return self._desc(list(self._args), dict(extras.kwargs or {}), list(self.deps), extras, graph_inputs)

    def _args_with(self, results: Mapping[str, Any]) -> list[Any]:
        """Return the arguments, which are the dependencies, with their results, those that are held."""
        if len(self.deps) == 1:
            return list(results.values())
        return [results.get(task.task_id, task) for task in self.deps]

    def _desc(
        self, args: list[Any], kwargs: dict[str, Any], deps: list[Task], extras: _Extras, graph_inputs: Sequence[str]
    ) -> TaskDesc:
        return new_desc(
            self.task,
            self.func,
            args,
            kwargs,
            deps,
            [*graph_inputs, *extras.inputs] if extras.inputs else list(graph_inputs),
            list(extras.outputs) if extras.outputs else [],
            list(extras.intermediates) if extras.intermediates else [],
            self.options,
        )

    def copy(self) -> TaskNode:
        """Return a node of the same content, its containers copied one level, that is in no graph yet."""
        twin = TaskNode.__new__(TaskNode)
        twin.__setstate__(self.__getstate__())
        return twin

    def __getstate__(self) -> tuple[Any, ...]:
        return (
            self.task,
            self.func,
            self.options,
            self._args,
            None if self._extras is None else self._extras.copy(),
            self.deps,
            self.wanted,
            None if self._settled is None else dict(self._settled),
            self.unmet,
        )

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.task, self.func, self.options, self._args, self._extras = state[:5]
        self.deps, self.wanted, self._settled, self.unmet = state[5:]
        self.waiting = None
        self.alive = True


#: The nodes that wait for one task, in the order in which they came; one alone stands for itself, which spares a list
#: for each task of a chain.
Waiting = TaskNode | list[TaskNode]


def node_of(desc: TaskDesc) -> TaskNode:
    """Return a node with copies of the desc's containers; raises InvalidTaskId for an unusable id (I1, G9)."""
    node = TaskNode().describe(named_task(desc.task.task_id), desc.func, desc.args, desc.options)
    if desc.kwargs or desc.deps or desc.input_files or desc.output_files or desc.intermediate_output_files:
        node.describe_further(
            desc.kwargs, desc.deps, desc.input_files, desc.output_files, desc.intermediate_output_files
        )
    return node
