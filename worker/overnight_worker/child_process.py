"""The supervisor's end of a child: starting it, talking to it without ever blocking, and telling how it died.

The child is a program of its own (never a fork of the supervisor) in a session of its own, so that its whole process
group can be killed; what left the group becomes the supervisor's and is killed with the child. That the child has ended
is told by its process descriptor where there is one: copies that a task has forked may hold the channel open. Its
environment lacks overnight's secrets and addresses. Its standard output is a file that the
supervisor holds too: the last words of a child that died are in it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from overnight import failpoints
from overnight.surroundings import OF_THE_HOST, passed_environment
from overnight_worker.census import descendants
from overnight_worker.death import Death, Vigil, peak_memory_of
from overnight_worker.frames import Frame, FrameReader
from overnight_worker.kinship import give_back_room
from overnight_worker.orphans import collect_orphans, end_orphans, own_children
from overnight_worker.progress import Progress

LAST_WORDS_BYTES = 4096
#: So long is a child waited for that starts.
LONGEST_START_SECONDS = 10.0


class ChildProcess:
    """A running child. `blobs` are the digests that it holds, with their sizes, `served` the run that it is in and how
    often that had been retried when it entered.
    """

    def __init__(self, worker: str) -> None:
        self.blobs: dict[str, int] = {}
        self.served: tuple[str, int] | None = None
        self.tasks_run = 0
        self._awaited_until = time.monotonic() + LONGEST_START_SECONDS
        self.progress, page = Progress.create()
        self._output = tempfile.TemporaryFile("a+b", buffering=0)  # noqa: SIM115 - closed in `end`
        self._channel, theirs = socket.socketpair()
        inherited = (theirs.fileno(), page, self._output.fileno())
        arguments = [*(str(number) for number in inherited), str(os.getpid()), worker]
        self._vigil = Vigil()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "overnight_worker.child", *arguments],
            stdin=subprocess.DEVNULL,
            pass_fds=inherited,
            start_new_session=True,
            env=_environment(),
        )
        theirs.close()
        os.close(page)
        self._known = own_children()
        self._handle = os.pidfd_open(self.pid) if hasattr(os, "pidfd_open") else None
        self._channel.setblocking(False)  # noqa: FBT003 - the method takes no keyword
        self._reader = FrameReader(self._channel)
        self._outbox: deque[memoryview] = deque()

    @property
    def pid(self) -> int:
        """The child's process id, and that of its group."""
        return self._process.pid

    @property
    def is_up(self) -> bool:
        """Tell whether it takes orders, or will not: it has ended, or its start takes too long to be waited for."""
        has_ended = self._handle is not None and _is_readable(self._handle, 0)
        return self.progress.is_up or has_ended or time.monotonic() > self._awaited_until

    def watch(self, poll: select.poll) -> None:
        """Have `poll` wait for frames from the child, for room for those to it, and for its end."""
        poll.register(self._channel, select.POLLIN | (select.POLLOUT if self._outbox else 0))
        if self._handle is not None:
            poll.register(self._handle, select.POLLIN)

    def send(self, frames: Sequence[bytes]) -> None:
        """Queue frames and write what the channel takes now."""
        self._vigil.again()
        self._outbox.extend(memoryview(frame) for frame in frames)
        self.write()

    def write(self) -> None:
        """Write queued frames as far as the channel takes them. A broken channel shows when it is read."""
        while self._outbox:
            try:
                sent = self._channel.send(self._outbox[0])
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError):
                self._outbox.clear()
                return
            rest = self._outbox[0][sent:]
            if rest:
                self._outbox[0] = rest
            else:
                self._outbox.popleft()

    def receive(self) -> list[Frame] | None:
        """Return the frames that have arrived; None if the child is gone and has said nothing more."""
        has_ended = self._handle is not None and _is_readable(self._handle, 0)
        try:
            return self._reader.receive()
        except BlockingIOError:
            return None if has_ended else []

    def processes(self) -> list[int]:
        """Return the process ids of the child and of all that its tasks have started."""
        return descendants(os.getpid(), self._known - {self.pid})

    def memory(self) -> int:
        """Return the child's resident memory in bytes; 0 if it cannot be read."""
        try:
            pages = Path(f"/proc/{self.pid}/statm").read_bytes().split()
        except OSError:
            return 0
        return int(pages[1]) * os.sysconf("SC_PAGE_SIZE")

    def cap_output(self, most: int) -> None:
        """Give back the room of what a task has printed beyond so many bytes; the task is not disturbed."""
        size = os.fstat(self._output.fileno()).st_size
        if size > most:
            give_back_room(self._output.fileno(), most + 1, size - most)

    def output_copy(self) -> int:
        """Return a descriptor of its own of what tasks have printed and not logged yet."""
        return os.dup(self._output.fileno())

    def collect_orphans(self) -> None:
        """Collect what tasks have left behind and has ended since."""
        collect_orphans(self._known)

    def kill(self) -> None:
        """Kill the child's process group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def end(self) -> Death:
        """Kill what is left of the group, collect the child and return how it ended."""
        # What closes the channel is about to exit: its own status says more than this kill's would.
        code, peak = self._collected(seconds=1.0)
        self.kill()
        if code is None:
            code, peak = self._collected(seconds=None)
        end_orphans(self._known)
        words = self._last_words()
        if self._handle is not None:
            os.close(self._handle)
        self._channel.close()
        self._output.close()
        self.progress.close()
        return self._vigil.death(code or 0, peak, words)

    def _collected(self, seconds: float | None) -> tuple[int | None, int]:
        """Wait for the child; return its exit code (negative: signal) and peak memory, or (None, 0) in time."""
        if self._process.returncode is not None:
            return self._process.returncode, 0
        if self._handle is not None and seconds is not None and not _is_readable(self._handle, seconds):
            return None, 0
        try:
            _, status, usage = os.wait4(self.pid, 0)
        except ChildProcessError:
            return 0, 0
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return self._process.returncode, peak_memory_of(usage)

    def _last_words(self) -> str:
        size = os.fstat(self._output.fileno()).st_size
        data = os.pread(self._output.fileno(), LAST_WORDS_BYTES, max(0, size - LAST_WORDS_BYTES))
        return data.decode("utf-8", "backslashreplace").strip(" \t\r\n\0")


def _is_readable(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _environment() -> dict[str, str]:
    """Return this process's environment without overnight's secrets and addresses."""
    return {**passed_environment(also=OF_THE_HOST), **failpoints.passed_on()}
