"""Loaded values that several tasks of one process take: kept where no task can change what the next one sees."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from types import NoneType
from typing import Any

MOST_KEPT_BYTES = 512 << 20
_ATOMS = frozenset({str, int, float, bool, NoneType, bytes, complex})


class KeptValues:
    """Values that nobody can change, by whatever identifies them; the latest ones, up to a number of bytes."""

    def __init__(self, most_bytes: int = MOST_KEPT_BYTES) -> None:
        self._most_bytes = most_bytes
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._bytes = 0

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def get(self, key: Hashable) -> Any:
        """Return a value that is kept."""
        self._values.move_to_end(key)
        return self._values[key][0]

    def offer(self, key: Hashable, value: Any, size: int) -> None:
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
