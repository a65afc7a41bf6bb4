"""Notes of processes that end as soon as they are started: one file beside the lock of a slot, for as long as it holds.

The keeper writes the note of a slot with each such end, and removes it when a process of the slot lasts. It stays when
the keeper ends, for whoever comes to look why nothing was done.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from overnight.naming import shown

#: So many early ends in a row are no accident.
LEAST_IN_A_ROW = 3


@dataclass(frozen=True, slots=True)
class EarlyEnds:
    """How often in a row a slot's process ended early; of the last one when (seconds since 1970), how, its words."""

    slot: str
    number: int
    at: float
    how: str
    log: str
    line: str

    def sentence(self, alike: int = 0) -> str:
        """Return what people are told, escaped and without a full stop; so many other slots fare alike."""
        who = f"{self.slot} (and {alike} more like it)" if alike else self.slot
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.at))
        words = f"ends with: {shown(self.line).rstrip('.')}" if self.line else "says nothing of it"
        return (
            f"{who} ended as soon as it was started, {self.number} times in a row, the last time at {at} with "
            f"{self.how}; its log {shown(self.log)} {words}"
        )

    def write_to(self, path: Path) -> None:
        """Put this in the place of the slot's former note."""
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        draft.write_text(json.dumps(asdict(self)), encoding="ascii")
        draft.replace(path)


def early_ends_at(path: Path) -> EarlyEnds | None:
    """Return the note of a slot; None if there is none, or none that can be read: it only adds to what is told."""
    try:
        return EarlyEnds(**json.loads(path.read_text(encoding="ascii")))
    except (OSError, ValueError, TypeError):
        return None
