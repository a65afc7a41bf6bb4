"""What a run sends to its pool once, and where it keeps the large results that come back (BEHAVIOUR B15, B19, B21)."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import weakref
from collections.abc import Callable
from functools import partial
from itertools import count
from types import FunctionType
from typing import Any

from overnight.base_executor import RunFacts
from overnight.graph_run import Launch
from overnight.naming import shown
from overnight.outcome_message import unpack_outcome
from overnight.pickling import dump_arguments, dump_input, dumps
from overnight.pool_frames import RunContext
from overnight.pool_process import import_paths
from overnight.surroundings import OF_THE_HOST, current_umask, passed_environment

#: What is larger leaves the driver's memory.
LARGEST_KEPT_BYTES = 64 * 1024

_NO_ARGUMENTS = dumps(((), {}))

_logger = logging.getLogger(__name__)


def context_of(facts: RunFacts) -> RunContext:
    """Return what the processes are to know of a run, with the driver's surroundings as they are now."""
    return RunContext(
        run_id=facts.run_id,
        log_dir=facts.log_dir,
        verbosity=facts.verbosity,
        fork_tasks=facts.fork_tasks,
        directory=os.getcwd(),  # noqa: PTH109 - travels as text
        umask=current_umask(),
        environment=passed_environment(also=OF_THE_HOST),
        import_paths=import_paths(),
    )


class PackedCalls:
    """Pickles the calls of one run: a function that several of its tasks share once, arguments for each task."""

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[FunctionType, tuple[int, bytes]] = weakref.WeakKeyDictionary()
        self._numbers = count(1)

    def packed(self, launch: Launch) -> tuple[int, bytes, bytes]:
        """Return the function's number (0: not shared), the function, the arguments. Raises TaskNotPicklable."""
        number, function = self._function(launch)
        if not launch.args and not launch.kwargs:
            return number, function, _NO_ARGUMENTS
        return number, function, _dumped_arguments(launch)

    def _function(self, launch: Launch) -> tuple[int, bytes]:
        """Number a function when it is seen again, so that no process keeps those of a single task."""
        func = launch.desc.func
        if not isinstance(func, FunctionType):
            return 0, _dumped(func, "The function", launch)
        known = self._known.get(func)
        if known is None:
            known = (0, _dumped(func, "The function", launch))
        elif not known[0]:
            known = (next(self._numbers), known[1])
        else:
            return known
        self._known[func] = known
        return known


def _dumped_arguments(launch: Launch) -> bytes:
    try:
        return dumps((launch.args, launch.kwargs))
    except Exception:  # as for a function
        where = f"task {shown(launch.task.task_id)!r}"
        return dump_arguments(launch.args, launch.kwargs, where, limit_bytes=sys.maxsize)


def _dumped(value: Any, what: str, launch: Launch) -> bytes:
    try:
        return dumps(value)
    except Exception:  # what it is that cannot be pickled takes a search, which ends in an error that names it
        return dump_input(value, f"{what} of task {shown(launch.task.task_id)!r}", limit_bytes=sys.maxsize)


class LargeResults:
    """A file without a name for the large outcomes of one run; it is gone when the last of them is forgotten."""

    def __init__(self) -> None:
        self._file: int | None = None
        self._end = 0

    def keep(self, message: bytes) -> Callable[[], Any] | None:
        """Write a packed outcome; return how its value is got again, or None if it could not be written."""
        try:
            file = self._opened()
            written = 0
            while written < len(message):
                written += os.pwrite(file, memoryview(message)[written:], self._end + written)
        except OSError as error:
            _logger.warning("A large result stays in memory, the temporary file cannot be written: %s", error)
            return None
        begin, self._end = self._end, self._end + written
        return partial(self._value, file, begin, written)

    def _opened(self) -> int:
        if self._file is None:
            with tempfile.TemporaryFile(buffering=0) as file:
                self._file = os.dup(file.fileno())
            weakref.finalize(self, os.close, self._file)
        return self._file

    def _value(self, file: int, begin: int, size: int) -> Any:
        data = bytearray()
        while len(data) < size and (piece := os.pread(file, size - len(data), begin + len(data))):
            data += piece
        return unpack_outcome(bytes(data)).value
