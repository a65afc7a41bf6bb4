"""What tasks find around them in a process that runs one after the other (BEHAVIOUR B21, QX9).

Processes of the pool and the worker's warm child are such. `settle` brings the process into the surroundings of a run,
and after each task puts right what that changed. It looks first: almost always nothing has changed, and this runs
between tasks of microseconds.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import sys

# signal.getsignal wraps each answer in an enum, which takes thirty times as long.
from _signal import getsignal  # type: ignore[import-not-found]  # typeshed does not know it
from collections.abc import Mapping, Sequence

_SIGNALS = tuple(
    int(number)
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGALRM,
        signal.SIGCHLD,
        signal.SIGPIPE,
        signal.SIGUSR1,
        signal.SIGUSR2,
    )
)
#: Where the seed of each task comes from, so that no task sets that of the next.
_seeds = random.Random(int.from_bytes(os.urandom(32)))  # noqa: S311  # seeds for simulations guard nothing


class Surroundings:
    """Directory, umask, environment and import paths of one run, and the interpreter's settings in the process."""

    def __init__(self, directory: str, umask: int, environment: Mapping[str, str], import_paths: Sequence[str]) -> None:
        self._directory = directory
        self._umask = umask
        self._environment = {os.fsencode(name): os.fsencode(text) for name, text in environment.items()}
        self._paths = list(import_paths)
        self._handlers = [(number, getsignal(number)) for number in _SIGNALS]
        self._recursion_limit = sys.getrecursionlimit()
        self._disabled_level = logging.root.manager.disable

    def settle(self) -> None:
        """Enter the surroundings, or enter them again after a task. Raises OSError if the directory is gone."""
        if _directory() != self._directory:
            os.chdir(self._directory)
        os.umask(self._umask)
        if _live_environment() != self._environment:
            self._set_environment()
        if sys.path != self._paths:
            sys.path[:] = self._paths
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._handlers:
            if getsignal(number) is not handler and handler is not None:
                signal.signal(number, handler)
        if sys.getrecursionlimit() != self._recursion_limit:
            sys.setrecursionlimit(self._recursion_limit)
        if logging.root.manager.disable != self._disabled_level:
            logging.disable(self._disabled_level)
        random.seed(_seeds.getrandbits(64))

    def _set_environment(self) -> None:
        for name in _live_environment().keys() - self._environment.keys():
            del os.environb[name]
        os.environb.update(self._environment)


def _live_environment() -> Mapping[bytes, bytes]:
    """Return the environment without copying it: os.environ decodes and encodes each name and value."""
    data: Mapping[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]  # noqa: SLF001  # 30 times faster
    return data


def _directory() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - compared as text
    except OSError:  # a task removed the directory it was in
        return None
