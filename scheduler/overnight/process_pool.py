"""The processes of a pool together: which of them can take a task, what happens to any of them, and their end."""

from __future__ import annotations

import math
import os
import select
import signal
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NamedTuple

from overnight.nameless_files import OwnedFile
from overnight.pool_frames import Kind, Outgoing, packed_frame
from overnight.pool_process import PoolProcess

_MOST_CALLS = 65536


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _held_back(number: signal.Signals) -> Iterator[None]:
    """Call the handler of a signal only afterwards: what it raises while a process starts would lose that process."""
    handler = signal.getsignal(number)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    held: list[FrameType | None] = []
    try:
        signal.signal(number, lambda _, frame: held.append(frame))
        yield
    finally:
        signal.signal(number, handler)
        if held:
            handler(number, held[-1])


class Event(NamedTuple):
    """A process that has something to say, to be sent, or has ended."""

    process: PoolProcess
    readable: bool
    ended: bool


class Pool:
    """Up to `size` processes, started when they are needed, kept until `close`. One run at a time uses them.

    It belongs to the process that made it: in a fork of that it is closed, and touches nothing of its owner's.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.is_closed = False
        #: Whether `wake` has ended a wait; for the user of the pool to take back.
        self.was_woken = False
        self.processes: list[PoolProcess] = []
        self._poll = select.poll()
        self._by_descriptor: dict[int, PoolProcess] = {}
        self._handles: dict[int, PoolProcess] = {}
        self._posted: set[PoolProcess] = set()
        self._use = threading.RLock()
        self._user: int | None = None
        self._bell_lock = threading.RLock()
        self._alarm, self._bell = os.pipe()
        os.set_blocking(self._bell, False)
        self._poll.register(self._alarm, select.POLLIN)
        # For an executor that nobody closes: also at the end of the interpreter.
        self._finalizer = weakref.finalize(self, _end_all, self.processes, os.getpid(), (self._alarm, self._bell))
        _pools.add(self)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep a `close` by another thread waiting, and one by this thread from ending processes in its hands."""
        with self._use:
            former, self._user = self._user, threading.get_ident()
            try:
                yield
            finally:
                self._user = former

    def taker(self, patience_seconds: float, *, brings_files: bool) -> PoolProcess | None:
        """Return the process that is to get the next task; None if there is none. Raises OSError.

        An idle one, else a new one, else one that has taken up its only task within the last `patience_seconds`: but
        not for a task that brings files, as the system bounds the descriptors that are sent and not taken in.
        """
        if self.is_closed:
            return None
        for process in self.processes:
            if not process.flights and not process.is_leaving:
                return process
        if len(self.processes) < self.size:
            return self._started()
        if brings_files:
            return None
        latest = time.monotonic() - patience_seconds
        for process in self.processes:
            if len(process.flights) == 1 and process.flights[0].begin >= latest and not process.is_leaving:
                return process
        return None

    def has_idle(self) -> bool:
        """Tell whether a process has nothing to run."""
        for process in self.processes:  # noqa: SIM110 - asked several times a task
            if not process.flights:
                return True
        return False

    def _started(self) -> PoolProcess:
        with _held_back(signal.SIGINT), _held_back(signal.SIGTERM):
            process = PoolProcess()
            self.processes.append(process)
            self._by_descriptor[process.channel.fileno()] = process
            self._poll.register(process.channel, select.POLLIN)
            if process.handle is not None:
                self._handles[process.handle] = process
                self._poll.register(process.handle, select.POLLIN)
        return process

    def post(self, process: PoolProcess, data: bytes, files: Sequence[OwnedFile] = ()) -> None:
        """Put data, and descriptors that go with it, into the outbox of a process, for the next `flush`."""
        process.outbox.append(Outgoing(data, files))
        self._posted.add(process)

    def flush(self) -> None:
        """Send what was posted, now and whenever a channel takes more."""
        while self._posted:
            process = self._posted.pop()
            if process.flush():
                self._poll.modify(process.channel, select.POLLIN | select.POLLOUT)

    def end_run(self) -> None:
        """Let the processes forget what they hold of the run that they have entered."""
        for process in self.processes:
            if process.run_id is not None and not process.is_leaving:
                process.run_id = None
                self.post(process, packed_frame(Kind.LEAVE))
        self.flush()

    def wake(self) -> None:
        """End the `wait` that is under way, or the next one. From any thread."""
        with self._bell_lock, suppress(BlockingIOError):  # the pipe is full of such calls
            if self._finalizer.alive:
                os.write(self._bell, b"!")

    def wait(self, seconds: float | None) -> list[Event]:
        """Wait until processes have something to say, or `wake`, at most so long (None: no limit)."""
        events: list[Event] = []
        if not self._finalizer.alive:
            return events
        for descriptor, mask in self._poll.poll(None if seconds is None else math.ceil(seconds * 1000)):
            if descriptor == self._alarm:
                os.read(self._alarm, _MOST_CALLS)
                self.was_woken = True
                continue
            process = self._by_descriptor.get(descriptor)
            if process is None:
                events.append(Event(self._handles[descriptor], readable=False, ended=True))
                continue
            if mask & select.POLLOUT and not process.flush():
                self._poll.modify(descriptor, select.POLLIN)
            if mask & ~select.POLLOUT:
                events.append(Event(process, readable=True, ended=False))
        return events

    def mute(self, process: PoolProcess) -> None:
        """Listen to the channel of a process no longer."""
        process.is_leaving = True
        self._posted.discard(process)
        if self._by_descriptor.pop(process.channel.fileno(), None) is not None:
            self._poll.unregister(process.channel)

    def remove(self, process: PoolProcess) -> int:
        """Forget and collect a process that has ended; return its exit code. Repeated, or after `close`: 0."""
        if process not in self.processes:
            return 0
        self.mute(process)
        if process.handle is not None:
            del self._handles[process.handle]
            self._poll.unregister(process.handle)
        code = process.collect()
        self.processes.remove(process)
        return code

    def end(self, processes: Iterable[PoolProcess], seconds: float) -> None:
        """End processes and what they started: SIGTERM, and SIGKILL for what is left after so long."""
        ending = list(processes)
        try:
            for process in ending:
                process.terminate()
            deadline = time.monotonic() + seconds
            for process in ending:
                process.await_end(deadline)
        finally:
            for process in ending:
                process.signal(signal.SIGKILL)
            for process in ending:
                self.remove(process)

    def close(self, seconds: float) -> None:
        """End all processes. From any thread, and again; inside of `in_use`, the rest is done by the next call."""
        self.is_closed = True
        self.wake()
        if self._user == threading.get_ident():  # a signal handler
            return
        with self._use:
            self.end(self.processes, seconds)
            with self._bell_lock:
                self._finalizer()

    def forget(self) -> None:
        """Close this fork's copies of the descriptors, and leave the processes to their owner."""
        if self._finalizer.detach() is None:
            return
        self.is_closed = True
        self._use, self._user, self._bell_lock = threading.RLock(), None, threading.RLock()
        for process in self.processes:
            process.forget()
        self.processes.clear()
        self._posted.clear()
        os.close(self._alarm)
        os.close(self._bell)


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _forget_all() -> None:
    for pool in list(_pools):
        pool.forget()


os.register_at_fork(after_in_child=_forget_all)


def _end_all(processes: list[PoolProcess], owner: int, pipe: Sequence[int]) -> None:
    # A fork of the driver ends too, and the processes are not its own.
    if os.getpid() == owner:
        for process in processes:
            process.collect()
        # A run that is given up after the end of the interpreter finds nothing left to end.
        processes.clear()
        for descriptor in pipe:
            os.close(descriptor)
