"""The embedded server as its keeper sees it: there, on its way, or to be started again after a delay.

The server is nobody's child, so its end is seen by its lock and its reason is read from its log.
"""

from __future__ import annotations

import logging
import time

from overnight.embedded import EmbeddedServer
from overnight.errors import OvernightError
from overnight.slots import Backoff

#: For so long a server that has answered, or one that may still be starting, can be without its socket.
REMOVED_SECONDS = 2.0
STARTING_SECONDS = 20.0

_logger = logging.getLogger(__name__)


class KeptServer:
    """The embedded server as the keeper sees it: there, or to be started again."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self._backoff = Backoff()
        self._started_here = False
        self._answered = False
        self._cut_off_since: float | None = None
        self.is_failing = False

    def keep(self) -> None:
        """Start the server if there is none and the delay is over."""
        now = time.monotonic()
        self._server.end_orphans()
        if self._server.is_present():
            self._notice_answer()
            self._see_in_reach(now)
        elif self._answered or self._started_here:
            self._notice_end(now)
        elif now >= self._backoff.not_before:
            self._start(now)

    def stop(self) -> None:
        """Stop the server and wait for its end."""
        self._server.stop()

    def kill(self) -> None:
        """End the server, whose directory is gone."""
        self._server.kill()

    def _notice_answer(self) -> None:
        if not self._answered and self._server.is_running():
            self._answered = True
            self.is_failing = False
            _logger.info("the server answers at %s", self._server.url)

    def _see_in_reach(self, now: float) -> None:
        """End a server whose socket was removed: nobody new reaches it, and its end lets the next one start."""
        if not self._server.is_cut_off():
            self._cut_off_since = None
        elif self._cut_off_since is None:
            self._cut_off_since = now
        elif now - self._cut_off_since >= (REMOVED_SECONDS if self._answered else STARTING_SECONDS):
            _logger.warning("the server's socket was removed: ending the server, to start it again")
            self._server.end_cut_off()
            self._cut_off_since = None

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
