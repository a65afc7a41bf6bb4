"""What a worker leaves alone while its host is in quarantine (ADVERSITY P10).

CLAIM decides. Here is what keeps a worker from taking entries only to be refused: the queues that it is barred from,
as last heard. They are asked for with each sign of life between two batches, and after a refusal.
"""

from __future__ import annotations

import logging
import time

from overnight.errors import Unreachable
from overnight.naming import shown
from overnight_worker.heartbeat import Heartbeat
from overnight_worker.post import Post

#: How long the line that says why nothing is taken stands until it is said again.
AGAIN_SECONDS = 600.0
_logger = logging.getLogger("overnight.worker")


class Quarantine:
    """The queues from which this worker takes nothing for now."""

    def __init__(self, post: Post, heartbeat: Heartbeat) -> None:
        self._post = post
        self._heartbeat = heartbeat
        self._barred: list[str] = []
        self._say_at = 0.0

    def bars(self, queue: str) -> bool:
        """Tell whether nothing is taken from a queue."""
        return queue in self._barred

    def look(self) -> None:
        """Ask the store; without an answer what was heard last holds. CLAIM refuses in any case."""
        try:
            barred = self._post.store.barred(self._post.instance)
        except Unreachable:
            return
        if barred != self._barred:
            self._say_at = 0.0
            if not barred:
                _logger.info("host %s is no longer in quarantine", shown(self._post.host))
            self._heartbeat.say("takes no work, its host is in quarantine" if barred else "")
        self._barred = barred
        if barred and time.monotonic() >= self._say_at:
            self._say_at = time.monotonic() + AGAIN_SECONDS
            _logger.warning(
                "host %s is in quarantine, as tasks died on it that then succeeded elsewhere: it leaves %s alone; "
                "'overnight workers' says for how long, 'overnight workers --release %s' ends it",
                shown(self._post.host),
                ", ".join(shown(queue) for queue in barred),
                shown(self._post.host),
            )
