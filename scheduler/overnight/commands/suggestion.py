"""What to say about a task id that nobody knows: the nearest one, those that contain it, or some that there are."""

from __future__ import annotations

from collections.abc import Sequence

from overnight.errors import nearest
from overnight.naming import shown

_MOST_NAMED = 5


def ending_about(task_id: str, known: Sequence[str]) -> str:
    """Return the end of a sentence about an unknown id: ``"; did you mean 'part-1'?"``, or which ids there are."""
    near = nearest(task_id, known)
    if near != ".":
        return near
    containing = [name for name in known if task_id.casefold() in name.casefold()]
    if containing:
        return f"; did you mean {_named(containing, 'or')}?"
    return f"; there are {_named(known, 'and')}." if known else "; there are none."


def _named(ids: Sequence[str], word: str) -> str:
    names = [repr(shown(task_id)) for task_id in ids[:_MOST_NAMED]]
    more = len(ids) - len(names)
    names += [f"{more} more"] if more else []
    return f" {word} ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
