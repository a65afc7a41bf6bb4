"""Limits over all runs: a scheduler tells them, with what else it says of itself, to all that explain why a task waits.

They are one word at the end of its description: ``db=1,gpu=4``, or ``-`` for none. A scheduler of an older version says
nothing of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, unquote

_NONE = "-"
#: Where in a description the word stands.
_PLACE = 3


def limits_word(limits: Mapping[str, float]) -> str:
    """Return limits as one word."""
    return ",".join(f"{quote(name, safe='')}={amount!r}" for name, amount in sorted(limits.items())) or _NONE


def told_limits(description: str) -> Mapping[str, float] | None:
    """Return the limits that a scheduler of this description has over all runs; None if it does not say."""
    words = description.split(" ")
    if len(words) <= _PLACE:
        return None
    limits: dict[str, float] = {}
    for item in words[_PLACE].split(",") if words[_PLACE] != _NONE else ():
        name, _, amount = item.partition("=")
        try:
            limits[unquote(name)] = float(amount)
        except ValueError:
            return None
    return limits


def limits_text(limits: Mapping[str, float]) -> str:
    """Return limits as people read them."""
    return ", ".join(f"{name}={amount:g}" for name, amount in sorted(limits.items())) or "none"


def excess_text(task_id: str, amount: float, name: str, limit: float) -> str:
    """Say that a task asks for more than there is for all runs. `task_id` empty: it is not known which."""
    who = f"Task {task_id}" if task_id else "A task"
    return (
        f"{who} needs {amount:g} of {name!r}, and this scheduler has only {limit:g} for all runs: it never "
        "starts. Cancel the run, or start the scheduler with a higher --limit."
    )
