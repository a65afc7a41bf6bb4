"""What an interrupt of the driver means for a run on a queue (BEHAVIOUR QX7)."""

from __future__ import annotations

import logging
import time
from contextlib import suppress

from overnight.core.states import TaskState
from overnight.errors import UnknownRun, Unreachable
from overnight.following import FIRST_PAUSE
from overnight.store.records import Request
from overnight.store.redis import RedisStore

_logger = logging.getLogger("overnight.queue_executor")

GRACE_SECONDS = 10.0


def drain(store: RedisStore, run_id: str, seconds: float = GRACE_SECONDS) -> None:
    """Let nothing new of a run start, and wait for what runs, at most so long; another interrupt ends the waiting.

    What runs is read from the server: what the driver has heard of it may be cut off in the middle by the interrupt.
    """
    deadline = time.monotonic() + seconds
    with suppress(UnknownRun, Unreachable):
        store.request(run_id, Request.PAUSE)
        if _runs_something(store, run_id):
            _logger.warning("Stopping: nothing new starts; what runs has %.0f s. Interrupt again to end it.", seconds)
        while _runs_something(store, run_id) and time.monotonic() < deadline:
            time.sleep(FIRST_PAUSE)


def _runs_something(store: RedisStore, run_id: str) -> bool:
    return TaskState.RUNNING in store.states(run_id)[::2]


def say_what_continues(*, is_recorded: bool) -> None:
    """Log the last line of a run that an interrupt has stopped."""
    if is_recorded:
        _logger.warning("Stopped by an interrupt; what is finished is recorded, and the same command continues.")
    else:
        _logger.warning("Stopped by an interrupt; without a status directory the same command begins anew.")
