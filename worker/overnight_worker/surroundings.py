"""What a task finds around it, and how it is put right again after each one (BEHAVIOUR B21, QX9).

`settle` brings the process into a run's directory, umask, environment and import paths. `restore` is called after
each task and repairs what the task changed of these, of the signal handlers and of the random seed; it looks first,
because almost always nothing did, and it is called between tasks of microseconds.
"""

from __future__ import annotations

import os
import random
import signal
import sys

# signal.getsignal wraps each answer in an enum, which takes thirty times as long.
from _signal import getsignal  # type: ignore[import-not-found]  # typeshed does not know it
from collections.abc import Mapping, Sequence

from overnight.surroundings import host_environment

_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGALRM,
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGUSR1,
    signal.SIGUSR2,
)

#: Where the seed of each task comes from: of its own, so that no task sets that of the next.
_seeds = random.Random(int.from_bytes(os.urandom(32)))  # noqa: S311  # seeds for simulations guard nothing
_OWN_PATHS = tuple(sys.path)
_HOST_ENVIRONMENT = host_environment(os.environ)


class Surroundings:
    """The surroundings of one run in this process.

    The driver's import paths come before this interpreter's own; the driver's variables replace all but those that
    describe this host.
    """

    def __init__(self, directory: str, umask: int, environment: Mapping[str, str], import_paths: Sequence[str]) -> None:
        self._directory = directory
        self._umask = umask
        variables = {**_HOST_ENVIRONMENT, **environment}
        self._environment = {os.fsencode(name): os.fsencode(value) for name, value in variables.items()}
        self._paths = [*import_paths, *[path for path in _OWN_PATHS if path not in import_paths]]
        self._handlers = [(int(number), getsignal(number)) for number in _SIGNALS]

    def settle(self) -> None:
        """Enter the surroundings. Raises OSError if the directory cannot be entered here."""
        os.chdir(self._directory)
        os.umask(self._umask)
        self._set_environment()
        sys.path[:] = self._paths

    def restore(self) -> None:
        """Undo what a task changed. Raises OSError if the directory is gone."""
        if _directory() != self._directory:
            os.chdir(self._directory)
        os.umask(self._umask)
        if _live_environment() != self._environment:
            self._set_environment()
        if sys.path != self._paths:
            sys.path[:] = self._paths
        for number, handler in self._handlers:
            if getsignal(number) is not handler and handler is not None:
                signal.signal(number, handler)
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
