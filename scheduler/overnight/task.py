"""A task as the user describes it: its name, its options and its full description.

`Task` is a name and nothing else, so it can stand for a task before, after and without that task being in a
graph. `TaskDesc` is everything that is needed to run one. Both are values: they compare by content and pickle.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from threading import RLock
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from overnight.errors import InvalidTask
from overnight.naming import LONGEST_ID, check_task_id, cut_task_id, is_text


@dataclass(frozen=True, order=True, init=False)
class Task:
    """The name of a task: equal, hashed and ordered by its id; checks nothing (G1, G2)."""

    __slots__ = ("task_id",)

    task_id: str

    def __init__(self, task_id: str) -> None:
        set_task_id(self, task_id)

    def __hash__(self) -> int:
        return hash(self.task_id)

    def __reduce__(self) -> tuple[type[Task], tuple[str]]:
        return type(self), (self.task_id,)


#: Fills in a Task that was made by ``object.__new__``, past the class's refusal of every assignment.
set_task_id: Callable[[Task, str], None] = vars(Task)["task_id"].__set__


def bounded_task(task: Task) -> Task:
    """Return `task`, or the Task with the cut id where its id is too long (I2)."""
    task_id = task.task_id
    if type(task_id) is str and len(task_id) <= LONGEST_ID:
        return task
    return Task(cut_task_id(check_task_id(task_id)))


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """How a task is to be run (O1 to O6).

    `retry_delay` and `timeout` are seconds. `resources` may be given as a mapping or as pairs; it is kept as
    pairs (name, amount) sorted by name. Raises InvalidTask for a value out of range, TypeError for a wrong type.
    """

    retries: int = 0
    retry_delay: float = 0.0
    timeout: float | None = None
    priority: int = 0
    queue: str | None = None
    resources: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        _check_integer("retries", self.retries)
        _check_integer("priority", self.priority)
        _check("retries", self.retries, self.retries >= 0, "0 or more")
        _check_number("retry_delay", self.retry_delay)
        _check("retry_delay", self.retry_delay, 0 <= self.retry_delay < math.inf, "0 or more seconds")
        if self.timeout is not None:
            _check_number("timeout", self.timeout)
            _check("timeout", self.timeout, 0 < self.timeout < math.inf, "more than 0 seconds, or None")
        if self.queue is not None:
            good = isinstance(self.queue, str) and self.queue != "" and is_text(self.queue)
            _check("queue", self.queue, good, "a name, or None")
        object.__setattr__(self, "resources", _resource_pairs(self.resources))

    def __reduce__(self) -> str | tuple[object, ...]:
        if self is DEFAULT_OPTIONS:
            return "DEFAULT_OPTIONS"
        fields = (self.retries, self.retry_delay, self.timeout, self.priority, self.queue, self.resources)
        return TaskOptions, fields

    @property
    def resource_amounts(self) -> Mapping[str, float]:
        """The resources as a read-only mapping name -> amount."""
        return MappingProxyType(dict(self.resources))


def _check(field: str, value: object, good: bool, expected: str) -> None:  # noqa: FBT001 - the verdict itself
    if not good:
        raise InvalidTask(f"{field} must be {expected}, not {value!r}.")


def _check_integer(field: str, value: object) -> None:
    try:
        operator.index(value)  # type: ignore[arg-type]  # whether it is an integer is the question
    except TypeError:
        raise TypeError(f"{field} must be an integer, not {value!r}.") from None


def _check_number(field: str, value: object) -> None:
    try:
        value < 0  # type: ignore[operator]  # noqa: B015  # whether it can be compared is the question
    except TypeError:
        raise TypeError(f"{field} must be a number, not {value!r}.") from None


def _resource_pairs(resources: Mapping[str, float] | Iterable[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    pairs = tuple(sorted(dict(resources).items()))
    for name, amount in pairs:
        _check_number(f"resources[{name!r}]", amount)
        _check(f"resources[{name!r}]", amount, 0 < amount < math.inf, "more than 0")
    return pairs


DEFAULT_OPTIONS = TaskOptions()


def make_options(
    retries: int = 0,
    retry_delay: float = 0.0,
    timeout: float | None = None,
    priority: int = 0,
    queue: str | None = None,
    resources: Mapping[str, float] | None = None,
) -> TaskOptions:
    """Return the options with these values; the shared DEFAULT_OPTIONS where nothing differs from it."""
    if timeout is None and queue is None and not resources and retries == 0 and priority == 0 and retry_delay == 0.0:
        return DEFAULT_OPTIONS
    if resources and not isinstance(resources, Mapping):
        raise TypeError(f"resources must map names to amounts, such as {{'db': 1}}, not {resources!r}.")
    return TaskOptions(retries, retry_delay, timeout, priority, queue, tuple((resources or {}).items()))


@dataclass(frozen=True, slots=True)
class TaskDesc:
    """The full description of a task; its fields are fixed, its containers ordinary mutable ones (G3).

    `deps` are the dependencies, those among `args` and `kwargs` included once a graph or `make_task` made it.
    """

    task: Task
    func: Callable[..., Any]
    args: list[Any]
    kwargs: dict[str, Any]
    deps: list[Task]
    input_files: list[str]
    output_files: list[str]
    intermediate_output_files: list[str]
    options: TaskOptions = DEFAULT_OPTIONS

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # how Python marks an unhashable class

    if not TYPE_CHECKING:  # a checker that knew of it would take every misspelt field for a good one

        def __getattr__(self, field: str) -> Any:
            """Give the desc the empty container that `plain_desc` left out."""
            if field not in _CONTAINERS:
                raise AttributeError(f"A TaskDesc has no {field!r}.", name=field, obj=self)
            with _FILLING:
                try:
                    return object.__getattribute__(self, field)
                except AttributeError:
                    container = _CONTAINERS[field]()
                    object.__setattr__(self, field, container)
                    return container


_CONTAINERS = {
    "kwargs": dict,
    "deps": list,
    "input_files": list,
    "output_files": list,
    "intermediate_output_files": list,
}
#: Two threads that ask for a container at once get the same one; no fork leaves it locked in the child.
_FILLING = RLock()
os.register_at_fork(before=_FILLING.acquire, after_in_parent=_FILLING.release, after_in_child=_FILLING.release)


class _Draft:
    """A TaskDesc while it is filled: a frozen class charges three times as much for each field."""

    __slots__ = TaskDesc.__slots__


def plain_desc(task: Task, func: Callable[..., Any], args: list[Any], options: TaskOptions) -> TaskDesc:
    """Return ``TaskDesc(task, func, args, {}, [], [], [], [], options)``, each empty container made when first seen.

    Most descs are run and dropped without anybody looking at those, and garbage collections would look at all.
    """
    draft: Any = _Draft()
    draft.task = task
    draft.func = func
    draft.args = args
    draft.options = options
    draft.__class__ = TaskDesc
    desc: TaskDesc = draft
    return desc


def sent_desc(task: Task, func: Callable[..., Any], args: list[Any], options: TaskOptions) -> TaskDesc:
    """Return what `plain_desc` does for who is going to look at `kwargs` and `deps` of every desc: with both made."""
    draft: Any = _Draft()
    draft.task = task
    draft.func = func
    draft.args = args
    draft.kwargs = {}
    draft.deps = []
    draft.options = options
    draft.__class__ = TaskDesc
    desc: TaskDesc = draft
    return desc


def new_desc(
    task: Task,
    func: Callable[..., Any],
    args: list[Any],
    kwargs: dict[str, Any],
    deps: list[Task],
    input_files: list[str],
    output_files: list[str],
    intermediate_output_files: list[str],
    options: TaskOptions,
) -> TaskDesc:
    """Return ``TaskDesc(...)`` of the same arguments, at a third of its cost: graphs make one for each task."""
    draft: Any = _Draft()
    draft.task = task
    draft.func = func
    draft.args = args
    draft.kwargs = kwargs
    draft.deps = deps
    draft.input_files = input_files
    draft.output_files = output_files
    draft.intermediate_output_files = intermediate_output_files
    draft.options = options
    draft.__class__ = TaskDesc
    desc: TaskDesc = draft
    return desc


def sync_tasks() -> None:
    """Do nothing: the function of a barrier task, which only waits for its dependencies (G32)."""
