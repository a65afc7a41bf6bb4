"""Reading digests of results, 32 bytes a task in one value: neighbours are read in one piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from overnight.store.codec import NO_DIGEST

#: Digests of tasks so near to each other are read together with those between; so many at most in one piece.
_NEAR = 16
_MOST_IN_PIECE = 8192


class DigestRanges:
    """The pieces of the value that hold the digests of these tasks."""

    def __init__(self, tasks: Iterable[int]) -> None:
        self._tasks = list(tasks)
        self._spans = list(_spans(sorted(set(self._tasks))))

    def commands(self, key: str) -> list[tuple[str | int, ...]]:
        """Return the commands that read the pieces."""
        return [("GETRANGE", key, 32 * first, 32 * last + 31) for first, last in self._spans]

    def digests(self, pieces: Sequence[bytes]) -> list[bytes]:
        """Return the digests in the order of the tasks, zeros where there is none."""
        found: dict[int, bytes] = {}
        for (first, last), piece in zip(self._spans, pieces, strict=True):
            for task in range(first, last + 1):
                found[task] = piece[32 * (task - first) : 32 * (task - first + 1)]
        return [found[task] or NO_DIGEST for task in self._tasks]


def _spans(tasks: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield first and last of each group of near ones; `tasks` are in order."""
    if not tasks:
        return
    first = last = tasks[0]
    for task in tasks[1:]:
        if task - last > _NEAR or task - first >= _MOST_IN_PIECE:
            yield first, last
            first = task
        last = task
    yield first, last
