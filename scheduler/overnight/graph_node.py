"""A task inside a graph: its description and how far its dependencies have come.

A node names its dependencies by id and refers to no other node but those that wait for it, which leave with it and
come back when a graph takes it in: so a chain of a million is copied and pickled without recursion. A result is not put into a node's arguments when it arrives: it is kept beside them and put in when the
desc is asked for, so a completion costs its own edges and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from operator import is_
from typing import Any, final

from overnight.arguments import substitute_known, unique_tasks, value_dependencies
from overnight.making import checked_dependencies, checked_list, named_task
from overnight.task import Task, TaskDesc, TaskOptions, new_desc


class _Value(Enum):
    """Stands for the value of a completed dependency that the graph does not hold."""

    NOT_HELD = 0


NOT_HELD = _Value.NOT_HELD
_NO_IDS: frozenset[str] = frozenset()
_NO_KWARGS: dict[str, Any] = {}
SEQUENCE_BITS = 48


@final
class TaskNode:
    """A task in a graph: its description, and what of its dependencies is settled.

    `deps` are all declared dependencies. `unmet` counts those that have not completed. `rank` orders ready
    tasks: higher priority first, then insertion. `waiting` are the nodes that wait for this one. `wanted` are the ids whose results the arguments take, None
    meaning all of `deps`. `alive` is False once the task has left the graph.
    """

    __slots__ = (
        "_args", "_inputs", "_intermediates", "_kwargs", "_outputs", "_settled",
        "alive", "deps", "func", "options", "rank", "task", "unmet", "waiting", "wanted",
    )  # fmt: skip

    def __init__(
        self,
        task: Task,
        func: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None,
        deps: Sequence[Task] | None,
        input_files: Sequence[str] | None,
        output_files: Sequence[str] | None,
        intermediate_output_files: Sequence[str] | None,
        options: TaskOptions,
    ) -> None:
        self.task = task
        self.func = func
        self.options = options
        self._args: tuple[Any, ...] = tuple(args if type(args) in (list, tuple) else checked_list("args", args))
        self._kwargs = dict(kwargs) if kwargs else None
        self._inputs = checked_list("input_files", input_files) if input_files else None
        self._outputs = checked_list("output_files", output_files) if output_files else None
        self._intermediates = (
            checked_list("intermediate_output_files", intermediate_output_files) if intermediate_output_files else None
        )
        self.deps, self.wanted = self._dependencies(deps)
        self._settled: dict[str, Any] | None = None
        self.unmet = len(self.deps)
        self.waiting: Waiting | None = None
        self.rank = 0
        self.alive = True

    def _dependencies(self, explicit: Sequence[Task] | None) -> tuple[tuple[Task, ...], frozenset[str] | None]:
        values = value_dependencies(self._args, self._kwargs or _NO_KWARGS)
        if not explicit:
            if not values:
                return (), None
            same = len(values) == len(self._args) and all(map(is_, values, self._args))
            return self._args if same else tuple(values), None
        deps = unique_tasks([*checked_dependencies(explicit), *values])
        wanted = frozenset([task.task_id for task in values]) if values else _NO_IDS
        return tuple(deps), None if len(wanted) == len(deps) else wanted

    @property
    def input_files(self) -> list[str]:
        """The task's own input files: a live list."""
        if self._inputs is None:
            self._inputs = []
        return self._inputs

    @property
    def output_files(self) -> list[str]:
        """The output files: a live list."""
        if self._outputs is None:
            self._outputs = []
        return self._outputs

    @property
    def intermediate_output_files(self) -> list[str]:
        """The intermediate output files: a live list."""
        if self._intermediates is None:
            self._intermediates = []
        return self._intermediates

    @property
    def declared_files(self) -> tuple[Sequence[str], Sequence[str], Sequence[str]] | None:
        """Inputs, outputs and intermediate outputs, to be read only; None if the task declares no file."""
        if not (self._inputs or self._outputs or self._intermediates):
            return None
        return self._inputs or (), self._outputs or (), self._intermediates or ()

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
        self.unmet -= 1
        if self.wanted is not None and task_id not in self.wanted:
            value = NOT_HELD
        if self._settled is None:
            if self.unmet or value is not NOT_HELD:
                self._settled = {task_id: value}
            return
        self._settled[task_id] = value
        if not self.unmet:
            self._settled = {key: held for key, held in self._settled.items() if held is not NOT_HELD} or None

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

    def desc(self, graph_inputs: Sequence[str]) -> TaskDesc:
        """Return the description as it stands: held results put in, `deps` the remaining ones (G15)."""
        kwargs = dict(self._kwargs) if self._kwargs else {}
        if not self._settled:
            args = list(self._args)
        elif self.deps is self._args:
            held = self.held_results
            args = [held.get(task.task_id, task) for task in self.deps]
        else:
            args, kwargs = substitute_known(list(self._args), kwargs, self.held_results)
        return new_desc(
            self.task,
            self.func,
            args,
            kwargs,
            list(self.remaining) if self.unmet else [],
            [*graph_inputs, *(self._inputs or ())],
            list(self._outputs) if self._outputs else [],
            list(self._intermediates) if self._intermediates else [],
            self.options,
        )

    def declared_desc(self, graph_inputs: Sequence[str]) -> TaskDesc:
        """Return the description as it was declared: Tasks in their places, all dependencies."""
        return new_desc(
            self.task,
            self.func,
            list(self._args),
            dict(self._kwargs or {}),
            list(self.deps),
            [*graph_inputs, *(self._inputs or ())],
            list(self._outputs or ()),
            list(self._intermediates or ()),
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
            None if self._kwargs is None else dict(self._kwargs),
            *(None if files is None else list(files) for files in (self._inputs, self._outputs, self._intermediates)),
            self.deps,
            self.wanted,
            None if self._settled is None else dict(self._settled),
            self.unmet,
        )

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.task, self.func, self.options, self._args, self._kwargs = state[:5]
        self._inputs, self._outputs, self._intermediates = state[5:8]
        self.deps, self.wanted, self._settled, self.unmet = state[8:]
        self.waiting = None
        self.rank = 0
        self.alive = True


#: The nodes that wait for one task, in the order in which they came; one alone stands for itself, which spares a list
#: for each task of a chain.
Waiting = TaskNode | list[TaskNode]


def node_of(desc: TaskDesc) -> TaskNode:
    """Return a node with copies of the desc's containers; raises InvalidTaskId for an unusable id (I1, G9)."""
    return TaskNode(
        named_task(desc.task.task_id),
        desc.func,
        desc.args,
        desc.kwargs,
        desc.deps,
        desc.input_files,
        desc.output_files,
        desc.intermediate_output_files,
        desc.options,
    )
