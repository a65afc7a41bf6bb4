"""Learned durations of functions, shared by all runs of this scheduler and kept in the store between runs.

The core knows functions by number; this is where names get theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class LearnedDurations:
    """Numbers for function names, and what is known of how long each function takes (seconds, observations)."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []
        self._known: dict[str, tuple[float, int]] = {}

    def number(self, name: str) -> int:
        """Return the number of a function."""
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = len(self._names)
            self._names.append(name)
        return number

    def name(self, number: int) -> str:
        """Return the name of a function."""
        return self._names[number]

    def take(self, stored: Mapping[str, tuple[float, int]]) -> None:
        """Take over what the store knows."""
        self._known.update(stored)

    def of(self, numbers: Iterable[int]) -> dict[int, tuple[float, int]]:
        """Return what is known of these functions; of others nothing is."""
        names = {number: self._names[number] for number in numbers}
        return {number: self._known[name] for number, name in names.items() if name in self._known}

    def learn(self, durations: Mapping[int, tuple[float, int]]) -> None:
        """Take over what a run's core has learned."""
        for number, known in durations.items():
            if known[1] >= self._known.get(self._names[number], (0.0, 0))[1]:
                self._known[self._names[number]] = known

    def given(self) -> dict[str, tuple[float, int]]:
        """Return everything known, for the store."""
        return dict(self._known)
