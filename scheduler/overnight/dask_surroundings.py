"""Directory, umask and environment of the driver around batches on a Dask worker (BEHAVIOUR B21, QX9).

They belong to the worker's whole process, which may run batches in several threads and for several drivers. The first
batch of a driver puts them on, and when no batch runs any more the worker has its own again. In the driver's own
process (a cluster of threads) there is nothing to do. Import paths of the driver are added for good, behind the
worker's own.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname

from overnight.surroundings import current_umask, host_environment, import_paths, passed_environment


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Those of a driver: `process` is its host and process id."""

    process: tuple[str, int]
    directory: str
    umask: int
    environment: Mapping[str, str]
    import_paths: tuple[str, ...]


def own_surroundings() -> Surroundings:
    """Return those of this process, as its tasks elsewhere are to see them."""
    return Surroundings(_this_process(), str(Path.cwd()), current_umask(), passed_environment(), tuple(import_paths()))


def _this_process() -> tuple[str, int]:
    return gethostname(), os.getpid()


@contextmanager
def applied(surroundings: Surroundings) -> Iterator[None]:
    """Give the body the surroundings; a directory that does not exist on this host is an OSError."""
    if surroundings.process == _this_process():
        yield
        return
    _worker.enter(surroundings)
    try:
        yield
    finally:
        _worker.leave()


class _Worker:
    """The surroundings of this process: its own, or those of the batches that run in it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._inside = 0
        self._own: tuple[str, int, dict[str, str]] | None = None
        self._worn: Surroundings | None = None

    def enter(self, surroundings: Surroundings) -> None:
        with self._guard:
            if self._own is None:
                self._own = (str(Path.cwd()), current_umask(), dict(os.environ))
                _allow_children()
            if self._worn != surroundings:
                _put_on(surroundings, self._own[2])
                self._worn = surroundings
            self._inside += 1

    def leave(self) -> None:
        with self._guard:
            self._inside -= 1
            if self._inside or self._own is None:
                return
            directory, umask, environment = self._own
            self._own = self._worn = None
            os.chdir(directory)
            os.umask(umask)
            _replace_environment(environment)


_worker = _Worker()


def _put_on(surroundings: Surroundings, own_environment: Mapping[str, str]) -> None:
    os.chdir(surroundings.directory)
    os.umask(surroundings.umask)
    _replace_environment({**surroundings.environment, **host_environment(own_environment)})
    sys.path.extend([path for path in surroundings.import_paths if path not in sys.path])


def _replace_environment(environment: Mapping[str, str]) -> None:
    """Make the environment this one, without a moment in which a variable that stays is missing."""
    for name in [name for name in os.environ if name not in environment]:
        del os.environ[name]
    for name, value in environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _allow_children() -> None:
    """Let this process have children, for attempts with a time limit or a process of their own.

    A nanny starts its worker as a daemonic process, which multiprocessing forbids to have any. What it guards
    against, children left behind, is seen to by `forked`, which reaps each of them.
    """
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]  # noqa: SLF001  # no public way
