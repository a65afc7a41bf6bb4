"""Which results of finished tasks a run adopts as its own, and where they lie: attempts never mix in one run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from overnight.cache import FileTaskCache, TaskCache
from overnight.graph_order import dependencies_first
from overnight.inspection import Decisions
from overnight.messages import StoredResult
from overnight.pickling import dumps
from overnight.results import FLAG
from overnight.store.ports import ReadingStore
from overnight.task import Task, TaskDesc


def adopted_results(decisions: Decisions, cache: TaskCache) -> dict[Task, StoredResult]:
    """Return where the results of completed tasks lie: their flags, or the values that a foreign cache gave."""
    if not isinstance(cache, FileTaskCache):
        return {task: stored_inline(decisions.record(task).result) for task in decisions.completed}
    adopted: dict[Task, StoredResult] = {}
    for task in decisions.completed:
        header = decisions.header(task)
        if header is not None:
            digest = bytes.fromhex(header.body_sha256)
            adopted[task] = StoredResult(digest, header.body_bytes, locator=FLAG + cache.place(task))
    return adopted


def stored_inline(value: Any) -> StoredResult:
    """Return the record of a result that travels inside it."""
    body = dumps(value)
    return StoredResult(hashlib.sha256(body).digest(), len(body), body=body)


def fitting(
    store: ReadingStore,
    run_id: str,
    held: Mapping[Task, int],
    descs: Sequence[TaskDesc],
    adopted: Mapping[Task, StoredResult],
) -> dict[Task, StoredResult]:
    """Return which of the results of `descs` may enter a run that holds the tasks `held`, by number, already.

    Another client put those there by what it knew. One that runs there, or has another result there than the one that
    a result was computed from, makes that result one of another attempt.
    """
    numbers = {dep: held[dep] for desc in descs if desc.task in adopted for dep in desc.deps if dep in held}
    recorded = dict(zip(numbers, store.read_digests(run_id, numbers.values()), strict=True)) if numbers else {}
    same = {dep for dep, digest in recorded.items() if dep in adopted and adopted[dep].digest == digest}
    of = {desc.task: desc.deps for desc in descs}
    fits: dict[Task, StoredResult] = {}
    for task in dependencies_first(descs):
        if task in adopted and all(dep in fits if dep in of else dep in same or dep not in held for dep in of[task]):
            fits[task] = adopted[task]
    return fits
