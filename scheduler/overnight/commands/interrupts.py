"""Signals while a run is started and watched.

Until the run is in place an interrupt ends the command at once (`Interrupted`). While `deferring`, signals are only
counted and `wake` is set: whoever follows the run decides what the first, the second and a hang-up mean.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

_STOPPING = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A signal came before anything was started; `exit_status` is that of a process ended by it."""

    def __init__(self, number: int) -> None:
        self.exit_status = 128 + number
        super().__init__(number)


class Interrupts:
    """Receives SIGINT, SIGTERM and SIGHUP, as a context in the main thread."""

    def __init__(self) -> None:
        self.wake = threading.Event()
        self.count = 0
        self.hung_up = False
        self._first = signal.SIGINT
        self._deferring = False
        self._before: dict[signal.Signals, Any] = {}

    @property
    def exit_status(self) -> int:
        """What a command exits with that the first signal stopped."""
        return 128 + self._first

    @contextmanager
    def deferring(self) -> Iterator[None]:
        """Only count signals in this context."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def __enter__(self) -> Self:
        for number in _STOPPING:
            self._before[number] = signal.signal(number, self._stop)
        # A process that was started to outlive its terminal (nohup) ignores SIGHUP, and goes on doing so.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._hang_up)
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        if not self._deferring:
            raise Interrupted(number)
        self._first = self._first if self.count else signal.Signals(number)
        self.count += 1
        self.wake.set()

    def _hang_up(self, number: int, _frame: FrameType | None) -> None:
        if not self._deferring:
            raise Interrupted(number)
        self.hung_up = True
        self.wake.set()
