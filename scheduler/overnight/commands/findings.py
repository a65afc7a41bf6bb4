"""What `doctor` finds: one value for each thing that was looked at, and the guard that makes one of an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from overnight.errors import OvernightError

#: A note tells of what was not looked at, and how it can be.
OK, NOTE, WARNING, FAULT = "ok", "note", "warning", "fault"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `status` is what the command exits with if it is a fault."""

    what: str
    verdict: str
    text: str
    status: int = 0


def guarded(what: str, look: Callable[[], Finding]) -> Finding:
    """Return what a look finds; an error of overnight is a fault, in its own words."""
    try:
        return look()
    except OvernightError as error:
        return Finding(what, FAULT, str(error), error.exit_status)


def all_guarded(what: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield what a look finds, until an error of overnight ends it with a fault."""
    try:
        yield from look()
    except OvernightError as error:
        yield Finding(what, FAULT, str(error), error.exit_status)
