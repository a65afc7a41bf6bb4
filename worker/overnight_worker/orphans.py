"""Processes that tasks leave behind outside of the child's process group: daemons, copies in sessions of their own.

A supervisor adopts them when their parent ends (`kinship.adopt_orphans`). They may go on as long as the child that ran
their task; with it they are killed. Those that end earlier are collected in between, so that no zombies gather.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Collection
from contextlib import suppress

import psutil

from overnight_worker.census import descendants

#: How long processes that go on starting others are killed: each round takes all that there are.
_ENDING_SECONDS = 10.0
_COLLECTING_SECONDS = 1.0


def own_children() -> frozenset[int]:
    """Return the process ids of this process's children."""
    return frozenset(process.pid for process in psutil.Process().children())


def end_orphans(spared: Collection[int]) -> None:
    """Kill and collect the children of this process but for `spared`, with all below them."""
    give_up_at = time.monotonic() + _ENDING_SECONDS
    while time.monotonic() < give_up_at:
        orphans = [process for process in psutil.Process().children() if process.pid not in spared]
        if not orphans:
            return
        for pid in descendants(os.getpid(), spared):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in orphans:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(orphans, timeout=_COLLECTING_SECONDS)


def collect_orphans(spared: Collection[int]) -> None:
    """Collect adopted children that have ended, until one of `spared` is found to be the next."""
    if sys.platform != "linux":  # elsewhere nothing is adopted
        return
    with suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid in spared:
                return
            os.waitpid(ended.si_pid, 0)
