"""The large results that a task takes, in the process where it runs: mapped as they came, loaded when they are needed.

What can be changed is loaded anew for each task, so that no task sees what another did to its arguments; that costs no
copy of buffers that are kept apart (`parcels`). A value that nobody can change is loaded once for all tasks of the
process, and kept, the latest ones first, up to `MOST_KEPT_BYTES`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import NoneType
from typing import Any

from overnight.invoke import Outcome
from overnight.parcels import Layout, content_in, open_content, open_parcel

MOST_KEPT_BYTES = 512 << 20
_ATOMS = frozenset({str, int, float, bool, NoneType, bytes, complex})


class KeptValues:
    """Values that nobody can change, by key."""

    def __init__(self, most_bytes: int = MOST_KEPT_BYTES) -> None:
        self._most_bytes = most_bytes
        self._values: OrderedDict[int, tuple[Any, int]] = OrderedDict()
        self._bytes = 0

    def __contains__(self, key: int) -> bool:
        return key in self._values

    def get(self, key: int) -> Any:
        """Return a value that is kept."""
        self._values.move_to_end(key)
        return self._values[key][0]

    def offer(self, key: int, value: Any, size: int) -> None:
        """Keep a value of so many bytes, if nobody can change it and it is not too large."""
        if size > self._most_bytes or not _is_unchangeable(value):
            return
        self._values[key] = (value, size)
        self._bytes += size
        while self._bytes > self._most_bytes:
            self._bytes -= self._values.popitem(last=False)[1][1]


def _is_unchangeable(value: Any) -> bool:
    kind = type(value)
    return kind in _ATOMS or (kind in (tuple, frozenset) and _ATOMS.issuperset(map(type, value)))


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
