"""Processes that end with the one that started them, however that ends.

The starter holds the writing end of a pipe for as long as it lives, the started process the reading end. When the
last writer is gone, the kernel sends SIGKILL to the whole process group of the reader. No thread watches, so the
process stays free to fork; and other than with a parent-death signal, the end of the starting *thread* means nothing.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import threading

_F_SETSIG = 10


def end_group_with(lifeline: int) -> None:
    """Have this process's group killed when the writing end of the pipe `lifeline` closes; now if it has closed.

    The reading end must be this process's alone. Where the kernel cannot do it, a thread does.
    """
    if sys.platform == "linux":
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, _F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
        _end_if_closed(lifeline, 0)
    else:
        threading.Thread(target=_end_if_closed, args=(lifeline, None), daemon=True).start()


def _end_if_closed(lifeline: int, milliseconds: int | None) -> None:
    poll = select.poll()
    poll.register(lifeline, select.POLLHUP)
    if poll.poll(milliseconds):
        os.killpg(0, signal.SIGKILL)
