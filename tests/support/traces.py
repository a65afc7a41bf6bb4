"""Values and functions that leave a trace of what happens to them, for tests of what must not happen."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any


def leave_trace(path: str) -> Tracing:
    """Make the file and return a value that does so again."""
    Path(path).touch()
    return Tracing(path)


class Tracing:
    """Leaves a trace each time that it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return leave_trace, (self.path,)


def give_tracing(path: str) -> Tracing:
    """Return a value that leaves a trace where it is unpickled."""
    return Tracing(path)


def fail_after(path: str) -> None:
    """Fail once the file is there."""
    while not Path(path).exists():
        time.sleep(0.01)
    raise ValueError("after all")


def surroundings_of_task(path: str) -> tuple[str, str | None]:
    """Make a file; return the working directory and a variable of the driver."""
    Path(path).touch()
    return str(Path.cwd()), os.environ.get("A_VARIABLE_OF_THE_DRIVER")


def open_logs(directory: str) -> list[str]:
    """Return the files below a directory that this process holds open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:
            continue
        if target.startswith(directory):
            found.append(target)
    return found
