"""Processes that tasks leave behind outside of the child's process group: daemons, copies in sessions of their own.

A supervisor adopts them when their parent ends (`kinship.adopt_orphans`). They may go on as long as the child that ran
their task; with it they are killed. Those that end earlier are collected in between, so that no zombies gather.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from contextlib import suppress

import psutil

#: How often children of killed orphans are looked for: each round takes one generation.
_MOST_GENERATIONS = 10
_COLLECTING_SECONDS = 1.0


def own_children() -> frozenset[int]:
    """Return the process ids of this process's children."""
    return frozenset(process.pid for process in psutil.Process().children())


def end_orphans(spared: Collection[int]) -> None:
    """Kill and collect the children of this process but for `spared`, and those that it thereby adopts."""
    for _ in range(_MOST_GENERATIONS):
        orphans = [process for process in psutil.Process().children() if process.pid not in spared]
        if not orphans:
            return
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
