"""Functions that tests run as tasks in worker processes; importing this module is cheap."""

from __future__ import annotations

import ctypes
import logging
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any


def answer() -> int:
    return 42


def plus(left: int, right: int) -> int:
    return left + right


def note(path: str, value: Any = None) -> Any:
    """Append a line to a ledger outside Redis and return the value."""
    with Path(path).open("a") as ledger:
        ledger.write(f"{os.getpid()}\n")
    return value


def wait_for_file(path: str, seconds: float = 60) -> str:
    """Say that the task has begun by making ``<path>.begun``, then wait until `path` exists."""
    Path(path + ".begun").touch()
    deadline = time.monotonic() + seconds
    while not Path(path).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.01)
    return "waited"


def fail() -> None:
    raise ValueError("no such chromosome")


def return_error() -> Exception:
    return KeyError("returned")


def leave(status: int) -> None:
    os._exit(status)


def leave_politely() -> None:
    sys.exit(3)


def crash() -> None:
    print("last words", flush=True)
    ctypes.string_at(0)


def speak_at_length_and_fail() -> None:
    for _ in range(1000):
        print("\x1b[31mred line")
    print("the last line")
    fail()


def log_and_die() -> None:
    """Print, log, so that what was printed is in the log already, and die."""
    print("about to die")
    logging.getLogger("mine").warning("a warning before the end")
    kill_itself()


def print_and_die() -> None:
    print("not flushed")
    kill_itself()


def speak_until(path: str) -> None:
    """Print, log a warning once ``<path>.more`` exists, and end once `path` does."""
    print("has begun")
    wait_for_file(str(Path(path).with_suffix(".more")))
    logging.getLogger("mine").warning("a warning of the task")
    wait_for_file(path)


def print_and_wait(path: str) -> None:
    """Print more than is kept of last words, then wait for `path`, as `wait_for_file` does."""
    for number in range(2000):
        print(f"line {number}")
    print("the last line", end="")
    wait_for_file(path)


def print_much_and_die() -> None:
    """Print more than is kept of last words, and die."""
    for number in range(2000):
        print(f"line {number}")
    kill_itself()


def kill_supervisor() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


def ignore_everything(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            time.sleep(0.05)
        except BaseException:
            continue


def block_in_c(seconds: int) -> None:
    """Hold the GIL in C and ignore signals."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    ctypes.PyDLL(None).sleep(seconds)


def generator() -> Any:
    return (number for number in range(3))


def lock() -> Any:
    return {"inner": [threading.Lock()]}


def large(megabytes: float) -> bytes:
    return b"x" * int(megabytes * 1_000_000)


def length(value: bytes) -> int:
    return len(value)


def speak() -> None:
    logging.getLogger("mine").warning("a warning of the task")
    print("printed")
    os.system("echo from a child program")


def surroundings() -> dict[str, Any]:
    umask = os.umask(0)
    os.umask(umask)
    return {
        "directory": str(Path.cwd()),
        "umask": umask,
        "driver": os.environ.get("FROM_DRIVER"),
        "mess": os.environ.get("MESS"),
        "secrets": [name for name in os.environ if "SECRET" in name or "REDIS" in name or name.startswith("RQ_")],
        "usr1": signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL,
        "random": random.random(),
        "recursion": sys.getrecursionlimit(),
        "disabled": logging.root.manager.disable,
        "pid": os.getpid(),
    }


def make_a_mess() -> None:
    os.chdir("/")
    os.umask(0o777)
    os.environ["MESS"] = "left"
    del os.environ["FROM_DRIVER"]
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    sys.setrecursionlimit(200)
    logging.disable(logging.CRITICAL)
    random.seed(42)


def leave_a_thread() -> int:
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    return os.getpid()


def process_id() -> int:
    return os.getpid()


def append(values: list[Any], value: Any) -> list[Any]:
    values.append(value)
    return values


class Unloadable:
    """Its pickle names a module that is nowhere."""

    def __reduce__(self) -> tuple[Any, ...]:
        return __import__, ("no_such_module_anywhere",)
