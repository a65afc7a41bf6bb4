"""Task functions for tests. What must be seen across processes is written to files."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


class Fatal(BaseException):
    """An exception that is not an Exception."""


class CannotBeRebuilt(Exception):
    """Pickles, and cannot be unpickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def give(value: Any, *_ignored: Any) -> Any:
    """Return the value."""
    return value


def join(*texts: str) -> str:
    """Return the texts joined by a plus sign."""
    return "+".join(texts)


def fail(message: str = "no luck", *_ignored: Any) -> None:
    """Raise a ValueError."""
    raise ValueError(message)


def fail_by_return(message: str = "returned") -> BaseException:
    """Return an exception object."""
    return ValueError(message)


def raise_fatal() -> None:
    """Raise what is not an Exception."""
    raise Fatal("fatal")


def exit_politely() -> None:
    """Raise SystemExit."""
    sys.exit(3)


def exit_hard(code: int) -> None:
    """End the process without an outcome."""
    os._exit(code)


def kill_own_process() -> None:
    """Die by SIGKILL."""
    os.kill(os.getpid(), signal.SIGKILL)


def raise_unrebuildable() -> None:
    """Raise what cannot be unpickled."""
    raise CannotBeRebuilt("a", "b")


def note(path: str, text: str) -> str:
    """Append a line to a file and return the text."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(text + "\n")
    return text


def noted(path: Path) -> list[str]:
    """Return the lines that `note` wrote."""
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def fail_until(path: str, attempts: int) -> int:
    """Fail until this is the attempt of that number; return the number."""
    note(path, "attempt")
    done = len(noted(Path(path)))
    if done < attempts:
        raise ValueError(f"attempt {done}")
    return done


def hang() -> None:
    """Wait for ever, interruptibly."""
    while True:
        time.sleep(60)


def hang_stubbornly(limit_seconds: float) -> str:
    """Swallow every interruption for so long."""
    end = time.monotonic() + limit_seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.01)
        except BaseException:
            continue
    return "went on"


def own_pid() -> int:
    """Return the id of the process that runs the task."""
    return os.getpid()


def lock() -> Any:
    """Return what cannot be pickled."""
    import threading

    return threading.Lock()


def log_at(level: int, text: str) -> None:
    """Log one record."""
    logging.getLogger("a.task").log(level, text)


def write_here(name: str) -> str:
    """Write a file with a relative path."""
    Path(name).write_text(name, encoding="utf-8")
    return name


# Values, gates and objects of some size.


class Project:
    """A large object with a method that tasks call."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def size(self) -> int:
        """Return the size of the content."""
        return len(self.content)


def megabytes(number: int) -> bytes:
    """Return so many megabytes that no compression makes smaller."""
    return os.urandom(number * 1024 * 1024)


def size_of(value: Any) -> int:
    """Return the size of the one value inside lists and dicts."""
    while isinstance(value, (list, dict)):
        (value,) = value.values() if isinstance(value, dict) else value
    return len(value)


def append_and_give(values: list[Any]) -> list[Any]:
    """Change the argument and return it."""
    values.append("more")
    return values


def fail_if(value: Any, bad: Any) -> Any:
    """Raise a ValueError for the bad value, return any other."""
    if value == bad:
        raise ValueError(f"{value} is bad")
    return value


def interrupt() -> None:
    """Raise KeyboardInterrupt."""
    raise KeyboardInterrupt


def give_after_gate(gate: str, value: Any) -> Any:
    """Wait until the gate, a FIFO, is opened; return the value."""
    with Path(gate).open("rb") as fifo:
        fifo.read()
    return value


def open_if(gate: str | None, value: Any) -> Any:
    """Wait at the gate if there is one; return the value."""
    return value if gate is None else give_after_gate(gate, value)


def wait_at_first(pids: str, gate: str, value: Any) -> int:
    """Note the process id; in the first attempt wait at the gate; return the size of the value."""
    note(pids, str(os.getpid()))
    if len(noted(Path(pids))) == 1:
        give_after_gate(gate, None)
    return size_of(value)


def open_gate(gate: Path) -> None:
    """Let one task through the gate, once it is there."""
    with gate.open("wb"):
        pass


def begin_and_wait(gate: str, began: str) -> str:
    """Say that the task has begun, then wait until someone writes to the gate, a FIFO; return the text."""
    Path(began).touch()
    return Path(gate).read_text(encoding="utf-8")


def write_to(gate: str) -> None:
    """Let the task go on that waits at the gate."""
    Path(gate).write_text("opened", encoding="utf-8")


class ExitsWhenLoaded:
    """Pickles, and ends the program that unpickles it, if that lets it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.exit, (9,)


class ExitsWhenDumped:
    """Ends the program that pickles it, if that lets it."""

    def __reduce__(self) -> tuple[Any, ...]:
        sys.exit(9)


class ExitsWhenShown(Exception):
    """An exception whose text cannot be had."""

    def __str__(self) -> str:
        raise SystemExit(9)


def give_exit_when_loaded() -> ExitsWhenLoaded:
    """Return what exits where it is loaded."""
    return ExitsWhenLoaded()


def give_exit_when_dumped() -> ExitsWhenDumped:
    """Return what exits where it is pickled."""
    return ExitsWhenDumped()


def raise_exit_when_shown() -> None:
    """Raise what exits where its text is asked for."""
    raise ExitsWhenShown
