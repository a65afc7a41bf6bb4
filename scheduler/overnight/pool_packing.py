"""What a run sends to its pool: its surroundings once, and the calls of its tasks (BEHAVIOUR B15, B19, B21)."""

from __future__ import annotations

import os
import pickle
import sys
import weakref
from collections.abc import Sequence
from itertools import count
from types import FunctionType
from typing import Any

from overnight.base_executor import RunFacts
from overnight.graph_run import Launch
from overnight.nameless_files import OwnedFile
from overnight.pickling import dump_arguments, dump_input, dumps, dumps_noting
from overnight.pool_frames import Kind, RunContext, RunFields, packed_frame
from overnight.pool_process import Flight, import_paths
from overnight.pool_values import SharedValue
from overnight.surroundings import OF_THE_HOST, current_umask, passed_environment

_NO_ARGUMENTS = dumps(((), {}))


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

    def packed(self, launch: Launch) -> Flight:
        """Return the launch with its function, its arguments and what stands for results in them.

        Raises TaskNotPicklable.
        """
        number, function = self._function(launch)
        if not launch.args and not launch.kwargs:
            return Flight(launch, number, function, _NO_ARGUMENTS, {})
        arguments, stand_ins = _dumped_arguments(launch)
        return Flight(launch, number, function, arguments, {value.key: value.place for value in stand_ins})

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


def _dumped_arguments(launch: Launch) -> tuple[bytes, Sequence[SharedValue]]:
    try:
        if launch.desc.deps:
            return dumps_noting((launch.args, launch.kwargs), SharedValue)
        return dumps((launch.args, launch.kwargs)), ()
    except Exception:  # as for a function
        where = f"task {launch.task.task_id!r}"
        dump_arguments(launch.args, launch.kwargs, where, limit_bytes=sys.maxsize)
        raise


def _dumped(value: Any, what: str, launch: Launch) -> bytes:
    try:
        return dumps(value)
    except Exception:  # what it is that cannot be pickled takes a search, which ends in an error that names it
        return dump_input(value, f"{what} of task {launch.task.task_id!r}", limit_bytes=sys.maxsize)


def run_frame(flight: Flight, function: bytes | None) -> tuple[bytes, Sequence[OwnedFile]]:
    """Return the frame that hands a flight over, and the files to be sent with it; `function` None: it is known."""
    launch = flight.launch
    files = list({place.file: None for place in flight.places.values()})
    values = [(key, files.index(place.file), place.layout) for key, place in flight.places.items()]
    timeout = launch.desc.options.timeout
    fields: RunFields = (
        launch.task.task_id, launch.attempt, timeout, flight.number, function, flight.arguments, values
    )  # fmt: skip
    return packed_frame(Kind.RUN, pickle.dumps(fields), ticket=flight.ticket, descriptors=len(files)), files
