"""Who a scheduler is, so that another one on the same host can prove that it is dead.

The text names host, process id, and three facts that make the id unambiguous: the boot of the machine, the namespace
of process ids, and when the process started. Without all of them nothing is proven, and the lease has to run out.
After them come its limits over all runs (`shared_limits`), for people.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path

from overnight.shared_limits import limits_word

_SEPARATOR = " "
#: Of a description, in words: schedulers of older versions do not tell their limits.
_LENGTHS = (3, 4)
_PID = re.compile("[0-9]{1,10}")


def describe(limits: Mapping[str, float]) -> str:
    """Return the description of this process: ``host:pid``, what proves which process that is, and its limits."""
    me = f"{socket.gethostname()}:{os.getpid()}"
    return _SEPARATOR.join((me, _world(), _started(os.getpid()), limits_word(limits)))


def is_provably_dead(description: str) -> bool:
    """Tell whether the described process ran in this world of processes and exists no more."""
    parts = description.split(_SEPARATOR)
    if len(parts) not in _LENGTHS or not _world():
        return False
    name, world, started = parts[:3]
    host, _, pid = name.rpartition(":")
    if host != socket.gethostname() or world != _world() or not _PID.fullmatch(pid):
        return False
    return _started(int(pid)) != started


def _world() -> str:
    """Name the boot of this machine and the namespace of process ids; empty where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116 - the link itself names the namespace
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return when a process started, in clock ticks since boot; empty if there is none (a zombie is none)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    fields = status.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]
