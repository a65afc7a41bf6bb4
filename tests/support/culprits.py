"""Graphs with a task that comes to a bad end, and targets that are no runnable graph.

Each of the former holds ``culprit``, which comes to the end that the function is named for, ``dependant``, which
needs its value, and ``bystander``, which needs nothing and returns ``"unharmed"``.
"""

from __future__ import annotations

import os
import signal as signals
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from overnight.graph import Task, TaskGraph
from tests.support.functions import noop, pause, value_of


def _culprit(func: Callable[..., Any], *args: Any, **options: Any) -> TaskGraph:
    graph = TaskGraph()
    culprit = graph.create_task("culprit", func, args=args, **options)
    graph.create_task("dependant", value_of, args=["reached", culprit])
    graph.create_task("bystander", value_of, args=["unharmed"])
    return graph


def raises(*, message: str = "on purpose") -> TaskGraph:
    return _culprit(_raise, message)


def many_raise(*, n: int = 30) -> TaskGraph:
    """``culprit 0`` .. ``culprit n-1``, of which each fails."""
    graph = TaskGraph()
    for number in range(n):
        graph.create_task(f"culprit {number}", _raise, args=[f"number {number}"])
    return graph


def returns_error(*, message: str = "on purpose") -> TaskGraph:
    """G23: a returned exception is a failure."""
    return _culprit(ValueError, message)


def raises_unrebuildable() -> TaskGraph:
    """The exception pickles, and cannot be made again from its pickle."""
    return _culprit(_raise_unrebuildable)


def raises_base_exception() -> TaskGraph:
    """R11."""
    return _culprit(_raise_keyboard_interrupt)


def dies_by_signal(*, signal: str = "SIGKILL") -> TaskGraph:
    return _culprit(die_by_signal, signal)


def exits(*, code: int = 3) -> TaskGraph:
    """The process ends by ``os._exit``; code 0 is a death too (B18)."""
    return _culprit(os._exit, code)


def calls_sys_exit(*, code: int = 3) -> TaskGraph:
    return _culprit(sys.exit, code)


def returns_generator() -> TaskGraph:
    return _culprit(count_up, 3)


def unpicklable_result() -> TaskGraph:
    return _culprit(threading.Lock)


def unpicklable_argument() -> TaskGraph:
    return _culprit(value_of, threading.Lock())


def unpicklable_function() -> TaskGraph:
    lock = threading.Lock()
    return _culprit(lambda: value_of(lock))


def function_of_a_missing_module() -> TaskGraph:
    """The function belongs to a module that exists in the process that builds the graph, and nowhere else."""
    module = ModuleType("module_that_only_the_driver_has")
    exec("def answer():\n    return 42\n", module.__dict__)
    sys.modules[module.__name__] = module
    return _culprit(module.answer)


def overruns(*, seconds: float = 60.0, timeout: float = 0.5) -> TaskGraph:
    """The culprit sleeps longer than its time limit."""
    return _culprit(pause, seconds, timeout=timeout)


def overruns_stubbornly(*, seconds: float = 60.0, timeout: float = 0.5) -> TaskGraph:
    """The culprit outlasts its time limit and every exception that would interrupt it."""
    return _culprit(insist, seconds, timeout=timeout)


def holds(*, ledger: str, megabytes: int = 450, copies: int = 0) -> TaskGraph:
    """The culprit holds so much memory, or has so many copies of its process hold it, and never ends."""
    return _culprit(hold, ledger, megabytes, copies)


def forks(*, ledger: str, copies: int = 60, sessions: bool = False) -> TaskGraph:
    """The culprit starts so many copies of its process, on request each in a session of its own, and never ends."""
    return _culprit(hold, ledger, 0, copies, sessions)


def shouts(*, megabytes: int = 5) -> TaskGraph:
    """The culprit prints so much that is no text, and ends well."""
    return _culprit(shout, megabytes)


def kills_its_parent(*, ledger: str) -> TaskGraph:
    """The culprit notes itself and kills the process that its own is a child of."""
    return _culprit(kill_parent, ledger)


def kill_parent(ledger: str) -> NoReturn:
    with Path(ledger).open("a", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")
    os.kill(os.getppid(), signals.SIGKILL)
    while True:
        signals.pause()


def hold(ledger: str, megabytes: int, copies: int, sessions: bool = False) -> NoReturn:
    """Note each process in the ledger; the copies hold the memory if there are any."""
    is_copy = any(os.fork() == 0 for _ in range(copies))
    if is_copy and sessions:
        os.setsid()
    with Path(ledger).open("a", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")
    held = b"x" * (megabytes * 1_000_000 if is_copy or not copies else 0)
    while held is not None:
        signals.pause()


def shout(megabytes: int) -> str:
    for _ in range(megabytes):
        os.write(sys.stdout.fileno(), b"\xff\x00y\n" * 250_000)
    return "said"


def die_by_signal(name: str) -> NoReturn:
    number = signals.Signals[name]
    if number not in (signals.SIGKILL, signals.SIGSTOP):
        signals.signal(number, signals.SIG_DFL)
    os.kill(os.getpid(), number)
    while True:
        signals.pause()


def count_up(most: int) -> Iterator[int]:
    yield from range(most)


def insist(seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        try:
            time.sleep(left)
        except BaseException:
            continue


class Unrebuildable(Exception):
    """Is pickled with one argument and needs two."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


def _raise(message: str) -> NoReturn:
    raise ValueError(message)


def _raise_unrebuildable() -> NoReturn:
    raise Unrebuildable("this", "that")


def _raise_keyboard_interrupt() -> NoReturn:
    raise KeyboardInterrupt


def cyclic() -> TaskGraph:
    """``a`` -> ``b`` -> ``c`` -> ``a``."""
    graph = TaskGraph()
    for task_id, before in (("a", "c"), ("b", "a"), ("c", "b")):
        graph.create_task(task_id, noop, args=[], deps=[Task(before)])
    return graph


def missing_dependency() -> TaskGraph:
    """``here`` depends on ``elsewhere``, which the graph does not hold."""
    graph = TaskGraph()
    graph.create_task("here", noop, args=[], deps=[Task("elsewhere")])
    return graph


def empty() -> TaskGraph:
    return TaskGraph()


def no_graph() -> str:
    return "not a graph"


def cannot_be_built() -> TaskGraph:
    raise LookupError("the input list is missing")
