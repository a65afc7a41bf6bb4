"""The runs that a scheduler leaves alone, because what the server holds of them cannot be read or contradicts itself.

Whoever may write to the server may damage a run. That must neither end a scheduler nor keep it from other runs: each
such run is told of in one line and looked at again now and then, for what damaged it may be mended.
"""

from __future__ import annotations

import logging
import struct

from overnight.errors import BadSeal, DamagedRun, InvariantBroken, OvernightError

_logger = logging.getLogger("overnight.scheduler")

#: What a damaged run raises, wherever it is read or written.
DAMAGED = (
    BadSeal, DamagedRun, InvariantBroken, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
    RecursionError, struct.error,
)  # fmt: skip
LOOK_AGAIN_SECONDS = 30.0


class LeftAlone:
    """The damaged runs, each with the time at which to look at it again."""

    def __init__(self) -> None:
        self._look_at: dict[str, float] = {}

    def put(self, run_id: str, error: Exception, now: float) -> None:
        """Leave a run alone for a while; say so once."""
        if run_id not in self._look_at:
            trace = None if isinstance(error, OvernightError) else error
            _logger.error("run %s cannot be read and is left alone: %s", run_id, error, exc_info=trace)
        self._look_at[run_id] = now + LOOK_AGAIN_SECONDS

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
        """Forget the runs that are not active any more."""
        self._look_at = {run_id: at for run_id, at in self._look_at.items() if run_id in active}
