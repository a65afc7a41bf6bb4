"""The parent of several supervisors (``-j N``): starts them, starts dead ones again, passes signals on.

It holds no connection and runs no task. A supervisor that ends with a status that repeating cannot help (usage,
configuration) ends the crew; any other one is replaced: at once, or later and later while supervisors die at their
start. One that has taken a batch, which it says on a pipe, was past its start.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType

from overnight.slots import how_it_ended
from overnight_worker.first_word import WORD_VARIABLE

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
#: A supervisor that lived this long has not died at its start, whether or not there was anything to do.
START_SECONDS = 10.0
#: A status that repeating cannot help is believed of a supervisor that did not live longer.
GOOD_LIFE_SECONDS = 60.0
_HOPELESS = (2, 4, 5)
_logger = logging.getLogger("overnight.worker")


@dataclass(slots=True)
class _Place:
    """The place of one supervisor: its process and where it says that it has taken a batch, or when the next starts."""

    process: subprocess.Popen[bytes] | None = None
    word: int = -1
    started_at: float = 0.0
    start_at: float = 0.0
    pause: float = 0.0

    def start(self, command: Sequence[str]) -> None:
        """Start a supervisor here."""
        self.started_at = time.monotonic()
        self.word, theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            # Of its own group, so that Ctrl-C on a terminal reaches it once, through this process.
            self.process = subprocess.Popen(
                command, pass_fds=(theirs,), env={**os.environ, WORD_VARIABLE: str(theirs)}, process_group=0
            )
        finally:
            os.close(theirs)

    def leave(self) -> bool:
        """The supervisor has ended; tell whether it died at its start."""
        self.process = None
        try:
            has_worked = bool(os.read(self.word, 1))
        except BlockingIOError:  # something that it started holds the other end
            has_worked = False
        os.close(self.word)
        return not has_worked and time.monotonic() - self.started_at < START_SECONDS


class Crew:
    """`size` supervisors that are started with the parent's own arguments."""

    def __init__(self, size: int, arguments: Sequence[str]) -> None:
        self._places = [_Place() for _ in range(size)]
        self._command = [sys.executable, "-P", "-m", "overnight_worker", *_without_jobs(arguments)]
        self._stopping = 0
        self._status = 0
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> int:
        """Run until a signal has ended all supervisors; return the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGCHLD, lambda *_: self._wake())
        while True:
            self._collect()
            if self._stopping and not any(place.process for place in self._places):
                return self._status
            if not self._stopping:
                self._start_due()
            self._wait()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._stopping += 1
        self._tell(number)
        self._wake()

    def _tell(self, number: int) -> None:
        for place in self._places:
            if place.process is not None and place.process.poll() is None:
                place.process.send_signal(number)

    def _wake(self) -> None:
        try:
            os.write(self._writing, b"w")
        except BlockingIOError:
            return

    def _wait(self) -> None:
        due = [place.start_at for place in self._places if place.process is None]
        seconds = max(0.0, min(due) - time.monotonic()) if due and not self._stopping else 60.0
        if select.select([self._reading], [], [], seconds)[0]:
            os.read(self._reading, 4096)

    def _start_due(self) -> None:
        for place in self._places:
            if place.process is None and time.monotonic() >= place.start_at:
                place.start([*self._command, "--member-of", str(os.getpid())])

    def _collect(self) -> None:
        for place in self._places:
            status = place.process.poll() if place.process is not None else None
            if status is None:
                continue
            died_early = place.leave()
            if self._stopping:
                self._status = self._status or max(0, status)
            elif status in _HOPELESS and time.monotonic() - place.started_at < GOOD_LIFE_SECONDS:
                self._give_up(status)
            else:
                self._plan_restart(place, status, died_early=died_early)

    def _give_up(self, status: int) -> None:
        self._stopping, self._status = 1, status
        self._tell(signal.SIGTERM)

    def _plan_restart(self, place: _Place, status: int, *, died_early: bool) -> None:
        longer = min(max(2 * place.pause, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
        place.pause = longer if died_early else 0.0
        place.start_at = time.monotonic() + place.pause
        when = f"in {place.pause:.1f} s" if place.pause else "at once"
        _logger.warning("a supervisor ended (%s), the next one starts %s", how_it_ended(status), when)


def _without_jobs(arguments: Sequence[str]) -> list[str]:
    """Return the arguments for a single supervisor."""
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument in ("-j", "--jobs"):
            next(rest, None)
        elif not argument.startswith(("--jobs=", "-j")):
            kept.append(argument)
    return kept
