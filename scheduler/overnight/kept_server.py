"""The embedded server as its keeper sees it: there, on its way, or to be started again after a delay.

The server is nobody's child, so its end is seen by its lock and its reason is read from its log.
"""

from __future__ import annotations

import logging
import time

from overnight.embedded import EmbeddedServer
from overnight.errors import OvernightError
from overnight.slots import Backoff

_logger = logging.getLogger(__name__)


class KeptServer:
    """The embedded server as the keeper sees it: there, or to be started again."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self._backoff = Backoff()
        self._started_here = False
        self._answered = False
        self.is_failing = False

    def keep(self) -> None:
        """Start the server if there is none and the delay is over."""
        now = time.monotonic()
        self._server.end_orphans()
        if self._server.is_present():
            self._notice_answer()
        elif self._answered or self._started_here:
            self._notice_end(now)
        elif now >= self._backoff.not_before:
            self._start(now)

    def stop(self) -> None:
        """Stop the server and wait for its end."""
        self._server.stop()

    def terminate(self) -> None:
        """Stop the server although its directory is gone."""
        self._server.terminate()

    def _notice_answer(self) -> None:
        if not self._answered and self._server.is_running():
            self._answered = True
            self.is_failing = False
            _logger.info("the server answers at %s", self._server.url)

    def _notice_end(self, now: float) -> None:
        self._backoff.ended(now)
        self.is_failing = not self._answered
        reason = self._server.failure() if self.is_failing else "the server ended"
        _logger.warning("%s; restarting in %g s", reason.rstrip("."), self._backoff.delay)
        self._answered = self._started_here = False

    def _start(self, now: float) -> None:
        self._backoff.started(now)
        try:
            self._started_here = self._server.start_if_absent()
        except OvernightError as error:
            self.is_failing = True
            self._backoff.ended(now)
            _logger.error("%s", error)
        else:
            _logger.info("server started")
