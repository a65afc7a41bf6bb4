"""Failpoints: named places at which a test has a real process fail (ADVERSITY section 5).

``OVERNIGHT_FAILPOINT="worker.after_claim:kill9@3;scheduler.mid_adopt:stop8"`` names a point, what happens there and,
if not at once, at which pass of the process. It is obeyed with ``OVERNIGHT_TESTING=1`` alone, and any other process
refuses to start. Unset, a point costs one comparison. A process that starts others passes its own environment on, so
each of them would fail again and again; with ``OVERNIGHT_FAILPOINT_MARKS``, a directory, a failpoint strikes once in
all and leaves a file of its name there.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overnight.errors import Unreachable, UsageError, nearest

VARIABLE = "OVERNIGHT_FAILPOINT"
TESTING_VARIABLE = "OVERNIGHT_TESTING"
MARKS_VARIABLE = "OVERNIGHT_FAILPOINT_MARKS"

#: Of a step that talks to Redis; of one that has talked to it; of one that does not; of one that writes a file.
_CALL = ("kill9", "stop", "exit0", "raise", "drop_reply")
_CALLED = ("kill9", "stop", "exit0", "raise")
_STEP = ("kill9", "stop", "exit0")
_FILE = ("kill9", "stop", "exit0", "enospc")
_TASK = ("kill9", "stop", "exit0", "raise", "enospc")

#: All points, in the order in which a run comes to them, and the actions that make sense at each.
POINTS: dict[str, tuple[str, ...]] = {
    "client.before_submit": _CALL,
    "client.mid_submit": _CALL,
    "client.after_submit": _CALLED,
    "client.while_following": _CALL,
    "scheduler.after_epoch": _CALL,
    "scheduler.after_state_read": _CALLED,
    "scheduler.mid_adopt": _CALLED,
    "scheduler.after_repair": _CALLED,
    "scheduler.before_dispatch": _CALL,
    "scheduler.after_dispatch": _CALL,
    "scheduler.after_enqueue": _CALLED,
    "scheduler.after_reap": _CALLED,
    "scheduler.before_audit": _CALL,
    "scheduler.before_exit": _CALL,
    "worker.after_pop": _CALL,
    "worker.after_claim": _CALLED,
    "worker.before_child": _FILE,
    "worker.after_child_exit": _STEP,
    "worker.before_commit": _CALL,
    "worker.after_commit": _CALLED,
    "worker.in_heartbeat": _CALL,
    "worker.in_spool_write": _FILE,
    "worker.in_give_back": _CALL,
    "child.at_start": _FILE,
    "child.mid_task": _TASK,
    "child.between_batch_members": _STEP,
    "child.during_serialise": _STEP,
    "child.before_outcome": _STEP,
    "flags.mid_temp_write": _FILE,
    "flags.after_fsync": _FILE,
    "flags.after_rename": _FILE,
}
_FORM = re.compile(r"([a-z_.]+):(kill9|exit0|[a-z_]+)(\d+(?:\.\d+)?)?(?:@([1-9]\d*))?")
_logger = logging.getLogger("overnight.failpoints")


@dataclass(frozen=True, slots=True)
class Failpoint:
    """One point, what happens there, and at which pass. `seconds` is how long a `stop` lasts."""

    point: str
    action: str
    seconds: float = 0.0
    at: int = 1

    @property
    def text(self) -> str:
        """The failpoint as it is written."""
        return f"{self.point}:{self.action}{f'{self.seconds:g}' if self.action == 'stop' else ''}@{self.at}"


def reach(point: str) -> None:
    """Come to a point: go on, unless a test has this process fail here."""
    if _armed is not None:
        _armed.reach(point)


def arm() -> None:
    """Read the environment at the start of a process. Raises UsageError if it is not to be obeyed or understood."""
    global _armed  # noqa: PLW0603  # what makes a point one comparison
    text = os.environ.get(VARIABLE)
    if text is None or _armed is not None:
        return
    failpoints = parse(text, testing=os.environ.get(TESTING_VARIABLE) == "1")
    _logger.warning("failpoints are armed: %s", "; ".join(failpoint.text for failpoint in failpoints))
    _armed = _Armed(failpoints, os.environ.get(MARKS_VARIABLE))


def disarm_environment() -> None:
    """Take the variables out of this process's environment, which is that of tasks."""
    for name in (VARIABLE, TESTING_VARIABLE, MARKS_VARIABLE):
        os.environ.pop(name, None)


def passed_on() -> Mapping[str, str]:
    """Return the variables for a process that is given no others of overnight's."""
    if _armed is None:
        return {}
    names = (VARIABLE, TESTING_VARIABLE, MARKS_VARIABLE)
    return {name: os.environ[name] for name in names if name in os.environ}


def parse(text: str, *, testing: bool) -> list[Failpoint]:
    """Return what the variable says. Raises UsageError with what is wrong with it."""
    if not testing:
        raise UsageError(f"{VARIABLE} makes processes fail: unset it, or set {TESTING_VARIABLE}=1 if this is a test.")
    return [_parsed(part.strip()) for part in text.split(";")]


def _parsed(part: str) -> Failpoint:
    form = _FORM.fullmatch(part)
    if form is None:
        raise UsageError(f"{VARIABLE}: {part!r} is not of the form point:action or point:action@pass.")
    point, action, seconds, at = form.groups()
    if point not in POINTS:
        raise UsageError(f"{VARIABLE}: there is no point {point!r}{nearest(point, list(POINTS))}")
    if action not in POINTS[point] or (action == "stop") != (seconds is not None):
        possible = ", ".join("stopN" if name == "stop" else name for name in POINTS[point])
        raise UsageError(f"{VARIABLE}: {part!r} names no action of {point}, which are {possible}.")
    return Failpoint(point, action, float(seconds or 0), int(at or 1))


class _Armed:
    """The failpoints of this process, and how often it has passed each point."""

    def __init__(self, failpoints: list[Failpoint], marks: str | None) -> None:
        self._failpoints = failpoints
        self._marks = marks
        self._passes: Counter[str] = Counter()

    def reach(self, point: str) -> None:
        """Strike if it is time."""
        self._passes[point] += 1
        for failpoint in self._failpoints:
            if failpoint.point == point and failpoint.at == self._passes[point] and self._is_first(failpoint):
                _logger.warning("failpoint %s strikes process %d", failpoint.text, os.getpid())
                _strike(failpoint)

    def _is_first(self, failpoint: Failpoint) -> bool:
        if self._marks is None:
            return True
        try:
            (Path(self._marks) / failpoint.text).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def _strike(failpoint: Failpoint) -> None:
    match failpoint.action:
        case "kill9":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            _stop(failpoint.seconds)
        case "exit0":
            os._exit(0)
        case "raise":
            raise Unreachable(f"The connection is cut by failpoint {failpoint.text}.")
        case "enospc":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        case "drop_reply":
            _drop_next_reply()


def _stop(seconds: float) -> None:
    """Stop this process; a process that belongs to nobody wakes it."""
    subprocess.run(
        ["/bin/sh", "-c", '(sleep "$0"; kill -CONT "$1") &', str(seconds), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        check=True,
    )
    os.kill(os.getpid(), signal.SIGSTOP)


def _drop_next_reply() -> None:
    """Have the next command's reply come and be thrown away with its connection: the server has carried it out."""
    from redis.connection import AbstractConnection
    from redis.exceptions import ConnectionError as Lost

    read_response: Callable[..., Any] = AbstractConnection.read_response

    def read_and_drop(connection: Any, *args: Any, **options: Any) -> Any:
        setattr(AbstractConnection, "read_response", read_response)  # noqa: B010  # a method is no variable to mypy
        read_response(connection, *args, **options)
        connection.disconnect()
        _logger.warning("a reply is dropped")
        raise Lost("the reply is dropped by a failpoint")

    setattr(AbstractConnection, "read_response", read_and_drop)  # noqa: B010  # likewise


_armed: _Armed | None = None
