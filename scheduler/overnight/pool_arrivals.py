"""The large results that a task takes, in the process where it runs: mapped as they came, loaded when they are needed.

What can be changed is loaded anew for each task, so that no task sees what another did to its arguments; that costs no
copy of buffers that are kept apart (`parcels`). A value that nobody can change is loaded once for all tasks of the
process, and kept, the latest ones first, up to a bound (`kept_values`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from overnight.invoke import Outcome
from overnight.kept_values import KeptValues
from overnight.parcels import Layout, content_in, open_content, open_parcel


class Arrivals:
    """Where the results lie that came with one task, by key: a descriptor, or the bytes, and what is there."""

    def __init__(self, places: Mapping[int, tuple[int | bytearray, Layout]], kept: KeptValues) -> None:
        self._places = dict(places)
        self._kept = kept

    def value(self, key: int) -> Any:
        """Return the value of a result. Raises what its class raises."""
        if key in self._kept:
            return self._kept.get(key)
        place, layout = self._places[key]
        outcome = _opened(place, layout)
        if not outcome.ok:
            raise outcome.value
        self._kept.offer(key, outcome.value, layout.total)
        return outcome.value

    @contextmanager
    def at_hand(self) -> Iterator[None]:
        """Let `arrived` find these."""
        _at_hand.append(self)
        try:
            yield
        finally:
            _at_hand.remove(self)

    def __reduce__(self) -> tuple[Callable[..., Arrivals], tuple[Any, ...]]:
        # For a process that inherits no descriptors.
        places = {key: _read(place, layout) for key, (place, layout) in self._places.items()}
        return Arrivals, (places, KeptValues())


def _opened(place: int | bytearray, layout: Layout) -> Outcome:
    return open_parcel(place, layout) if isinstance(place, int) else open_content(memoryview(place), layout)


def _read(place: int | bytearray, layout: Layout) -> tuple[bytearray, Layout]:
    if isinstance(place, int):
        return bytearray(content_in(place, layout)), layout.moved(0)
    return place, layout


_at_hand: list[Arrivals] = []


def arrived(key: int) -> Any:
    """Return the value of a result that came with the task whose arguments are being loaded."""
    return _at_hand[-1].value(key)
