"""Failures of the way to a task, in words that say whose they are (BEHAVIOUR QX10).

A function, an argument or a dependency's result is loaded in the child, as part of the attempt. What is missing there
is missing on this worker, so the message names the worker and where it looks for modules.
"""

from __future__ import annotations

import sys
from collections.abc import Callable


class loading:  # noqa: N801  # used as a context, like those of contextlib
    """Say in a missing module's error what needs it, who lacks it, and where that one looks.

    `what` of `names` is that in words; they are made only when there is something to say.
    """

    __slots__ = ("_names", "_what", "_worker")

    def __init__(self, worker: str, what: Callable[..., str], *names: str) -> None:
        self._worker = worker
        self._what = what
        self._names = names

    def __enter__(self) -> None:
        """Nothing is said before something fails."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, ModuleNotFoundError):
            message = (
                f"{self._what(*self._names)} needs module {error.name!r}, which is missing on worker {self._worker}. "
                f"Install it there or put its directory on the path. sys.path: {sys.path}"
            )
            raise ModuleNotFoundError(message, name=error.name, path=error.path) from error
        if isinstance(error, Exception):
            error.add_note(f"This was raised while {self._what(*self._names)} was loaded on worker {self._worker}.")


def function_of(task_id: str, function: str) -> str:
    """Name a task's function in such a message."""
    return f"The function of task {task_id!r}, {function},"


def result_of(task_id: str) -> str:
    """Name a dependency's result in such a message."""
    return f"The result of {task_id!r}"


def arguments_of(task_id: str) -> str:
    """Name a task's arguments in such a message."""
    return f"An argument of task {task_id!r}"
