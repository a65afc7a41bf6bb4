"""How many batches each run ever had, as a scheduler knows it: dispatches leave no event that would be missed.

A server that was rolled back has counted fewer than this scheduler has seen accepted.
"""

from __future__ import annotations

from collections.abc import Collection


class DispatchCounts:
    """The counts of one scheduler instance, by run."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def take(self, run_id: str, total: int) -> None:
        """The run was read: this is what counts from now on."""
        self._known[run_id] = total

    def keep(self, run_ids: Collection[str]) -> None:
        """Forget all other runs."""
        self._known = {run_id: total for run_id, total in self._known.items() if run_id in run_ids}

    def grow(self, run_id: str, accepted: int, total: int) -> None:
        """So many batches were accepted; the server then counted `total`. Too low a total stays noticeable."""
        self._known[run_id] = max(total, self._known.get(run_id, 0) + accepted)

    def is_lower(self, run_id: str, total: int) -> bool:
        """Tell whether the server counts fewer batches than there were; the difference is told once."""
        is_lower = total < self._known.get(run_id, 0)
        if is_lower:
            self._known[run_id] = total
        return is_lower
