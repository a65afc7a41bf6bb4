"""Whether two replies, or two records, say the same. Times may differ by what their texts leave out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

from overnight.store.codec import Cursor
from overnight.store.records import EpochHeld, RunEvent, RunSnapshot

SECONDS = 1.1e-3


def alike(one: Any, other: Any) -> bool:
    """Tell whether two values are the same but for the last digits of times."""
    if one is other or one == other:
        return True
    if isinstance(one, float) and isinstance(other, float | int):
        return abs(one - other) <= SECONDS
    if is_dataclass(one):
        return type(one) is type(other) and all(
            alike(getattr(one, field.name), getattr(other, field.name)) for field in fields(one)
        )
    if isinstance(one, Mapping):
        return isinstance(other, Mapping) and one.keys() == other.keys() and all(alike(one[k], other[k]) for k in one)
    if isinstance(one, Sequence) and not isinstance(one, str | bytes | bytearray):
        return isinstance(other, Sequence) and len(one) == len(other) and all(map(alike, one, other))
    return False


def comparable(reply: Any) -> Any:
    """Return a reply in the form in which those of two stores are the same."""
    if isinstance(reply, RunEvent):
        return told(reply)
    if isinstance(reply, RunSnapshot):
        flights = sorted(reply.flights, key=lambda flight: flight.batch)
        return replace(reply, flights=flights, cursor=str(Cursor.parse(reply.cursor).number))
    if isinstance(reply, EpochHeld):
        return replace(reply, seconds=math.ceil(reply.seconds * 1000) / 1000)
    if isinstance(reply, list | tuple):
        return [comparable(one) for one in reply]
    return reply


def told(event: RunEvent) -> RunEvent:
    """Return an event with its number as its cursor, and with its tasks in one order."""
    number = str(Cursor.parse(event.cursor).number)
    return replace(
        event, cursor=number, tasks=tuple(sorted(event.tasks)), verdicts=tuple(sorted(event.verdicts, key=str))
    )
