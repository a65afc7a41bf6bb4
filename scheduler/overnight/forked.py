"""A child process for one attempt (BEHAVIOUR B17, B18).

A process with a single thread forks: the child inherits function and arguments, nothing is pickled but the outcome.
A process with more threads is never forked; its children come from multiprocessing's fork server (or are spawned
where there is none), and function and arguments travel pickled, with the driver's environment and umask.

The child leads a process group of its own, so that what it started ends with it, and the whole group ends with the
parent, whatever ends that. It says over a private pipe that the function begins, then how it ended. The parent waits
for the pipe and for the child's death at once: a descendant that keeps the pipe open does not hold it up. A child that
goes on after its time limit is killed.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing.connection import Connection, wait
from typing import Any

from overnight.attempt_order import AttemptOrder
from overnight.errors import TaskDied, TaskNotPicklable, TaskTimedOut
from overnight.invoke import Outcome, attempt
from overnight.lifeline import end_group_with
from overnight.naming import shown
from overnight.outcome_message import pack_outcome, unpack_outcome
from overnight.output_capture import OutputCapture
from overnight.pickling import dump_input, loads
from overnight.surroundings import current_umask
from overnight.task_log import TaskLog

#: Seconds that a task has to react to the interruption at its time limit before its process is killed.
KILL_GRACE_SECONDS = 1.0
#: Seconds that a child has to end after SIGTERM when its run is given up.
TERMINATE_SECONDS = 5.0
#: Seconds that a child has to end by itself after it gave its outcome.
EXIT_SECONDS = 2.0
_BEGINS = b"begins"
_STOPPING = (signal.SIGINT, signal.SIGTERM)

_logger = logging.getLogger("task_executor")

__all__ = ["AttemptOrder", "death_of", "ended_in_child", "is_single_threaded", "run_in_child"]


def run_in_child(order: AttemptOrder) -> Outcome:
    """Run one attempt in a new child process, wait for it and return how it ended. Nothing of it is left behind."""
    ended = ended_in_child(order)
    return ended if isinstance(ended, Outcome) else unpack_outcome(ended)


def ended_in_child(order: AttemptOrder, capture: OutputCapture | None = None) -> bytes | Outcome:
    """Do what `run_in_child` does; return the message of the outcome as the child packed it, if it left one.

    `capture` is what stands in for stdout and stderr of this process; what it holds in the end goes to the task's log.
    """
    started = time.time()
    begin = time.monotonic()
    try:
        child = _Child(order, capture)
    except TaskNotPicklable as error:
        return _failure(error, started, begin)
    try:
        child.start()
        message = child.message()
    except BaseException:
        child.terminate()
        raise
    finally:
        child.reap()
    if message is not None:
        _log_end(order, capture, None)
        return message
    outcome = _failure(child.cause_of_death(), started, begin)
    _log_end(order, capture, outcome.value)
    return outcome


def _failure(error: BaseException, started: float, begin: float) -> Outcome:
    return Outcome(ok=False, value=error, started=started, seconds=time.monotonic() - begin)


def _log_end(order: AttemptOrder, capture: OutputCapture | None, death: BaseException | None) -> None:
    """Log the death of a child, if it died, below the output that it had not logged itself."""
    if death is None and capture is None:
        return
    log = TaskLog(order.task_id, order.log_dir, order.verbosity, run_id=order.run_id, attempt=order.attempt)
    log.capture = capture
    with log:
        if death is not None:
            _logger.error("task <%s> ended: %s", shown(order.task_id), death)


class _Child:
    """A child and the parent's ends of its pipes."""

    def __init__(self, order: AttemptOrder, capture: OutputCapture | None) -> None:
        self._order = order
        self._killed_for_time = False
        self._exit_seconds = EXIT_SECONDS
        self._exit_code: int | None = None
        self._death: int | None = None
        self._forks = forks = is_single_threaded()
        context: Any = multiprocessing.get_context("fork") if forks else _context_without_fork()
        content = (order, capture) if forks else (_packed(order),)
        self._reader, writer = context.Pipe(duplex=False)
        lifeline, self._lifeline = context.Pipe(duplex=False)
        self._theirs = (writer, lifeline)
        target = _run_forked if forks else _run_packed
        held = (self._lifeline,) if forks else ()
        self._process = context.Process(target=target, args=(writer, lifeline, *held, *content))

    def start(self) -> None:
        """Start the process; whatever interrupts this, `reap` ends it."""
        if self._forks:
            with _signals_held_back():
                self._process.start()
        else:
            self._process.start()
        self._close_theirs()
        self._death = _death_descriptor(self._process)

    def _close_theirs(self) -> None:
        for pipe in self._theirs:
            pipe.close()

    def message(self) -> bytes | None:
        """Wait for the packed outcome; None if the child died, or was killed for its time limit, without one."""
        deadline: float | None = None
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = wait([self._reader, self._death or self._process.sentinel], left)
            if self._reader in ready or self._reader.poll():
                try:
                    message: bytes = self._reader.recv_bytes()
                except (EOFError, OSError):
                    return None
                if message != _BEGINS:
                    return message
                if self._order.timeout is not None:
                    deadline = time.monotonic() + self._order.timeout + KILL_GRACE_SECONDS
            elif ready:
                return None
            else:
                self._killed_for_time = True
                self._signal(signal.SIGKILL)
                deadline = None

    def cause_of_death(self) -> TaskTimedOut | TaskDied:
        """Return what ended a child that left no outcome. Only after `reap`."""
        name = f"Task {self._order.task_id!r}"
        if self._killed_for_time:
            return TaskTimedOut(f"{name} ran on after its limit of {self._order.timeout:g} s and was killed.")
        return death_of(name, self._exit_code)

    def terminate(self) -> None:
        """Tell the child to end, because its outcome is no longer wanted."""
        self._exit_seconds = TERMINATE_SECONDS
        self._signal(signal.SIGTERM)

    def reap(self) -> None:
        """See the child to its end, by SIGKILL if it does not end by itself, and all that it started with it."""
        self._reader.close()
        self._close_theirs()
        try:
            self._await_end()
        finally:
            self._signal(signal.SIGKILL)
            self._lifeline.close()
            if self._death is not None:
                os.close(self._death)
            if self._process.pid is not None:
                self._process.join()
                self._exit_code = self._process.exitcode
            self._process.close()

    def _await_end(self) -> None:
        if self._death is not None:
            # Joining with a limit waits for ever for a child that has closed its sentinel and lives.
            wait([self._death], self._exit_seconds)
        elif self._process.pid is not None:
            self._process.join(self._exit_seconds)

    def _signal(self, number: int) -> None:
        """Send a signal to the child's whole group, or to the child before it has one."""
        if self._process.pid is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)
            return
        # A child of the fork server is collected there, so it may be gone at any moment.
        with suppress(ProcessLookupError):
            if self._process.is_alive():
                os.kill(self._process.pid, number)


def death_of(name: str, exit_code: int | None, *, worker: str | None = None) -> TaskDied:
    """Return the TaskDied for an exit code as multiprocessing gives it: negative for a signal."""
    if exit_code is not None and exit_code < 0:
        try:
            signal_name = signal.Signals(-exit_code).name
        except ValueError:
            signal_name = f"signal {-exit_code}"
        return TaskDied(f"{name} died: its process was ended by {signal_name}.", signal=signal_name, worker=worker)
    message = f"{name} died: its process ended with exit code {exit_code} and left no outcome."
    return TaskDied(message, exit_code=exit_code, worker=worker)


def is_single_threaded() -> bool:
    """Tell whether this process may be forked: it has one thread, native ones counted. False where unknown."""
    try:
        return sys.platform == "linux" and len(os.listdir("/proc/self/task")) == 1  # noqa: PTH208  # a hot path
    except OSError:
        return False


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Hold back what stops this process: raised in a callback around a fork, an exception would be lost."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


@cache
def _context_without_fork() -> Any:
    """Return the context of the fork server, told to load this module once for all children; else that of spawn."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__])
    return context


def _death_descriptor(process: Any) -> int | None:
    """Return a descriptor that is readable once the process is dead, even if descendants hold its sentinel; or None."""
    try:
        return os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        return None


def _packed(order: AttemptOrder) -> bytes:
    what = f"The function or an argument of task {order.task_id!r}"
    return dump_input((order, dict(os.environ), current_umask()), what)


# In the child.


def _run_packed(pipe: Connection, lifeline: Connection, packed: bytes) -> None:
    order, environment, umask = loads(packed)
    os.environ.clear()
    os.environ.update(environment)
    os.umask(umask)
    _run_order(pipe, lifeline, order)


def _run_forked(
    pipe: Connection, lifeline: Connection, held: Connection, order: AttemptOrder, capture: OutputCapture | None
) -> None:
    # The parent's end: as long as a copy is open here, the parent's death would go unnoticed.
    held.close()
    _run_order(pipe, lifeline, order, capture)


def _run_order(
    pipe: Connection, lifeline: Connection, order: AttemptOrder, capture: OutputCapture | None = None
) -> None:
    with suppress(PermissionError):
        os.setpgid(0, 0)
    end_group_with(lifeline.fileno())
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
    order = order.loaded()
    pipe.send_bytes(_BEGINS)
    outcome = attempt(
        order.task_id,
        order.func,
        order.args,
        order.kwargs,
        timeout=order.timeout,
        log_dir=order.log_dir,
        verbosity=order.verbosity,
        run_id=order.run_id,
        attempt=order.attempt,
        whole_process=True,
        capture=capture,
    )
    pipe.send_bytes(pack_outcome(outcome, order.task_id))
    pipe.close()
