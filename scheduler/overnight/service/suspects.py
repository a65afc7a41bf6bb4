"""Hold against hosts what commits tell: tasks that died on one and succeeded on another (ADVERSITY P10).

Events are hints, and what is remembered of deaths ends with this process. What either loses is evidence, never a task.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from overnight.core.suspicion import DEATHS_TO_QUARANTINE
from overnight.naming import shown
from overnight.service.active_run import ActiveRun
from overnight.store.ports import SchedulingStore
from overnight.store.records import RunEvent

_logger = logging.getLogger("overnight.scheduler")


class Suspects:
    """Watches commits. `host_of` tells the host of a worker instance, None if it is not known any more."""

    def __init__(self, store: SchedulingStore, seconds: float, host_of: Callable[[str], str | None]) -> None:
        self._store = store
        self._seconds = seconds
        self._host_of = host_of

    def hear(self, run: ActiveRun, entry: RunEvent) -> None:
        """Take in one entry of the run's stream."""
        for report in entry.reports:
            if not (report.died or (report.ok and run.suspicions)) or entry.worker is None:
                continue
            host = self._host_of(entry.worker)
            if host is None:
                continue
            if report.died:
                run.suspicions.died(report.task, host)
                continue
            for suspect in run.suspicions.succeeded(report.task, host):
                self._accuse(suspect, run.run_id, report.task, host)

    def _accuse(self, suspect: str, run_id: str, task: int, host: str) -> None:
        number, seconds = self._store.accuse(suspect, run_id, task, self._seconds)
        _logger.warning(
            "run %s: task %d died on host %s and succeeded on %s: %d of %d that put a host into quarantine",
            run_id,
            task,
            shown(suspect),
            shown(host),
            number,
            DEATHS_TO_QUARANTINE,
        )
        if seconds:
            _logger.warning(
                "host %s takes no more work for %.0f s; this ends it sooner: overnight workers --release %s",
                shown(suspect),
                seconds,
                shown(suspect),
            )
