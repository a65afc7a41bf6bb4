"""Failures of the way to a task, in words that say whose they are (BEHAVIOUR QX10).

A function, an argument or a dependency's result is loaded in the child, as part of the attempt. What is missing there
is missing on this worker, so the message names the worker and where it looks for modules.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from overnight.naming import shown


@contextmanager
def loading(what: str, worker: str) -> Iterator[None]:
    """Say in a missing module's error what needs it, who lacks it, and where that one looks."""
    try:
        yield
    except ModuleNotFoundError as error:
        message = (
            f"{what} needs module {error.name!r}, which is missing on worker {worker}. "
            f"Install it there or put its directory on the path. sys.path: {sys.path}"
        )
        raise ModuleNotFoundError(message, name=error.name, path=error.path) from error
    except Exception as error:
        error.add_note(f"This was raised while {what} was loaded on worker {worker}.")
        raise


def function_of(task_id: str, function: str) -> str:
    """Name a task's function in such a message."""
    return f"The function of task {shown(task_id)!r}, {function},"


def result_of(task_id: str) -> str:
    """Name a dependency's result in such a message."""
    return f"The result of {shown(task_id)!r}"


def arguments_of(task_id: str) -> str:
    """Name a task's arguments in such a message."""
    return f"An argument of task {shown(task_id)!r}"
