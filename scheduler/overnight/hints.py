"""Commands that messages tell people to type: whole, so that they can be copied."""

from __future__ import annotations

from collections.abc import Iterable

from overnight.config import Settings
from overnight.naming import shell_word
from overnight.store.connection import hidden


def hint(settings: Settings, *words: str, task_id: str | None = None) -> str:
    """Return the command line of a verb, with the server options that were typed for this one; passwords hidden.
    `task_id` is its last argument, and none of its options whatever it begins with."""
    typed = [hidden(word) for word in settings.typed]
    if task_id is None:
        return command_line([*words, *typed])
    return command_line([*words, *typed, "--", task_id] if task_id.startswith("-") else [*words, task_id, *typed])


def command_line(words: Iterable[str]) -> str:
    """Return words as they are typed after ``overnight``, on one line that steers no terminal."""
    return " ".join(["overnight", *map(shell_word, words)])
