"""Batches as DISPATCH takes them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from overnight.store.codec import packed_batch
from overnight.store.records import Batch
from overnight.store.scripts import MOST_TASKS

#: A member of a batch: task, attempt, lineage with its length.
_MEMBER = struct.Struct(">IB33p")


def grouped(batches: Sequence[Batch]) -> Iterator[list[Batch]]:
    """Yield batches in groups of at most `MOST_TASKS` tasks."""
    group: list[Batch] = []
    size = 0
    for batch in batches:
        if not 0 < len(batch.tasks) <= MOST_TASKS or len(set(batch.tasks)) != len(batch.tasks):
            raise ValueError(f"A batch holds 1 to {MOST_TASKS} distinct tasks, not {len(batch.tasks)}.")
        if group and size + len(batch.tasks) > MOST_TASKS:
            yield group
            group, size = [], 0
        group.append(batch)
        size += len(batch.tasks)
    if group:
        yield group


def dispatched(batches: Sequence[Batch]) -> Iterator[str | bytes]:
    """Yield the arguments that the script takes for each batch: id, JSON, members in one."""
    for batch in batches:
        members = zip(batch.tasks, batch.attempts, batch.lineages, strict=True)
        yield from (batch.batch, packed_batch(batch), b"".join(_MEMBER.pack(*member) for member in members))
