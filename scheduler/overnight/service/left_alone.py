"""The runs that a scheduler leaves alone, because what the server holds of them cannot be read or contradicts itself.

Whoever may write to the server may damage a run, and a run may be sealed with a key that is not set here. That must
neither end a scheduler nor keep it from other runs: each such run is told of in one line and looked at again now and
then, for what is wrong may be mended. The reason is kept with the run, for its client and for people; the next
scheduler that can read the run takes the note away. A run that is cancelled is ended all the same: for that its states
are enough, and they are not sealed; and where not even they can be believed, whatever they are. Otherwise its graph and
its status directory would be in use for ever.
"""

from __future__ import annotations

import logging
import struct

from overnight.core.states import TERMINAL, RunPhase, TaskState
from overnight.errors import BadSeal, DamagedRun, InvariantBroken, OvernightError, UnknownRun, remedy
from overnight.store.ports import SchedulingStore
from overnight.store.records import Epoch, Verdict

_logger = logging.getLogger("overnight.scheduler")

#: What a damaged run raises, wherever it is read or written.
DAMAGED = (
    BadSeal, DamagedRun, InvariantBroken, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
    RecursionError, struct.error,
)  # fmt: skip
LOOK_AGAIN_SECONDS = 30.0
#: How soon one that is cancelled is noticed.
CANCELLED_SECONDS = 1.0


class LeftAlone:
    """The runs that the scheduler of this description leaves alone, each with the time at which to look at it again."""

    def __init__(self, store: SchedulingStore, describe: str) -> None:
        self._store = store
        self._name = describe.split(" ", maxsplit=1)[0]
        self._look_at: dict[str, float] = {}
        self._look_for_cancelled_at = 0.0

    def put(self, epoch: Epoch, run_id: str, error: Exception, now: float) -> None:
        """Leave a run alone for a while; say so once, in the log and at the run. Raises Fenced, Unreachable."""
        if run_id not in self._look_at:
            trace = None if isinstance(error, OvernightError) else error
            _logger.error("run %s cannot be read and is left alone: %s", run_id, error, exc_info=trace)
            self._note(epoch, run_id, f"Scheduler {self._name} cannot read the run: {error} {remedy(error)}")
        self._look_at[run_id] = now + LOOK_AGAIN_SECONDS

    def _note(self, epoch: Epoch, run_id: str, text: str) -> None:
        try:
            self._store.note(epoch, run_id, text)
        except (UnknownRun, *DAMAGED):
            _logger.info("run %s: no note can be kept there", run_id)

    def take(self, run_id: str) -> None:
        """The run can be read."""
        if self._look_at.pop(run_id, None) is not None:
            _logger.info("run %s can be read again", run_id)

    def holds(self, run_id: str, now: float) -> bool:
        """Tell whether a run is not to be looked at now."""
        return self._look_at.get(run_id, now) > now

    def is_due(self, now: float) -> bool:
        """Tell whether one of the runs is to be looked at again."""
        return any(at <= now for at in self._look_at.values())

    def keep(self, active: set[str]) -> None:
        """Forget the runs that are not active any more: one that comes back is looked at again."""
        self._look_at = {run_id: at for run_id, at in self._look_at.items() if run_id in active}

    def end_cancelled(self, epoch: Epoch, now: float) -> None:
        """End those that have been cancelled. Raises Fenced, Unreachable."""
        if not self._look_at or now < self._look_for_cancelled_at:
            return
        self._look_for_cancelled_at = now + CANCELLED_SECONDS
        for run_id in sorted(self._look_at):
            try:
                self._end_if_cancelled(epoch, run_id)
            except UnknownRun:
                del self._look_at[run_id]
            except DAMAGED as error:
                _logger.debug("run %s cannot be looked at: %s", run_id, error)

    def _end_if_cancelled(self, epoch: Epoch, run_id: str) -> None:
        if self._store.run(run_id).phase is not RunPhase.CANCELLING:
            return
        if self._is_settled(epoch, run_id) or self._store.abandon(epoch, run_id):
            _logger.info("run %s, which could not be read, was cancelled", run_id)

    def _is_settled(self, epoch: Epoch, run_id: str) -> bool:
        """Cancel all that is open and end the run; False where its states cannot be believed or do not add up."""
        try:
            codes = self._store.states(run_id)[::2]
            still_open = [task for task, code in enumerate(codes) if TaskState(code) not in TERMINAL]
            self._store.settle(epoch, run_id, [Verdict(task, TaskState.CANCELLED) for task in still_open])
            return self._store.finish(epoch, run_id, RunPhase.CANCELLED)
        except UnknownRun:
            raise
        except DAMAGED as error:
            _logger.debug("the states of run %s cannot be believed: %s", run_id, error)
            return False
