"""Who may take a flag away, where several processes want to put another in its place."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from overnight.flag_files import check_regular

#: Whoever holds a flag for longer is frozen, or waits for its server; the others go on without it.
PATIENCE_SECONDS = 2.0
_FIRST_PAUSE_SECONDS = 0.001
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def held(name: str, directory: int) -> Iterator[os.stat_result | None]:
    """Hold the flag that stands, so that no rival takes it away meanwhile; give its facts, None if it is gone by then.

    A lock of its file does that, which dies with its process. One that cannot be locked, as it is another user's or on
    a file server without locks, is not held. Raises BadSeal for what is no regular file.
    """
    facts = replaceable(name, directory)
    try:
        descriptor = os.open(name, _READ, dir_fd=directory)
    except OSError:
        yield facts
        return
    try:
        is_held = _lock(descriptor)
        now = replaceable(name, directory)
        is_same = now is not None and os.path.samestat(now, os.fstat(descriptor))
        yield now if is_same or not is_held else None
    finally:
        with suppress(OSError):  # closing alone does not free what a process that was forked meanwhile has inherited
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def replaceable(name: str, directory: int) -> os.stat_result | None:
    """Return the facts of the file that stands, None if there is none. Raises BadSeal for what is no regular file."""
    try:
        facts = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    check_regular(facts)
    return facts


def _lock(descriptor: int) -> bool:
    """Lock an open file, waiting for a while; tell whether that was possible."""
    limit = time.monotonic() + PATIENCE_SECONDS
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > limit:
                return False
            time.sleep(pause)
            pause = min(0.05, pause * 2)
        except OSError:
            return False
        else:
            return True
