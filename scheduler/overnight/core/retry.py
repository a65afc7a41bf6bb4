"""What a failure or a loss costs a task, and when it may start again (BEHAVIOUR O2, O3, O7)."""

from __future__ import annotations

from dataclasses import replace
from heapq import heappop, heappush
from typing import Final

from overnight.core.events import Charge, TaskRules

#: So many losses in a row, and the task itself is held to be what kills its workers ...
MOST_LOSSES: Final = 3
#: ... if it is known to have begun before all but one of them. The first attempt is not announced, as that would cost
#: each batch a round trip; all later ones are.
LEAST_BEGUN: Final = MOST_LOSSES - 1
#: So many in a row, and it is held to be that whether it began or not: its inputs alone may kill a worker.
MOST_LOSSES_UNBEGUN: Final = 9
LONGEST_BACKOFF_SECONDS: Final = 3600.0
# Beyond this exponent every delay that is not 0 exceeds the longest backoff.
_HIGHEST_EXPONENT: Final = 60


def after_failure(charge: Charge, rules: TaskRules, now: float, jitter: float) -> Charge:
    """Return the charge after one more failed attempt, which ends a row of losses."""
    failures = charge.failures + 1
    delay = rules.retry_delay * 2 ** min(failures - 1, _HIGHEST_EXPONENT) * jitter
    return Charge(failures=failures, losses=0, not_before=now + min(delay, LONGEST_BACKOFF_SECONDS))


def after_loss(charge: Charge, *, begun: bool) -> Charge:
    """Return the charge after the loss of a worker, which uses up no retry."""
    return replace(charge, losses=charge.losses + 1, begun=charge.begun + begun)


def after_return(charge: Charge) -> Charge:
    """Return the charge after a worker gave the task back, which ends a row of losses."""
    return Charge(failures=charge.failures, losses=0, not_before=charge.not_before)


def may_repeat(charge: Charge, rules: TaskRules, *, hopeless: bool) -> bool:
    """Tell whether a task with this charge has a retry left."""
    return not hopeless and charge.failures <= rules.retries


def is_poison(charge: Charge) -> bool:
    """Tell whether the task has lost its worker too often."""
    return charge.losses >= (MOST_LOSSES if charge.begun >= LEAST_BEGUN else MOST_LOSSES_UNBEGUN)


class Backoffs:
    """Which task may start again when. Entries of tasks that no longer wait are void; the reader skips them."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, time: float, task: int) -> None:
        """Note that the task must not start before `time`."""
        heappush(self._entries, (time, task))

    def clear(self) -> None:
        """Forget all entries."""
        self._entries.clear()

    def first(self) -> tuple[float, int] | None:
        """Return the entry that is due first."""
        return self._entries[0] if self._entries else None

    def pop(self) -> None:
        """Remove the entry that is due first."""
        heappop(self._entries)

    def entries(self) -> list[tuple[float, int]]:
        """Return all entries, in no order."""
        return list(self._entries)
