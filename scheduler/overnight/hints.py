"""Commands that messages tell people to type: whole, so that they can be copied."""

from __future__ import annotations

import shlex

from overnight.config import Settings
from overnight.store.connection import hidden


def hint(settings: Settings, *words: str) -> str:
    """Return the command line of a verb, with the server options that were typed for this one; passwords hidden."""
    return shlex.join(["overnight", *words, *(hidden(word) for word in settings.typed)])
