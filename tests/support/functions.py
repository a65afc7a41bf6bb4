"""Functions of tasks, at module level, so that any process that can import this module can run them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any


def noop() -> None:
    """Do nothing."""


def one_more(*values: int) -> int:
    """Return one more than the largest of `values`; 0 without any."""
    return max(values, default=-1) + 1


def total(values: Sequence[int]) -> int:
    return sum(values)


def value_of(value: Any, _before: Any = None) -> Any:
    return value


def pause(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def total_size(parts: Sequence[bytes]) -> int:
    return sum(map(len, parts))


def zeros(size: int) -> bytes:
    """Return so many bytes: what RQ runs must be a function."""
    return bytes(size)
