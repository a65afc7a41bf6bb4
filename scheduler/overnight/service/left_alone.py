"""Runs that this scheduler cannot read: they are left alone, so that all others go on.

What is wrong is kept with the run, for its client and for people; the next scheduler that can read the run takes the
note away. A run that is cancelled is ended all the same: for that its states are enough, and they are not sealed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from overnight.core.states import TERMINAL, RunPhase, TaskState
from overnight.errors import BadSeal, DamagedRun, OvernightError, UnknownRun, remedy
from overnight.store.ports import SchedulingStore
from overnight.store.records import Epoch, Verdict

_logger = logging.getLogger("overnight.scheduler")

#: What reading a damaged run raises. One such run must not keep the scheduler from all others.
DAMAGED = (BadSeal, DamagedRun, ValueError, LookupError)
LOOK_SECONDS = 1.0


class LeftAlone:
    """The runs that the scheduler of this description leaves alone."""

    def __init__(self, store: SchedulingStore, describe: str) -> None:
        self._store = store
        self._name = describe.split(" ", maxsplit=1)[0]
        self._runs: set[str] = set()
        self._look_at = 0.0

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._runs

    def add(self, epoch: Epoch, run_id: str, error: Exception) -> None:
        """Leave a run alone from now on, and say so in the log and at the run. Raises Fenced, Unreachable."""
        self._runs.add(run_id)
        trace = None if isinstance(error, OvernightError) else error
        _logger.error("run %s cannot be read and is left alone: %s", run_id, error, exc_info=trace)
        try:
            self._store.note(epoch, run_id, f"Scheduler {self._name} cannot read the run: {error} {remedy(error)}")
        except (UnknownRun, *DAMAGED):
            _logger.info("run %s: no note can be kept there", run_id)

    def keep_only(self, active: Iterable[str]) -> None:
        """Forget the runs that are not active any more: one that comes back is looked at again."""
        self._runs.intersection_update(active)

    def end_cancelled(self, epoch: Epoch, now: float) -> None:
        """End those that have been cancelled. Raises Fenced, Unreachable."""
        if not self._runs or now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        for run_id in sorted(self._runs):
            try:
                self._end_if_cancelled(epoch, run_id)
            except UnknownRun:
                self._runs.discard(run_id)
            except DAMAGED as error:
                _logger.debug("run %s cannot be looked at: %s", run_id, error)

    def _end_if_cancelled(self, epoch: Epoch, run_id: str) -> None:
        if self._store.run(run_id).phase is not RunPhase.CANCELLING:
            return
        codes = self._store.states(run_id)[::2]
        still_open = [task for task, code in enumerate(codes) if TaskState(code) not in TERMINAL]
        self._store.settle(epoch, run_id, [Verdict(task, TaskState.CANCELLED) for task in still_open])
        if self._store.finish(epoch, run_id, RunPhase.CANCELLED):
            _logger.info("run %s, which could not be read, was cancelled", run_id)
