"""Arguments that many tasks share are stored once per run, not once per task (BEHAVIOUR QX8).

A value that is passed as a whole (a positional or keyword argument) to more than one task is pickled once and its
place is taken by a `SharedArgument`, which names it by the digest of its bytes. So is a large one at its first sight:
one that is made anew for each task has the same digest if it is equal. What is small, or holds a Task, stays where it
is.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from overnight.arguments import value_dependencies
from overnight.errors import FAULTS_OF_OBJECTS
from overnight.pickling import LARGEST_INPUT_BYTES, dumps
from overnight.task import Task, TaskDesc

SMALLEST_SHARED_BYTES = 512
#: From this size on, as Python tells it without looking inside, a value need not be seen twice.
LARGE_BYTES = 16 * 1024
_NEVER_SHARED = (type(None), bool, int, float, complex, Task)
_SHARED_IF_LONG = (str, bytes)


@dataclass(frozen=True, slots=True)
class SharedArgument:
    """Stands for an argument that is stored once per run, under the hex digest of its bytes."""

    digest: str


class SharedArguments:
    """Finds arguments that several tasks share, by identity or, if they are large, by content; pickles each once.

    It holds a reference to every value it has judged, so that no identity is used twice.
    """

    def __init__(self) -> None:
        self._seen: dict[int, Any] = {}
        self._judged: dict[int, SharedArgument | None] = {}
        self.blobs: dict[str, bytes] = {}

    def observe(self, descs: Iterable[TaskDesc]) -> None:
        """Look at the arguments of tasks that are about to be sent: the second sight of a value makes it shared."""
        for desc in descs:
            for value in (*desc.args, *desc.kwargs.values()):
                if not _may_be_shared(value):
                    continue
                if (id(value) in self._seen or _is_large(value)) and id(value) not in self._judged:
                    self._judged[id(value)] = self._judge(value)
                self._seen[id(value)] = value

    def replaced(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any], list[str]]:
        """Return the arguments with shared ones replaced, and the digests of these."""
        if not self._judged:
            return list(args), dict(kwargs), []
        digests: list[str] = []

        def stand_in(value: Any) -> Any:
            shared = self._judged.get(id(value))
            if shared is None or self._seen.get(id(value)) is not value:
                return value
            digests.append(shared.digest)
            return shared

        return [stand_in(value) for value in args], {name: stand_in(value) for name, value in kwargs.items()}, digests

    def _judge(self, value: Any) -> SharedArgument | None:
        try:
            if value_dependencies([value], {}):
                return None
            data = dumps(value)
        except FAULTS_OF_OBJECTS:  # the task's own submission names what cannot be pickled
            return None
        if not SMALLEST_SHARED_BYTES <= len(data) <= LARGEST_INPUT_BYTES:  # and what is too large
            return None
        digest = hashlib.sha256(data).hexdigest()
        self.blobs.setdefault(digest, data)
        return SharedArgument(digest)


def put_back(
    args: Sequence[Any], kwargs: Mapping[str, Any], values: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments with each `SharedArgument` replaced by its value, looked up by digest."""

    def original(value: Any) -> Any:
        return values[value.digest] if type(value) is SharedArgument else value

    return [original(value) for value in args], {name: original(value) for name, value in kwargs.items()}


def _is_large(value: Any) -> bool:
    try:
        return sys.getsizeof(value, 0) >= LARGE_BYTES
    except FAULTS_OF_OBJECTS:  # a user's class may raise anything
        return False


def _may_be_shared(value: Any) -> bool:
    if isinstance(value, _SHARED_IF_LONG):
        return len(value) >= SMALLEST_SHARED_BYTES
    return not isinstance(value, _NEVER_SHARED)
