"""The last lines of a task that runs for long, as its worker tells them: for people who cannot see the task's log.

They are text of bounded length, sealed and bound to run, task and attempt; nothing of them is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from overnight.certificates import last_part
from overnight.errors import BadSeal
from overnight.keyring import Keyring
from overnight.wire import Purpose, open_sealed, seal

LONGEST_TAIL_BYTES = 4096
#: With what binds and seals it.
LONGEST_RECORD_BYTES = LONGEST_TAIL_BYTES + 1024


def sealed_tail(text: str, run_id: str, task: int, attempt: int, keyring: Keyring) -> bytes:
    """Return the end of what an attempt has written so far as a record."""
    body = last_part(text, LONGEST_TAIL_BYTES).encode("utf-8", "backslashreplace")
    return seal(Purpose.TAIL, _place(run_id, task, attempt), body, keyring)


def opened_tail(record: bytes, run_id: str, task: int, attempt: int, keyring: Keyring) -> str:
    """Return the text of a record; BadSeal if it is too long, damaged, or of another task or attempt."""
    if len(record) > LONGEST_RECORD_BYTES:
        raise BadSeal(f"The last lines of a task take at most {LONGEST_RECORD_BYTES} bytes, not {len(record)}.")
    opened = open_sealed(record, Purpose.TAIL, keyring, bound=_place(run_id, task, attempt))
    return opened.body.decode("utf-8", "backslashreplace")


def added_to(told: str, text: str) -> str | None:
    """Return what a text holds beyond what was told of it; None if the two do not meet.

    Both are ends of what one attempt has written, `text` the later one. Lines that repeat themselves without end may be
    taken for those that were told.
    """
    if not told:
        return text
    start = 0
    for line in told.splitlines(keepends=True):
        if text.startswith(told[start:]):
            return text[len(told) - start :]
        start += len(line)
    return None


def _place(run_id: str, task: int, attempt: int) -> Mapping[str, Any]:
    return {"run": run_id, "task": task, "attempt": attempt}
