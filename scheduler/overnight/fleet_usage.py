"""Whether runs may need a fleet that no client uses, as far as its server tells.

A server that answers knows its active runs. One that is silent may come back with some: that is waited for, since a
run may be in the midst of an outage of any usual length. It is not waited for where there is nothing to come back to:
where it had no active run when it was last asked, where it has never answered this keeper, or where it is silent for so
long that it is gone for good. What workers have finished by then lies in their spool, and the same command continues
the run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from overnight.config import GONE_SECONDS
from overnight.errors import Unreachable

#: How often a server that has not answered yet is asked while clients are there.
_ASK_SECONDS = 1.0
_logger = logging.getLogger(__name__)


class FleetUsage:
    """What is known of the runs on a server. `active_runs` counts them, or raises Unreachable."""

    def __init__(self, active_runs: Callable[[], int], gone_seconds: float = GONE_SECONDS) -> None:
        self._active_runs = active_runs
        self._gone_seconds = gone_seconds
        self._answered_at: float | None = None
        self._is_idle = False
        self._ask_at = 0.0

    def note_clients(self) -> None:
        """Clients are there: what is known of runs grows old. See whether the server is one that answers at all."""
        self._is_idle = False
        now = time.monotonic()
        if self._answered_at is None:
            if now >= self._ask_at:
                self._ask_at = now + _ASK_SECONDS
                self._ask()
        else:
            self._answered_at = now

    def may_have_runs(self) -> bool:
        """Tell whether runs may be active, now that no client is there."""
        number = self._ask()
        if number is not None:
            self._is_idle = number == 0
            return not self._is_idle
        if self._is_idle or self._answered_at is None:
            return False
        if time.monotonic() - self._answered_at < self._gone_seconds:
            return True
        _logger.warning("the server has not answered for %g hours and is given up", self._gone_seconds / 3600)
        self._is_idle = True
        return False

    def _ask(self) -> int | None:
        try:
            number = self._active_runs()
        except Unreachable:
            return None
        self._answered_at = time.monotonic()
        return number
