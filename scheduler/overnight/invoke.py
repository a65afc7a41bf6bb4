"""Run one task: the one place where a user's function is called.

`invoke` calls the function and turns whatever happens into an `Outcome`: a result, or the exception that was raised
or returned. `attempt` is `invoke` inside the task's log. Both are used by every executor and by the worker's child,
so nothing here knows of graphs, caches or queues.

A time limit is a timer signal in the main thread. The timer repeats, so that code which swallows the first
`TaskTimedOut` meets the next one; code that never returns to the interpreter is ended from outside, by whoever owns
the process.

A task that forks and forgets to end the copy comes back here twice. The copy ends here: one call, one outcome.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from overnight.errors import TaskTimedOut
from overnight.naming import shown
from overnight.output_capture import OutputCapture
from overnight.own_frames import without_own_frames
from overnight.task_log import TaskLog

#: Seconds between two interruptions of a task that goes on after its time limit.
INTERRUPT_AGAIN_SECONDS = 1.0
_MEMORY_UNIT = 1 if sys.platform == "darwin" else 1024

_logger = logging.getLogger("task_executor")


class StandIn:
    """A `load` that may stand for its value among the arguments of later tasks: its backend puts the value there."""

    def __call__(self) -> Any:
        """Return the value, loaded anew."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended. `value` is the result, or the exception if not `ok`.

    `started` is seconds since the epoch, `seconds` the duration by a monotonic clock, `peak_memory` the largest
    resident size in bytes that the task's process had reached by the end (0 if unknown). `load`, where there is one,
    gets a large result once more from where it lies, so that nobody need keep it (B15).
    """

    ok: bool
    value: Any
    started: float
    seconds: float
    peak_memory: int = 0
    load: Callable[[], Any] | None = None


def invoke(
    func: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    timeout: float | None = None,
    passing: tuple[type[BaseException], ...] = (),
) -> Outcome:
    """Call the function and return how it ended; an exception object that it returns is a failure (G23).

    `timeout` in seconds needs the main thread (`can_interrupt`). Exceptions of the types in `passing` are not
    outcomes: they pass through.
    """
    started = time.time()
    begin = time.monotonic()
    process = os.getpid()
    try:
        try:
            value = func(*args, **kwargs) if timeout is None else _within(timeout, func, args, kwargs)
        finally:
            if os.getpid() != process:
                _end_copy()
        return Outcome(not isinstance(value, BaseException), value, started, time.monotonic() - begin, peak_memory())
    except passing:
        raise
    except BaseException as error:
        seconds = time.monotonic() - begin
        return Outcome(False, without_own_frames(error), started, seconds, peak_memory())  # noqa: FBT003  # the first field


def _end_copy() -> None:
    """End this process, which the task's own fork has made, as a program would that came to its end here."""
    error = sys.exception()
    if error is not None:
        traceback.print_exception(error)
    os._exit(0 if error is None else 1)


def peak_memory() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MEMORY_UNIT


def can_interrupt() -> bool:
    """Tell whether a task called here can be interrupted by a timer: signals reach the main thread only."""
    return threading.current_thread() is threading.main_thread()


def _within(timeout: float, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    limit = _TimeLimit(timeout)
    try:
        limit.start()
        value = func(*args, **kwargs)
    except Exception as error:
        limit.armed = False
        if limit.struck and not isinstance(error, TaskTimedOut):
            raise TaskTimedOut(limit.message) from error
        raise
    finally:
        # Python sees to signals at calls: an assignment cannot be interrupted, and from it on nothing strikes.
        limit.armed = False
        limit.end()
    if limit.struck:
        raise TaskTimedOut(limit.message)
    return value


class _TimeLimit:
    """Raises TaskTimedOut in the main thread, from `seconds` after `start` on, while it is `armed`. `end` undoes it.

    Whatever else a struck task raises on its way out becomes the cause of the TaskTimedOut.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.message = f"The attempt ran longer than its limit of {seconds:g} s."
        self.struck = False
        self.armed = False
        self._started: float | None = None

    def start(self) -> None:
        """Start the timer."""
        self._former_timer = signal.getitimer(signal.ITIMER_REAL)
        self._former_handler = signal.getsignal(signal.SIGALRM)
        self._started = time.monotonic()
        signal.signal(signal.SIGALRM, self._expire)
        self.armed = True
        signal.setitimer(signal.ITIMER_REAL, self.seconds, INTERRUPT_AGAIN_SECONDS)

    def end(self) -> None:
        """Give timer and handler back to whom they belonged before. Only when it is no longer armed."""
        if self._started is None:
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._former_handler)
        delay, interval = self._former_timer
        if delay:
            left = delay - (time.monotonic() - self._started)
            signal.setitimer(signal.ITIMER_REAL, max(left, 1e-6), interval)

    def _expire(self, _number: int, _frame: FrameType | None) -> None:
        if self.armed:
            self.struck = True
            raise TaskTimedOut(self.message)


def attempt(
    task_id: str,
    func: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    timeout: float | None = None,
    log_dir: str | None = None,
    verbosity: int | None = 0,
    run_id: str = "",
    attempt: int = 1,
    whole_process: bool = False,
    capture: OutputCapture | None = None,
    passing: tuple[type[BaseException], ...] = (),
) -> Outcome:
    """Run one attempt of a task inside its log (B16, N4, N5) and return how it ended; parameters as for `invoke`.

    The log file is made by the first record or captured output. `log_dir` None means no file. `whole_process` says
    that nothing else runs in this process, so that records of all its threads are the task's. `capture` is what
    stands in for stdout and stderr of this process; what it holds goes to the log.
    """
    log = TaskLog(task_id, log_dir, verbosity, run_id=run_id, attempt=attempt)
    log.whole_process = whole_process
    log.capture = capture
    with log:
        if _logger.isEnabledFor(logging.INFO):
            _logger.info("task <%s> started, attempt %d", shown(task_id), attempt)
        outcome = invoke(func, args, kwargs, timeout=timeout, passing=passing)
        _log_outcome(task_id, outcome)
    return outcome


def _log_outcome(task_id: str, outcome: Outcome) -> None:
    if not outcome.ok:
        error = outcome.value
        _logger.error(
            "task <%s> failed after %.3f s: %s",
            shown(task_id),
            outcome.seconds,
            type(error).__name__,
            exc_info=(type(error), error, error.__traceback__),
        )
    if _logger.isEnabledFor(logging.INFO):
        megabytes = outcome.peak_memory / 1e6
        _logger.info("task <%s> ended after %.3f s, peak memory %.1f MB", shown(task_id), outcome.seconds, megabytes)
