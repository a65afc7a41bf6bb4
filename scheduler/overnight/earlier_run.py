"""The wait for an earlier run of the same command that is being cancelled: a new one is made when it has ended."""

from __future__ import annotations

import logging
import math
import threading
import time

from overnight.config import Settings
from overnight.errors import StillEnding
from overnight.hints import hint
from overnight.store.ports import ReadingStore

POLL_SECONDS = 0.2
#: After so long people are told what is waited for.
TELL_SECONDS = 5.0

_logger = logging.getLogger(__name__)


def wait_for_end(store: ReadingStore, run_id: str, settings: Settings, stop: threading.Event | None) -> None:
    """Wait until a run is over. Raises StillEnding as soon as `stop` is set, and what the store raises."""
    cursor, tell_at = "0", time.monotonic() + TELL_SECONDS
    while not store.run(run_id).phase.is_over:
        if stop is not None and stop.is_set():
            raise StillEnding(f"Run {run_id} of this command is still being cancelled.")
        for event in store.follow(run_id, cursor, POLL_SECONDS):
            cursor = event.cursor
        if time.monotonic() >= tell_at:
            tell_at = math.inf
            start = "" if store.scheduler() else f" No scheduler is there to end it: {hint(settings, 'scheduler')}"
            _logger.warning("Run %s of this command is still being cancelled; its end is waited for.%s", run_id, start)
