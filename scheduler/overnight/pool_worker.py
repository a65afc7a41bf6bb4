"""A process of the pool: it runs the tasks that its driver hands over, one after the other (`pool_process.COMMAND`).

It enters a run's surroundings, keeps the functions that tasks share, and per task: loads function and arguments,
calls the function inside the task's log, sends the outcome, and puts its surroundings right. Whatever ends this
process is the failure of the task that it ran. With `fork_tasks` it loads nothing of users' at all: it stays a small
process with one thread that forks a child for each attempt, and hands on what the child says.

It ends when its channel closes, and is killed, with its process group, when its driver ends (`lifeline`).
"""

from __future__ import annotations

import faulthandler
import logging
import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn

from overnight.attempt_order import AttemptOrder, raise_error
from overnight.forked import ended_in_child
from overnight.invoke import Outcome, attempt
from overnight.lifeline import end_group_with
from overnight.output_capture import OutputCapture
from overnight.parcels import Layout, Parcel, pack_parcel, parcel_of
from overnight.pickling import loads
from overnight.pool_arrivals import Arrivals, KeptValues
from overnight.pool_board import Board, seal_page
from overnight.pool_frames import FrameReader, Kind, RunContext, ancillary, close_all, packed_frame, take_ticket
from overnight.task_log import is_for_process
from overnight.task_surroundings import Surroundings

_TAKEN_FIRST = 500
_MOST_TAKEN_FIRST = 1000

_Loaded = tuple[Callable[..., Any], Sequence[Any], Mapping[str, Any]]


class _Call(NamedTuple):
    """A pickled function with its number in the run (0: not shared), and its pickled arguments."""

    number: int
    function: bytes
    arguments: bytes
    arrivals: Arrivals
    obstacle: OSError | None

    def load(self, functions: dict[int, Callable[..., Any]]) -> _Loaded:
        """Return function, args and kwargs; shared functions are kept in `functions`. Raises whatever hinders it."""
        if self.obstacle is not None:
            raise self.obstacle
        func = functions.get(self.number)
        if func is None:
            func = loads(self.function)
            if self.number:
                functions[self.number] = func
        with self.arrivals.at_hand():
            args, kwargs = loads(self.arguments)
        return func, args, kwargs


class PoolWorker:
    """The loop of the process: frames in, outcomes out."""

    def __init__(self, channel: socket.socket, tickets: int, board: Board, capture: OutputCapture) -> None:
        self._channel = channel
        self._tickets = tickets
        self._board = board
        self._ticket: int | None = None
        self._place = _place_of(channel)
        self._capture = capture

    def serve(self) -> None:
        """Serve the driver until it closes the channel."""
        reader = FrameReader(self._channel)
        self._send(Kind.READY)
        while (frames := reader.receive()) is not None:
            for frame in frames:
                if frame.kind is Kind.ENTER:
                    self._enter(loads(frame.body))
                elif frame.kind is Kind.LEAVE:
                    self._forget()
                else:
                    try:
                        self._run(frame.ticket, frame.descriptors, *loads(frame.body))
                    finally:
                        close_all(frame.descriptors)

    def _forget(self) -> None:
        self._packed: dict[int, bytes] = {}
        self._functions: dict[int, Callable[..., Any]] = {}
        self._kept = KeptValues()

    def _enter(self, context: RunContext) -> None:
        self._context = context
        self._forget()
        # A forked attempt has a process group of its own: what ends it is the exception, on its way out.
        signal.signal(signal.SIGTERM, _exit if context.fork_tasks else signal.SIG_DFL)
        self._surroundings = Surroundings(context.directory, context.umask, context.environment, context.import_paths)
        self._settle()

    def _settle(self) -> None:
        self._obstacle: OSError | None = None
        try:
            self._surroundings.settle()
        except OSError as error:
            self._obstacle = error

    def _run(
        self,
        ticket: int,
        descriptors: Sequence[int],
        task_id: str,
        attempt: int,
        timeout: float | None,
        number: int,
        function: bytes | None,
        arguments: bytes,
        values: Sequence[tuple[int, int, Layout]],
    ) -> None:
        if number and function is not None:
            self._packed[number] = function
        if not self._has(ticket):
            return
        arrivals = Arrivals({key: (descriptors[file], layout) for key, file, layout in values}, self._kept)
        call = _Call(number, function or self._packed[number], arguments, arrivals, self._obstacle)
        perform = self._run_forked if self._context.fork_tasks else self._run_here
        ended = perform(task_id, attempt, timeout, call)
        self._answer(pack_parcel(ended, task_id) if isinstance(ended, Outcome) else parcel_of(ended))
        self._capture.restore()
        self._settle()

    def _has(self, ticket: int) -> bool:
        """Take the ticket of a task; False if the driver has taken the task back."""
        if self._ticket is None:
            self._ticket = take_ticket(self._tickets)
        if self._ticket != ticket:
            return False
        self._ticket = None
        self._board.begun = ticket
        return True

    def _run_here(self, task_id: str, number: int, timeout: float | None, call: _Call) -> Outcome:
        func: Callable[..., Any]
        args: Sequence[Any]
        kwargs: Mapping[str, Any]
        try:
            func, args, kwargs = call.load(self._functions)
        except BaseException as error:  # a user's module or class may raise anything: it is the task's failure
            func, args, kwargs = raise_error, (error,), {}
        if timeout is not None:
            self._send(Kind.BEGINS)
        context = self._context
        return attempt(
            task_id,
            func,
            args,
            kwargs,
            timeout=timeout,
            log_dir=context.log_dir,
            verbosity=context.verbosity,
            run_id=context.run_id,
            attempt=number,
            whole_process=True,
            capture=self._capture,
        )

    def _run_forked(self, task_id: str, number: int, timeout: float | None, call: _Call) -> bytes | Outcome:
        context = self._context
        log = (context.log_dir, context.verbosity, context.run_id)
        order = AttemptOrder(task_id, raise_error, (), {}, timeout, *log, number, partial(call.load, {}))
        return ended_in_child(order, self._capture)

    def _answer(self, parcel: Parcel) -> None:
        if parcel.descriptor is None:
            self._send(Kind.OUTCOME, parcel.message)
            return
        try:
            self._send(Kind.OUTCOME, pickle.dumps(parcel.layout), (parcel.descriptor,))
        finally:
            os.close(parcel.descriptor)

    def _send(self, kind: Kind, body: bytes = b"", descriptors: Sequence[int] = ()) -> None:
        # A task may have closed the channel, and its number may be that of a file of its own by now.
        if _place_of(self._channel) != self._place:
            raise ConnectionAbortedError("A task has closed the channel to the driver.")
        self._channel.setblocking(True)  # noqa: FBT003 - the method takes no keyword. A task may have changed it
        frame = packed_frame(kind, body, ticket=self._board.begun, descriptors=len(descriptors))
        if not descriptors:
            self._channel.sendall(frame)
            return
        sent = self._channel.sendmsg([frame], ancillary(descriptors))
        self._channel.sendall(frame[sent:])


def _place_of(channel: socket.socket) -> tuple[int, int]:
    status = os.fstat(channel.fileno())
    return status.st_dev, status.st_ino


def _exit(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit


def _log_to_stderr() -> None:
    """Print warnings that belong to no task's log; the others are in that log, to which standard error goes too."""
    handler = logging.StreamHandler()
    handler.addFilter(is_for_process)
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s", handlers=[handler]
    )


def _be_taken_first() -> None:
    """Have the kernel kill this process, and those that it will start, before the driver when memory runs out."""
    path = Path("/proc/self/oom_score_adj")
    # Elsewhere than on Linux there is nothing to ask.
    with suppress(OSError):
        path.write_text(str(min(int(path.read_text()) + _TAKEN_FIRST, _MOST_TAKEN_FIRST)))


def main(channel_fd: int, output_fd: int, lifeline_fd: int, tickets_fd: int, board_fd: int) -> NoReturn:
    """Run a process of the pool on five inherited descriptors; never return, and run no exit handlers."""
    end_group_with(lifeline_fd)
    _be_taken_first()
    board = Board(board_fd)
    seal_page(board_fd)
    os.close(board_fd)
    for descriptor in (channel_fd, output_fd, lifeline_fd, tickets_fd):
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - the function takes no keyword
    with socket.socket(fileno=channel_fd) as channel, OutputCapture(output_fd) as capture:
        _log_to_stderr()
        faulthandler.enable()
        status = 1
        try:
            PoolWorker(channel, tickets_fd, board, capture).serve()
            status = 0
        except (BrokenPipeError, ConnectionResetError, SystemExit):
            pass  # the driver has closed the channel, or said to stop
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
