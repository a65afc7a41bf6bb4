"""The bad tasks of ADVERSITY 7, rows 13 to 36, each with how it must fail; and one graph that holds all of them.

Each has a dependant, which is skipped; ``bystander`` needs nothing and returns ``"unharmed"``.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from types import ModuleType
from typing import Any, NoReturn

from overnight.graph import TaskGraph
from tests.support.culprits import Unrebuildable, count_up, die_by_signal, insist
from tests.support.functions import pause, value_of

#: More than a server takes as one value.
TOO_LARGE_BYTES = 540_000_000


class Where(Enum):
    """Which executors a bad task is for."""

    EVERYWHERE = auto()
    CROSSING = auto()
    """Where functions, arguments and results are pickled; elsewhere it does no harm."""
    APART = auto()
    """Where tasks have a process of their own: it ends, or outlasts, the one it is in."""
    ELSEWHERE = auto()
    """Where tasks run in other processes than the driver's and those that it forks."""
    ON_QUEUE = auto()
    """Where results are loaded by their consumers alone."""


@dataclass(frozen=True)
class Bad:
    """A bad task: who it is for, what it calls, and of which type and with which message (a pattern) it fails.

    With `consumer`, it is not the task that fails but the one that takes its result, in `seconds` if given.
    """

    row: int
    what: str
    where: Where
    func: Callable[..., Any]
    args: tuple[Any, ...]
    type_name: str
    message: str
    seconds: float | None = None
    consumer: bool = False

    @property
    def task_id(self) -> str:
        """The id of the task."""
        return f"row {self.row}: {self.what}"

    @property
    def culprit(self) -> str:
        """The id of the task that fails."""
        return f"after {self.task_id}" if self.consumer else self.task_id


class Socketed:
    """Holds what cannot be pickled, as a live client does."""

    def __init__(self) -> None:
        self.connection = threading.Lock()


class Loaded:
    """Is pickled as a call that is made where it is loaded."""

    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        self.call = (call, args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


class Mute(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def raise_(error: type[BaseException], *args: Any) -> NoReturn:
    raise error(*args)


def raise_at_length(size: int) -> NoReturn:
    raise ValueError("m" * size)


def refuse_to_load() -> NoReturn:
    raise LookupError("the table of contents is gone")


def _function_with_a_lock() -> Callable[[], Any]:
    held = threading.Lock()
    return lambda: value_of(held)


def _function_with_a_client() -> Callable[[], Any]:
    client = Socketed()
    return lambda: value_of(client)


def _function_with_a_generator() -> Callable[[], Any]:
    numbers = count_up(3)
    return lambda: next(numbers)


def _function_with_a_file() -> Callable[[], Any]:
    file = sys.__stderr__
    return lambda: value_of(file)


def _function_of_a_missing_module() -> Callable[[], Any]:
    module = ModuleType("module_of_the_driver_alone")
    exec("def answer():\n    return 42\n", module.__dict__)
    sys.modules[module.__name__] = module
    answer: Callable[[], Any] = module.answer
    return answer


def bad_tasks() -> list[Bad]:
    """Return all of them."""
    everywhere, crossing, apart, elsewhere, on_queue = Where
    return [
        Bad(13, "a lock in a closure", crossing, _function_with_a_lock(), (), "TaskNotPicklable",
            r"closure variable 'held' is a _thread\.lock"),
        Bad(13, "a live client in a closure", crossing, _function_with_a_client(), (), "TaskNotPicklable",
            r"closure variable 'client', attribute 'connection' is a _thread\.lock"),
        Bad(13, "a generator in a closure", crossing, _function_with_a_generator(), (), "TaskNotPicklable",
            r"closure variable 'numbers' is a generator"),
        Bad(13, "an open file in a closure", crossing, _function_with_a_file(), (), "TaskNotPicklable",
            r"closure variable 'file' is a _io\.TextIOWrapper"),
        Bad(14, "an argument with a lock", crossing, value_of, ({"a": [threading.Lock()]},), "TaskNotPicklable",
            r"Argument 0 of .* key 'a', item 0 is a _thread\.lock|An argument of .*_thread\.lock"),
        Bad(16, "a lock as a result", crossing, threading.Lock, (), "ResultNotPicklable", r"of type _thread\.lock"),
        Bad(17, "a generator as a result", crossing, count_up, (3,), "ResultNotPicklable", r"return a list instead"),
        Bad(19, "a result that needs a module", on_queue, Loaded, (importlib.import_module, "module_nowhere"),
            "ModuleNotFoundError", r"result of .*row 19.*module_nowhere", consumer=True),
        Bad(20, "a result whose loading raises", on_queue, Loaded, (refuse_to_load,), "LookupError",
            r"the table of contents is gone", consumer=True),
        Bad(20, "a result whose loading hangs", on_queue, Loaded, (time.sleep, 60), "TaskTimedOut",
            r"0\.5 s", seconds=0.5, consumer=True),
        Bad(21, "an exception as a result", everywhere, ValueError, ("returned",), "ValueError", r"returned"),
        Bad(22, "an exception that cannot be rebuilt", everywhere, raise_, (Unrebuildable, "this", "that"),
            "Unrebuildable", r"this and that"),
        Bad(23, "an exception of 5 MB", crossing, raise_at_length, (5_000_000,), "ValueError",
            r"^(?=.{1000,66000}$).*m \[\.\.\. cut \.\.\.\] m"),
        Bad(23, "an exception without a text", crossing, raise_, (Mute,), "Mute", r"<unprintable>"),
        Bad(24, "sys.exit(0)", everywhere, sys.exit, (0,), "SystemExit", r"sys\.exit\(0\)"),
        Bad(24, "sys.exit(3)", everywhere, sys.exit, (3,), "SystemExit", r"sys\.exit\(3\)"),
        Bad(25, "os._exit(0)", apart, os._exit, (0,), "TaskDied", r"ended without a result|left no outcome"),
        Bad(26, "a segmentation fault", apart, die_by_signal, ("SIGSEGV",), "TaskDied", r"SIGSEGV"),
        Bad(26, "an abort", apart, die_by_signal, ("SIGABRT",), "TaskDied", r"SIGABRT"),
        Bad(28, "a kill from outside", apart, die_by_signal, ("SIGKILL",), "TaskDied", r"SIGKILL"),
        Bad(30, "what swallows its interruption", apart, insist, (60.0,), "TaskTimedOut", r"0\.5 s", seconds=0.5),
        Bad(31, "what sleeps for ever with a limit", apart, pause, (60.0,), "TaskTimedOut", r"0\.5 s", seconds=0.5),
        Bad(36, "a function of a missing module", elsewhere, _function_of_a_missing_module(), (), "",
            r"module_of_the_driver_alone"),
    ]  # fmt: skip


def bad_graph(bad: list[Bad]) -> TaskGraph:
    """Return a graph of bad tasks, a dependant for each, and a bystander."""
    graph = TaskGraph()
    for one in bad:
        first, second = (None, one.seconds) if one.consumer else (one.seconds, None)
        culprit = graph.create_task(one.task_id, one.func, args=one.args, timeout=first)
        graph.create_task(f"after {one.task_id}", value_of, args=["reached", culprit], timeout=second)
    graph.create_task("bystander", value_of, args=["unharmed"])
    return graph


def rows(*, first: int, last: int) -> TaskGraph:
    """A target of commands: all bad tasks of these rows."""
    return bad_graph([one for one in bad_tasks() if first <= one.row <= last])


def too_large() -> TaskGraph:
    """A target of commands: two tasks share an argument that no message can hold, one has such a one for itself."""
    graph = TaskGraph()
    shared = bytes(TOO_LARGE_BYTES)
    for name, value in (("one", shared), ("other", shared), ("third", bytearray(TOO_LARGE_BYTES))):
        graph.create_task(name, len, args=[value])
    graph.create_task("bystander", value_of, args=["unharmed"])
    return graph
