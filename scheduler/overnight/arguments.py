"""Finding Tasks among arguments and putting results in their place (BEHAVIOUR G6, G8).

The arguments of a call are walked as one nested value `(args, kwargs)`. The walk enters exact lists, tuples and
dicts (values, not keys), each object once, depth first in reading order, with its own stack. It finds
- the Tasks, without duplicates, in the order in which they are met;
- the *carriers*: the containers on a path to a Task, inner ones first. They alone are rebuilt, in that order;
- the *misfits*: what is not searched and yet may hold a Task (sets, dict keys, container subclasses).
Results are put in as they are: nothing ever looks for Tasks inside a result. Classes are asked of `type`, because
`isinstance` believes what a proxy says of itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import is_
from types import NoneType
from typing import Any

from overnight.errors import InvalidTask, UnresolvedTask
from overnight.naming import LONGEST_ID
from overnight.task import Task, TaskDesc, bounded_task

_ATOMS = frozenset({str, int, float, bool, NoneType, bytes, complex})
_SEARCHED = frozenset({list, tuple, dict})
_ITERABLE_BASES = (list, tuple, set, frozenset, deque)
_CONTAINERS = (dict, *_ITERABLE_BASES)
_NOTEWORTHY = (Task, *_CONTAINERS)

Call = tuple[Task, Sequence[Any], Mapping[str, Any]]


def value_dependencies(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Task]:
    """Return the Tasks whose results the arguments take, in order, without duplicates (G6).

    Raises InvalidTask if a container holds itself and a Task.
    """
    found = _all_direct_tasks(args, kwargs)
    if found is None:
        return list(_Walk(args, kwargs).tasks.values())
    return unique_tasks(found) if found else found


def positional_dependencies(args: tuple[Any, ...]) -> tuple[Task, ...]:
    """Return ``tuple(value_dependencies(args, {}))``; `args` itself where it holds nothing but these."""
    for value in args:
        kind = type(value)
        if kind in _ATOMS:
            continue
        if kind is Task and len(args) == 1:
            return args if bounded_task(value) is value else (bounded_task(value),)
        tasks = value_dependencies(args, {})
        return args if len(tasks) == len(args) and all(map(is_, tasks, args)) else tuple(tasks)
    return ()


def unique_tasks(tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks without duplicates, the first of equal ones, ids bounded (I2, G7)."""
    if len(tasks) == 1:
        return [bounded_task(tasks[0])]
    unique: dict[str, Task] = {}
    for task in tasks:
        task_id = task.task_id
        if type(task_id) is str and len(task_id) <= LONGEST_ID:
            unique.setdefault(task_id, task)
        else:
            bounded = bounded_task(task)
            unique.setdefault(bounded.task_id, bounded)
    return list(unique.values())


def resolve_arguments(call: TaskDesc | Call, results: Mapping[Task, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return args and kwargs with each found Task replaced by its result (G8).

    `call` is a desc or a tuple (task, args, kwargs). `results` is asked for found Tasks only, each once. Where
    nothing is to be replaced the given containers come back. Raises UnresolvedTask, which names the task and the
    Task, for one without a result or in a place where it cannot be replaced.
    """
    task, args, kwargs = (call.task, call.args, call.kwargs) if isinstance(call, TaskDesc) else call
    direct = _all_direct_tasks(args, kwargs)
    if direct is not None:
        if not direct:
            return _as_list(args), _as_dict(kwargs)
        known = {found.task_id: _result_of(found, results, task) for found in unique_tasks(direct)}
        return _replaced_directly(args, kwargs, known)
    walk = _Walk(args, kwargs)
    _refuse_misplaced(task, walk.misfits)
    return walk.rebuilt({found.task_id: _result_of(found, results, task) for found in walk.tasks.values()})


def refuse_misplaced(task: Task, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raise UnresolvedTask for a Task in a place where `resolve_arguments` would not replace it."""
    if _all_direct_tasks(args, kwargs) is None:
        _refuse_misplaced(task, _Walk(args, kwargs).misfits)


def substitute_known(
    args: Sequence[Any], kwargs: Mapping[str, Any], known: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Return args and kwargs with each found Task whose id is in `known` replaced; the others stay."""
    if _all_direct_tasks(args, kwargs) is not None:
        return _replaced_directly(args, kwargs, known)
    return _Walk(args, kwargs).rebuilt(known)


def _replaced_directly(
    args: Sequence[Any], kwargs: Mapping[str, Any], known: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Do what a walk does, for arguments in which every Task stands directly."""
    new_args = [known.get(bounded_task(value).task_id, value) if type(value) is Task else value for value in args]
    if not kwargs:
        return new_args, {}
    values, _ = _replaced_directly(list(kwargs.values()), {}, known)
    return new_args, dict(zip(kwargs, values, strict=True))


def _result_of(found: Task, results: Mapping[Task, Any], task: Task) -> Any:
    try:
        return results[found]
    except KeyError as error:
        raise UnresolvedTask(
            f"Task {task.task_id!r} takes the result of {found.task_id!r}, which has none. "
            f"Add {found.task_id!r} to the graph before running it."
        ) from error


def _refuse_misplaced(task: Task, misfits: Sequence[Any]) -> None:
    for misfit in misfits:
        misplaced = _task_within(misfit)
        if misplaced is not None:
            raise UnresolvedTask(
                f"Task {task.task_id!r} holds {misplaced.task_id!r} {_place_in(misfit)}, where it cannot be replaced "
                "by its result. Pass it in a plain list, tuple or dict value."
            )


def _place_in(misfit: Any) -> str:
    """Say where a Task is: plain tuples, and what is no container, are misfits as keys alone."""
    kind = type(misfit)
    if kind in (set, frozenset):
        return "inside a set"
    if kind is tuple or not issubclass(kind, (list, tuple, dict, set, frozenset)):
        return "in the key of a dict"
    return f"inside a {kind.__name__}"


def _task_within(misfit: Any) -> Task | None:
    """Return a Task at any depth inside `misfit`, through containers of every kind."""
    seen: set[int] = set()
    waiting = [misfit]
    while waiting:
        value = waiting.pop()
        if issubclass(type(value), Task):
            found: Task = value
            return found
        if issubclass(type(value), _CONTAINERS) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(element for element in _elements(value) if issubclass(type(element), _NOTEWORTHY))
    return None


def _elements(container: Any) -> Iterator[Any]:
    """Iterate over keys, values or elements by the built-in class, whatever a subclass makes of iteration."""
    if issubclass(type(container), dict):
        yield from dict.keys(container)
        yield from dict.values(container)
        return
    base = next(base for base in _ITERABLE_BASES if issubclass(type(container), base))
    yield from base.__iter__(container)


def _all_direct_tasks(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Task] | None:
    """Return the Tasks that stand directly in the arguments, or None if only a walk can tell."""
    found = _direct_tasks(args)
    if not kwargs or found is None:
        return found
    among_kwargs = _direct_tasks(kwargs.values())
    return None if among_kwargs is None else found + among_kwargs


def _direct_tasks(values: Iterable[Any]) -> list[Task] | None:
    """Return the Tasks that stand directly among `values`, or None if only a walk can tell."""
    found = []
    for value in values:
        kind = type(value)
        if kind is Task:
            found.append(value)
        elif kind not in _ATOMS and issubclass(kind, _NOTEWORTHY):
            return None
    return found


def _as_list(args: Sequence[Any]) -> list[Any]:
    return args if type(args) is list else list(args)


def _as_dict(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return kwargs if type(kwargs) is dict else dict(kwargs)


@dataclass(slots=True)
class _Visit:
    """A container on the path of the walk: what is left of it, and whether a Task was met below it."""

    container: Any
    left: Iterator[Any]
    carries: bool = False


class _Walk:
    """One walk through the arguments of a call, done on construction (theory: top of the module)."""

    def __init__(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.tasks: dict[str, Task] = {}
        self.misfits: list[Any] = []
        self._root = (_as_list(args), _as_dict(kwargs))
        self._carriers: list[Any] = []
        #: id of an entered container -> whether it carries a Task; None while the walk is inside it.
        self._carries: dict[int, bool | None] = {}
        self._inside_itself: set[int] = set()
        self._walk()

    def rebuilt(self, known: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments with fresh carriers, in which each Task whose id is known is replaced."""
        fresh: dict[int, Any] = {}

        def new(value: Any) -> Any:
            if issubclass(type(value), Task):
                return known.get(bounded_task(value).task_id, value)
            return fresh.get(id(value), value)

        for carrier in self._carriers:
            if type(carrier) is dict:
                fresh[id(carrier)] = {key: new(value) for key, value in carrier.items()}
            else:
                fresh[id(carrier)] = type(carrier)([new(value) for value in carrier])
        args, kwargs = fresh.get(id(self._root), self._root)
        return args, kwargs

    def _walk(self) -> None:
        path = [self._open(self._root)]
        while path:
            inner = self._next_container(path[-1])
            if inner is not None:
                path.append(inner)
                continue
            visit = path.pop()
            self._close(visit)
            if path and visit.carries:
                path[-1].carries = True

    def _next_container(self, visit: _Visit) -> _Visit | None:
        """Go on through the values of `visit` up to a container that is to be entered."""
        for value in visit.left:
            kind = type(value)
            if kind in _ATOMS:
                continue
            if kind in _SEARCHED:
                inner = self._enter(value, visit)
                if inner is not None:
                    return inner
            elif issubclass(kind, Task):
                visit.carries = True
                task = bounded_task(value)
                self.tasks.setdefault(task.task_id, task)
            elif issubclass(kind, _CONTAINERS):
                self.misfits.append(value)
        return None

    def _enter(self, container: Any, visit: _Visit) -> _Visit | None:
        if id(container) not in self._carries:
            return self._open(container)
        carries = self._carries[id(container)]
        if carries is None:
            self._inside_itself.add(id(container))
        elif carries:
            visit.carries = True
        return None

    def _open(self, container: Any) -> _Visit:
        self._carries[id(container)] = None
        if type(container) is not dict:
            return _Visit(container, iter(container))
        self.misfits.extend(key for key in container if issubclass(type(key), _NOTEWORTHY))
        return _Visit(container, iter(container.values()))

    def _close(self, visit: _Visit) -> None:
        self._carries[id(visit.container)] = visit.carries
        if not visit.carries:
            return
        if id(visit.container) in self._inside_itself:
            raise InvalidTask(
                f"A {type(visit.container).__name__} among the arguments contains itself and a Task, so the "
                "result cannot be put in. Pass the Task outside of it."
            )
        self._carriers.append(visit.container)
