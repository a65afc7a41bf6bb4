"""What the kernel does for a supervisor where it is Linux: who dies with whom, and giving back a file's room."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_KEEP_SIZE_AND_PUNCH_HOLE = 0x03


def end_with_parent(parent: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Have the kernel send this process a signal when its parent ends; send it now if that has happened already."""
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, so that none escapes."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def give_back_room(descriptor: int, offset: int, length: int) -> None:
    """Empty a stretch of an open file; its size stays. Nothing happens where the file system cannot do it."""
    if sys.platform == "linux":
        stretch = (ctypes.c_int64(offset), ctypes.c_int64(length))
        ctypes.CDLL(None, use_errno=True).fallocate64(descriptor, _KEEP_SIZE_AND_PUNCH_HOLE, *stretch)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value)
