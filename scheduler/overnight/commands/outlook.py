"""The time left of a run that is being watched: read again now and then, and counted down in between.

To read it costs as much as the run is large, so it is read the less often the longer that takes.
"""

from __future__ import annotations

import logging
import time

from overnight.commands.known_tasks import KnownTasks
from overnight.commands.time_left import TimeLeft, read_time_left
from overnight.deployment import Deployment
from overnight.errors import OvernightError
from overnight.store.records import RunRecord

#: A watcher spends at most this part of its time on it.
SHARE_OF_TIME = 0.05
_SHORTEST_SECONDS = 2.0
_logger = logging.getLogger(__name__)


class Outlook:
    """What is known of a run's time left."""

    def __init__(self, deployment: Deployment, run: RunRecord, tasks: KnownTasks) -> None:
        self._deployment = deployment
        self._run_id = run.run_id
        self._tasks = tasks
        self._read_at = float("-inf")
        self._next_at = 0.0
        self._left: TimeLeft | None = None

    def time_left(self, now: float, pace: float | None) -> TimeLeft | None:
        """Return it, None if it is not known; `now` is a time of the monotonic clock, `pace` in tasks a second."""
        if now >= self._next_at:
            began = time.monotonic()
            self._left, self._read_at = self._read(pace), now
            self._next_at = now + max(_SHORTEST_SECONDS, (time.monotonic() - began) / SHARE_OF_TIME)
        if self._left is None:
            return None
        passed = now - self._read_at
        most = None if self._left.most is None else max(0.0, self._left.most - passed)
        return TimeLeft(max(0.0, self._left.least - passed), most)

    def _read(self, pace: float | None) -> TimeLeft | None:
        store = self._deployment.store
        try:
            run, codes = store.run(self._run_id), store.states(self._run_id)[::2]
            structure = self._tasks.structure(len(codes))
            return read_time_left(store, run, structure, codes, store.workers(), store.now(), pace)
        except OvernightError as error:
            # Whoever follows the run says what is wrong with it or with its server.
            _logger.debug("the time left is not known: %s", error)
            return None
