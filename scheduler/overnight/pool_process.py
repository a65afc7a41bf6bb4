"""The driver's end of the processes of a pool: starting them, talking to them without ever blocking, burying them.

Each is a program of its own, never a fork of the driver, in a session of its own, so that what its tasks start can be
ended with it. Its death is told by its process descriptor where there is one: copies that a task has forked may hold
the channel open. Its standard output and error are a file that the driver holds too: what a task that died had printed
is in it. A process that leaves an order unread dies innocent: the kernel then resets the channel, and does not end it.
"""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from overnight.errors import TaskError
from overnight.graph_run import Launch
from overnight.pool_frames import FrameReader, Kind
from overnight.surroundings import OF_THE_HOST, passed_environment

#: How much of its output is kept of a process that died.
OUTPUT_BYTES = 10 << 20
_COMMAND = (
    "import sys; channel, output, lifeline, *sys.path = sys.argv[1:]; import overnight.pool_worker as worker; "
    "worker.main(int(channel), int(output), int(lifeline))"
)


@dataclass(eq=False, slots=True)
class Flight:
    """A launch in a process: when it was handed over (epoch and monotonic), and when the process is overdue."""

    launch: Launch
    started: float
    begin: float
    overdue: float | None = None


class PoolProcess:
    """One process. `flight` is what it runs, `run_id` the run that it has entered, `numbers` the functions it has."""

    def __init__(self) -> None:
        self.flight: Flight | None = None
        self.run_id: str | None = None
        self.numbers: set[int] = set()
        self.is_ready = False
        #: True once nothing more can be handed over.
        self.is_leaving = False
        #: True if it died without having read all that was sent.
        self.left_unread = False
        #: Why the driver killed it.
        self.verdict: TaskError | None = None
        self._outbox = b""
        self._output = tempfile.TemporaryFile("a+b", buffering=0)  # noqa: SIM115 - closed in `collect`
        self.handle: int | None = None
        self.channel, theirs = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        inherited = (theirs.fileno(), self._output.fileno(), lifeline)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _COMMAND, *map(str, inherited), *import_paths()],
                stdin=subprocess.DEVNULL,
                pass_fds=inherited,
                start_new_session=True,
                env=passed_environment(also=OF_THE_HOST),
            )
        except BaseException:
            self._close()
            raise
        finally:
            theirs.close()
            os.close(lifeline)
        if hasattr(os, "pidfd_open"):
            self.handle = os.pidfd_open(self.pid)
        self.channel.setblocking(False)  # noqa: FBT003 - the method takes no keyword
        self._reader = FrameReader(self.channel)

    @property
    def pid(self) -> int:
        """The process id, and that of its group."""
        return self._process.pid

    def send(self, data: bytes) -> bool:
        """Send what the channel takes now and keep the rest for `flush`; tell whether there is a rest."""
        self._outbox = self._outbox + data if self._outbox else data
        return self.flush()

    def flush(self) -> bool:
        """Send what is left, as far as the channel takes it; tell whether there is a rest."""
        try:
            sent = self.channel.send(self._outbox)
        except BlockingIOError:
            return True
        except OSError:
            self.left_unread = True
            sent = len(self._outbox)
        self._outbox = self._outbox[sent:]
        return bool(self._outbox)

    def receive(self) -> Iterator[tuple[Kind, bytes]]:
        """Yield the frames that have arrived. Raises EOFError at the end of the stream, BrokenChannel."""
        while True:
            try:
                frames = self._reader.receive()
            except BlockingIOError:
                return
            except ConnectionResetError:
                self.left_unread = True
                frames = None
            if frames is None:
                raise EOFError
            yield from frames
            if not self._reader.has_more:
                return

    def condemn(self, verdict: TaskError | None) -> None:
        """Kill the process, for a reason; its death is told as any other."""
        self.verdict = self.verdict or verdict
        self.is_leaving = True
        self.signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Tell the process and what it started to end, and take nothing more from it."""
        self.is_leaving = True
        self.signal(signal.SIGTERM)
        with suppress(OSError):
            self.channel.shutdown(socket.SHUT_RDWR)

    def signal(self, number: int) -> None:
        """Send a signal to the process group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def await_end(self, deadline: float) -> None:
        """Wait until the process has ended, without collecting it, at most until `deadline` by the monotonic clock."""
        seconds = max(0.0, deadline - time.monotonic())
        if self.handle is None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
            return
        poll = select.poll()
        poll.register(self.handle, select.POLLIN)
        poll.poll(math.ceil(seconds * 1000))

    def collect(self) -> int:
        """Kill what is left of the group, collect the process, return its exit code (negative: signal)."""
        # The group first: once its leader is collected, its number may be another's.
        self.signal(signal.SIGKILL)
        code = self._process.wait()
        self._close()
        return code

    def output(self) -> str:
        """Return what was written to standard output and error and is in no log yet, at its end. Before `collect`."""
        size = os.fstat(self._output.fileno()).st_size
        data = os.pread(self._output.fileno(), OUTPUT_BYTES, max(0, size - OUTPUT_BYTES))
        return data.decode("utf-8", "backslashreplace")

    def _close(self) -> None:
        self.channel.close()
        self._output.close()
        with suppress(OSError):
            os.close(self._lifeline)
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None


def import_paths() -> list[str]:
    """Return where this process looks for modules, for another process that may be in another directory."""
    return [os.path.abspath(path) for path in sys.path]  # noqa: PTH100 - text in, text out
