"""Tasks that do to their process, or leave behind, what a careful one would not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path


def forks_and_lets_the_copy_return() -> str:
    """The copy comes back too, at the same time or later."""
    return "original" if os.fork() else "copy"


def forks_and_lets_the_copy_raise() -> str:
    copy = os.fork()
    if not copy:
        raise ValueError("in the copy")
    os.waitpid(copy, 0)
    return "original"


def crashes_beside_a_copy(fifo: str) -> None:
    """Die of a signal while a copy of this process, in a session of its own, waits for `fifo`."""
    if os.fork() == 0:
        os.setsid()
        Path(fifo).read_bytes()
        os._exit(0)
    os.kill(os.getpid(), signal.SIGSEGV)


def closes_its_output() -> str:
    os.close(1)
    os.close(2)
    return "closed"


def drops_its_streams() -> str:
    sys.stdout.close()
    sys.stderr = None
    return "dropped"


def prints(text: str) -> None:
    print(text, flush=True)
    os.write(1, f"{text} by its descriptor\n".encode())


def starts_a_daemon() -> int:
    """Start a process in a session of its own, whose parent ends at once; return its id."""
    script = "import os, subprocess, sys; print(subprocess.Popen(['sleep', '600'], stdout=2).pid, flush=True)"
    done = subprocess.run([sys.executable, "-c", script], start_new_session=True, stdout=subprocess.PIPE, check=True)
    return int(done.stdout)


def raises_at_length(size: int) -> None:
    raise ValueError("m" * size)
