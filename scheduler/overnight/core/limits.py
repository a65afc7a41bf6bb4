"""Resources: how much of each the batches in flight hold, against the limits of the run (BEHAVIOUR O6).

A batch runs its tasks one after another, so it holds, from its dispatch until it has no task left, the highest
amount that any of its tasks needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from overnight.core.rulebook import Resources

# Ten tasks of 0.1 fit a limit of 1.0, however the sum is rounded.
_ROUNDING: Final = 1 + 1e-9


def highest(demands: Iterable[Resources]) -> Resources:
    """Return the highest amount of each name."""
    amounts: dict[str, float] = {}
    for demand in demands:
        for name, amount in demand:
            amounts[name] = max(amount, amounts.get(name, amount))
    return tuple(sorted(amounts.items()))


class Limits:
    """What is held of each resource, by how many batches.

    `ceilings` bound what the run may hold for now, beside its own `limits`: what other runs leave of what is shared.
    """

    def __init__(self, limits: Mapping[str, float]) -> None:
        self.limits = dict(limits)
        self.ceilings: Mapping[str, float] = {}
        self._held: dict[str, tuple[float, int]] = {}

    def fits(self, demand: Resources) -> bool:
        """Tell whether a batch that needs `demand` may start beside those in flight."""
        return all(
            self.held(name) + amount <= bounds[name] * _ROUNDING
            for bounds in (self.limits, self.ceilings)
            for name, amount in demand
            if name in bounds
        )

    @property
    def bound_any(self) -> bool:
        """Tell whether anything is limited."""
        return bool(self.limits or self.ceilings)

    def held(self, name: str) -> float:
        """Return how much of the resource is in use."""
        return self._held.get(name, (0.0, 0))[0]

    def take(self, demand: Resources) -> None:
        """Count a batch in."""
        for name, amount in demand:
            held, holders = self._held.get(name, (0.0, 0))
            self._held[name] = (held + amount, holders + 1)

    def give(self, demand: Resources) -> None:
        """Count a batch out. The last one leaves exactly nothing, whatever was rounded."""
        for name, amount in demand:
            held, holders = self._held.pop(name)
            if holders > 1:
                self._held[name] = (held - amount, holders - 1)

    def clear(self) -> None:
        """Count nothing as held."""
        self._held.clear()
