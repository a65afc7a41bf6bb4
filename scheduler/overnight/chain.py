"""Several tasks as one that runs them one after the other, and the names of functions (G28 to G31, C11).

A chain's function takes the first link's arguments. Each later link keeps its own, in which the Task of the link
before it is replaced by that link's result. A chain inside a chain is spliced in, so calls never nest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from overnight.arguments import resolve_arguments, unique_tasks, value_dependencies
from overnight.errors import FAULTS_OF_OBJECTS, InvalidTask
from overnight.task import Task, TaskDesc, TaskOptions, bounded_task, make_options


@dataclass(frozen=True, slots=True)
class Link:
    """One function of a chain; `args` and `kwargs` may hold the Task `before`, the link it follows."""

    task: Task
    func: Callable[..., Any]
    args: list[Any]
    kwargs: dict[str, Any]
    before: Task

    def run(self, result_before: Any) -> Any:
        """Call the function with the result of the link before it."""
        args, kwargs = resolve_arguments((self.task, self.args, self.kwargs), {self.before: result_before})
        return self.func(*args, **kwargs)


@dataclass(frozen=True, slots=True)
class Chain:
    """The function of a chained task: `first` with the arguments of the call, then each link (G30)."""

    task: Task
    first: Callable[..., Any]
    links: tuple[Link, ...]

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the functions in order; an exception that one returns ends the chain as its result."""
        result = self.first(*args, **kwargs)
        for link in self.links:
            if isinstance(result, BaseException):
                break
            result = link.run(result)
        return result

    @property
    def functions(self) -> list[Callable[..., Any]]:
        """The functions in the order in which they run."""
        return [self.first, *(link.func for link in self.links)]


def chain_tasks(*tasks: TaskDesc) -> TaskDesc:
    """Chain tasks together so that they run one after the other as one task (G28).

    Returns a desc with the last one's task and the first one's arguments. Raises InvalidTask without tasks, for
    a task that depends on anything but the one before it, and for two different queues.
    """
    if not tasks:
        raise InvalidTask("A chain needs at least one task.")
    if len(tasks) == 1:
        return tasks[0]
    for before, desc in pairwise(tasks):
        _check_follows(before, desc)
    first = tasks[0]
    return TaskDesc(
        bounded_task(tasks[-1].task),
        _chain_of(tasks),
        list(first.args),
        dict(first.kwargs),
        unique_tasks([*first.deps, *value_dependencies(first.args, first.kwargs)]),
        [name for desc in tasks for name in desc.input_files],
        [name for desc in tasks for name in desc.output_files],
        [name for desc in tasks for name in desc.intermediate_output_files],
        _options_of([desc.options for desc in tasks]),
    )


def _check_follows(before: TaskDesc, desc: TaskDesc) -> None:
    expected = bounded_task(before.task)
    for dep in unique_tasks([*desc.deps, *value_dependencies(desc.args, desc.kwargs)]):
        if dep != expected:
            raise InvalidTask(
                f"In a chain {desc.task.task_id!r} may depend on {before.task.task_id!r} alone, "
                f"but it depends on {dep.task_id!r}. Give that dependency to the first task of the chain."
            )


def _chain_of(tasks: Sequence[TaskDesc]) -> Chain:
    links: list[Link] = []
    for before, desc in pairwise(tasks):
        links.extend(_links_of(desc, bounded_task(before.task)))
    head = _as_chain(tasks[0])
    return Chain(head.task, head.first, (*head.links, *links))


def _links_of(desc: TaskDesc, before: Task) -> list[Link]:
    chain = _as_chain(desc)
    return [Link(chain.task, chain.first, list(desc.args), dict(desc.kwargs), before), *chain.links]


def _as_chain(desc: TaskDesc) -> Chain:
    return desc.func if isinstance(desc.func, Chain) else Chain(bounded_task(desc.task), desc.func, ())


def _options_of(options: Sequence[TaskOptions]) -> TaskOptions:
    """Return the options of a chain (G31)."""
    timeouts = [each.timeout for each in options if each.timeout is not None]
    queues = list(dict.fromkeys(each.queue for each in options if each.queue is not None))
    if len(queues) > 1:
        raise InvalidTask(f"The tasks of a chain name two queues, {queues[0]!r} and {queues[1]!r}. Name one.")
    amounts: dict[str, float] = {}
    for name, amount in (pair for each in options for pair in each.resources):
        amounts[name] = max(amount, amounts.get(name, amount))
    return make_options(
        retries=max(each.retries for each in options),
        retry_delay=max(each.retry_delay for each in options),
        timeout=sum(timeouts) if len(timeouts) == len(options) else None,
        priority=max(each.priority for each in options),
        queue=queues[0] if queues else None,
        resources=amounts,
    )


def function_name(func: Callable[..., Any]) -> str:
    """Return `module:qualified.name` of a function; of a chain all of them, joined with ` | ` (C11).

    Never raises: a callable that hides its names is called by its type's.
    """
    functions = func.functions if type(func) is Chain else [func]
    return " | ".join(_plain_name(each) for each in functions)


def _plain_name(func: Any) -> str:
    while issubclass(type(func), functools.partial):
        func = func.func
    for named in (func, type(func)):
        module, name = _text_attribute(named, "__module__"), _text_attribute(named, "__qualname__")
        if name is not None:
            return f"{module or 'builtins'}:{name}"
    return "builtins:object"


def _text_attribute(value: Any, name: str) -> str | None:
    """Return an attribute that is a text; None where it is missing, is something else or cannot be had."""
    try:
        text = getattr(value, name, None)
    except FAULTS_OF_OBJECTS:  # an attribute lookup runs the object's own code, which may raise anything
        return None
    return text if isinstance(text, str) else None
