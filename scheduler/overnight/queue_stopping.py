"""What an interrupt of the driver means for a run on a queue (BEHAVIOUR QX7)."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from overnight.core.states import TaskState
from overnight.errors import UnknownRun, Unreachable
from overnight.following import FIRST_PAUSE, Follower
from overnight.store.records import Request
from overnight.store.redis import RedisStore

_logger = logging.getLogger("overnight.queue_executor")

GRACE_SECONDS = 10.0
#: How long the end of a run that was cancelled is waited for.
TEARDOWN_SECONDS = 30.0


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


@contextmanager
def stopped_if_interrupted(store: RedisStore, key: str) -> Iterator[None]:
    """Around what puts the run under a graph key in place: its first tasks run before it is complete.

    An interrupt there stops it, as nobody else knows by then which run it is.
    """
    try:
        yield
    except KeyboardInterrupt:
        with suppress(UnknownRun, Unreachable):
            for run in store.runs():
                if run.key == key and not run.phase.is_over:
                    _stop(store, run.run_id)
        raise


def _stop(store: RedisStore, run_id: str) -> None:
    """Give what runs its time, then cancel the run and wait until nothing of it runs."""
    try:
        drain(store, run_id)
    finally:
        store.request(run_id, Request.CANCEL)
        deadline = time.monotonic() + TEARDOWN_SECONDS
        for changed in Follower(store, run_id).changes(FIRST_PAUSE):
            if changed.over is not None or time.monotonic() >= deadline:
                break


def say_what_continues(*, is_recorded: bool) -> None:
    """Log the last line of a run that an interrupt has stopped."""
    if is_recorded:
        _logger.warning("Stopped by an interrupt; what is finished is recorded, and the same command continues.")
    else:
        _logger.warning("Stopped by an interrupt; without a status directory the same command begins anew.")
