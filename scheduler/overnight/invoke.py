"""Run one task: the one place where a user's function is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended. `value` is the result, or the exception if not `ok`; times are seconds since the epoch."""

    ok: bool
    value: Any
    started: float
    seconds: float
    peak_memory: int = 0
