"""Building a task's description from what a caller passes (BEHAVIOUR I1, I2, G4 to G7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike, fspath
from typing import Any, NoReturn

from overnight.arguments import unique_tasks, value_dependencies
from overnight.naming import LONGEST_ID, bounded_task_id, check_task_id
from overnight.task import Task, TaskDesc, make_options, set_task_id

_blank = object.__new__


def make_task(
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
) -> TaskDesc:
    """Build a task with the given id and function; no graph is touched (G4).

    `retry_delay` and `timeout` are seconds, `resources` maps names to amounts (O1). Raises InvalidTaskId for an
    unusable id, InvalidTask for an option out of range, TypeError for an id, function or list of a wrong type.
    """
    if not callable(func):
        refuse_function(task_id, func)
    return TaskDesc(
        named_task(task_id),
        func,
        checked_list("args", args),
        checked_keywords(kwargs),
        unique_tasks([*checked_dependencies(deps), *value_dependencies(args, kwargs or {})]),
        checked_paths("input_files", input_files),
        checked_paths("output_files", output_files),
        checked_paths("intermediate_output_files", intermediate_output_files),
        make_options(retries, retry_delay, timeout, priority, queue, resources),
    )


def named_task(task_id: str) -> Task:
    """Return the Task for a new task's id, checked and bounded (I1, I2)."""
    # Neither NUL nor a lone surrogate is printable.
    if type(task_id) is str and task_id and len(task_id) <= LONGEST_ID and task_id.isprintable():
        task = _blank(Task)
        set_task_id(task, task_id)
        return task
    return Task(bounded_task_id(check_task_id(task_id)))


def refuse_function(task_id: str, func: object) -> NoReturn:
    """Raise TypeError for a function that cannot be called."""
    raise TypeError(f"The function of task {task_id!r} must be callable, not {func!r}.")


def checked_list(name: str, values: Iterable[Any] | None) -> list[Any]:
    """Return the values as a fresh list; raise TypeError for a single text or value where several are meant."""
    if values is None:
        return []
    if isinstance(values, str | bytes):
        raise TypeError(f"{name} must be a list or tuple, not the text {values!r}; write [{values!r}].")
    if not _is_of_several(values):
        raise TypeError(f"{name} must be a list or tuple, not {values!r}; write [{values!r}].")
    return list(values)


def checked_paths(name: str, values: Iterable[str | PathLike[str]] | None) -> list[str]:
    """Return paths and URLs as texts; raise TypeError for what is neither text nor a path."""
    paths = [fspath(path) if isinstance(path, PathLike) else path for path in checked_list(name, values)]
    for path in paths:
        if not isinstance(path, str):
            raise TypeError(f"{name} must hold paths or URLs, not {path!r}.")
    return paths


def _is_of_several(values: object) -> bool:
    return isinstance(values, Iterable) or hasattr(values, "__getitem__")


def checked_keywords(kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return keyword arguments as a fresh dict; raise TypeError for what is none."""
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError(f"kwargs must be a dict of names and values, not {kwargs!r}.")
    for name in kwargs or ():
        if not isinstance(name, str):
            raise TypeError(f"kwargs must have names as keys, not {name!r}.")
    return dict(kwargs or {})


def checked_dependencies(deps: Iterable[Task] | None) -> Sequence[Task]:
    """Return the explicit dependencies; raise TypeError for one that is not a Task."""
    if deps is None:
        return ()
    if isinstance(deps, Task | str) or not _is_of_several(deps):
        raise TypeError(f"deps must be a list or tuple of Tasks, not {deps!r}.")
    listed = list(deps)
    for dep in listed:
        if not isinstance(dep, Task):
            raise TypeError(f"A dependency must be a Task, not {dep!r}; write Task({dep!r}) for one by name.")
    return listed
