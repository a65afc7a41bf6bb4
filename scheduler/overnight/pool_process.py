"""The driver's end of the processes of a pool: starting them, talking to them without ever blocking, burying them.

Each is a program of its own, never a fork of the driver, in a session of its own, so that what its tasks start can be
ended with it. Its death is told by its process descriptor where there is one: copies that a task has forked may hold
the channel open. Its standard output and error are a file that the driver holds too: what a task that died had printed
is in it. Which task it has begun is told by its board (`pool_board`).
"""

from __future__ import annotations

import errno
import math
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from overnight.errors import TaskError
from overnight.graph_run import Launch
from overnight.pool_board import Board, new_page
from overnight.pool_frames import Frame, FrameReader, Outgoing, take_ticket
from overnight.pool_values import Place
from overnight.surroundings import OF_THE_HOST, passed_environment

#: How much of its output is kept of a process that died.
OUTPUT_BYTES = 10 << 20
#: Seconds that an idle process has to begin what it was given, from when it last took a part of it.
BEGIN_SECONDS = 10.0
#: Seconds that a process has to be ready once it has been given something; whatever keeps it, another one is started.
READY_SECONDS = 120.0
_COMMAND = (
    "import sys; numbers, sys.path = [int(text) for text in sys.argv[1:6]], sys.argv[6:]; "
    "import overnight.pool_worker as worker; worker.main(*numbers)"
)


@dataclass(eq=False, slots=True)
class Flight:
    """A launch on its way, with its packed function and arguments, and the large results that these take, by key.

    `started` (epoch) and `begin` (monotonic) are when its process took it up, as far as the driver knows, `overdue`
    when the process is to be killed, `ticket` that of its last process.
    """

    launch: Launch
    number: int
    function: bytes
    arguments: bytes
    places: Mapping[int, Place]
    started: float = 0.0
    begin: float = 0.0
    overdue: float | None = None
    ticket: int = 0

    @property
    def name(self) -> str:
        """Its task, as errors name it."""
        return f"Task {self.launch.task.task_id!r}"

    def take_up(self) -> None:
        """Note that its process takes it up now."""
        self.started, self.begin = time.time(), time.monotonic()


class PoolProcess:
    """One process. `flights` are what it was given, the first of which it runs, or will run next.

    `run_id` is the run that it has entered, `numbers` are the functions of that run which it has.
    """

    def __init__(self) -> None:
        self.flights: deque[Flight] = deque()
        self.run_id: str | None = None
        self.numbers: set[int] = set()
        self.is_ready = False
        #: When its first flight must have begun, by the monotonic clock: else what it was sent is lost.
        self.begin_due: float | None = None
        #: True once nothing more can be handed over.
        self.is_leaving = False
        #: Whether the driver has killed it, for which flight, and why.
        self._is_condemned = False
        self._culprit: Flight | None = None
        self.verdict: TaskError | None = None
        #: What is still to be sent to it.
        self.outbox: deque[Outgoing] = deque()
        self._next_ticket = 0
        self._output = tempfile.TemporaryFile("a+b", buffering=0)  # noqa: SIM115 - closed in `collect`
        self.handle: int | None = None
        self.channel, theirs = socket.socketpair()
        self._reader = FrameReader(self.channel)
        lifeline, self._lifeline = os.pipe()
        self._tickets, self._ticket_box = os.pipe()
        os.set_blocking(self._tickets, False)
        page = new_page()
        self._board = Board(page)
        try:
            self._process = _started((theirs.fileno(), self._output.fileno(), lifeline, self._tickets, page))
        except BaseException:
            self._close()
            raise
        finally:
            theirs.close()
            os.close(lifeline)
            os.close(page)
        if hasattr(os, "pidfd_open"):
            self.handle = os.pidfd_open(self.pid)
        self.channel.setblocking(False)  # noqa: FBT003 - the method takes no keyword

    @property
    def pid(self) -> int:
        """The process id, and that of its group."""
        return self._process.pid

    def give(self, flight: Flight) -> None:
        """Add a flight, and the ticket without which it will not run."""
        self._next_ticket = flight.ticket = self._next_ticket % 255 + 1
        flight.overdue = None
        flight.take_up()
        self.flights.append(flight)
        if len(self.flights) == 1:
            self._expect_begin()
        os.write(self._ticket_box, bytes((flight.ticket,)))

    def with_ticket(self, ticket: int | None) -> Flight | None:
        """Return the flight that has this ticket."""
        return next((flight for flight in self.flights if flight.ticket == ticket), None)

    def end(self, flight: Flight) -> None:
        """Go on to the next flight, as this one has ended."""
        is_first = flight is self.flights[0]
        self.flights.remove(flight)
        if is_first:
            if self.flights:
                self.flights[0].take_up()
            self._expect_begin()

    def begin_serving(self) -> None:
        """Note that it is ready."""
        self.is_ready = True
        self._expect_begin()

    def _expect_begin(self) -> None:
        patience = BEGIN_SECONDS if self.is_ready else READY_SECONDS
        self.begin_due = time.monotonic() + patience if self.flights else None

    def due(self) -> list[float]:
        """Return when there is something to judge about it, by the monotonic clock."""
        times = [self.begin_due, *[flight.overdue for flight in self.flights]]
        return [due for due in times if due is not None]

    @property
    def begun(self) -> Flight | None:
        """The flight that it runs, or was running when it died; None if it has begun none of those that it has."""
        return self.with_ticket(self._board.begun)

    @property
    def charged(self) -> Flight | None:
        """The flight that its death is charged to: if the driver killed it, the culprit, unless that has ended since.

        Until it is dead it goes on, and may have begun the next one.
        """
        flight = self._culprit if self._is_condemned else self.begun
        return flight if flight in self.flights else None

    def take_back(self) -> Flight | None:
        """Take back a flight that has not begun; None if there is none."""
        flight = self.with_ticket(take_ticket(self._tickets))
        if flight is not None:
            self.flights.remove(flight)
        return flight

    def flush(self) -> bool:
        """Send what is in the outbox, as far as the channel takes it; tell whether there is a rest."""
        outbox = self.outbox
        while outbox:
            try:
                outbox[0].send(self.channel)
            except BlockingIOError:
                return True
            except OSError as error:
                if error.errno == errno.ETOOMANYREFS:  # descriptors that processes have not read yet
                    return True
                outbox.clear()  # it has died, which is told in its own time
                return False
            if outbox[0]:
                self._expect_begin()
                return True
            outbox.popleft()
        return False

    def receive(self) -> Iterator[Frame]:
        """Yield the frames that have arrived. Raises EOFError at the end of the stream, BrokenChannel."""
        while True:
            try:
                frames = self._reader.receive()
            except BlockingIOError:
                return
            except ConnectionResetError:  # it died and left something unread
                frames = None
            if frames is None:
                raise EOFError
            yield from frames
            if not self._reader.has_more:
                return

    def condemn(self, culprit: Flight | None, verdict: TaskError | None) -> None:
        """Kill the process, for what a flight did, if any; its death is told as any other."""
        if not self._is_condemned:
            self._is_condemned, self._culprit, self.verdict = True, culprit, verdict
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

    def forget(self) -> None:
        """Close the descriptors of a fork of the driver; the process is not its own."""
        self._process.returncode = 0  # so that nobody waits for it, or warns
        self._close()

    def output(self) -> str:
        """Return what was written to standard output and error and is in no log yet, at its end. Before `collect`."""
        size = os.fstat(self._output.fileno()).st_size
        data = os.pread(self._output.fileno(), OUTPUT_BYTES, max(0, size - OUTPUT_BYTES))
        return data.decode("utf-8", "backslashreplace")

    def _close(self) -> None:
        self._reader.close()
        self.channel.close()
        self._output.close()
        self._board.close()
        for descriptor in (self._lifeline, self._tickets, self._ticket_box):
            os.close(descriptor)
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None


def _started(inherited: tuple[int, ...]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _COMMAND, *map(str, inherited), *import_paths()],
        stdin=subprocess.DEVNULL,
        pass_fds=inherited,
        start_new_session=True,
        env=passed_environment(also=OF_THE_HOST),
    )


def import_paths() -> list[str]:
    """Return where this process looks for modules, for another process that may be in another directory."""
    # Python passes over entries of other types.
    return [os.path.abspath(path) for path in sys.path if isinstance(path, str)]  # noqa: PTH100 - text in, text out
