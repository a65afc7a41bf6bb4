"""The batches in flight: which batch holds which task, and how many batches each queue has outstanding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from overnight.core.rulebook import Resources


@dataclass(slots=True)
class Batch:
    """A batch in flight: its tasks in order, how many it still holds, and what it holds of the resources.

    `stored` tells that it was read from the stored truth, not dispatched by this core.
    """

    id: str
    queue: str | None
    tasks: Sequence[int]
    resources: Resources = ()
    claimed: bool = False
    stored: bool = False
    left: int = 0


class Flights:
    """All batches in flight, by id and by task. A batch leaves when it holds no task any more."""

    def __init__(self) -> None:
        self._batches: dict[str, Batch] = {}
        self._holders: dict[int, Batch] = {}
        self._outstanding: Counter[str | None] = Counter()

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(list(self._batches.values()))

    def get(self, batch_id: str) -> Batch | None:
        """Return the batch if it is in flight."""
        return self._batches.get(batch_id)

    def holder(self, task: int) -> Batch | None:
        """Return the batch that holds the task."""
        return self._holders.get(task)

    def held_tasks(self) -> Sequence[int]:
        """Return every task that a batch holds."""
        return list(self._holders)

    def held(self, batch: Batch) -> list[int]:
        """Return the tasks that the batch still holds, in its order."""
        holders = self._holders
        return [task for task in batch.tasks if holders.get(task) is batch]

    def launch(self, batch: Batch) -> None:
        """Let the batch hold its tasks that no other batch holds; without any it does not take off."""
        holders = self._holders
        for task in batch.tasks:
            if task not in holders:
                holders[task] = batch
                batch.left += 1
        if batch.left:
            self._batches[batch.id] = batch
            self._outstanding[batch.queue] += 1

    def release(self, task: int) -> Batch | None:
        """Take the task from the batch that holds it; return the batch if that was its last one."""
        batch = self._holders.pop(task, None)
        if batch is None:
            return None
        batch.left -= 1
        if batch.left:
            return None
        del self._batches[batch.id]
        self._outstanding[batch.queue] -= 1
        return batch

    def outstanding(self, queue: str | None) -> int:
        """Return how many batches of this queue are in flight; None means every queue."""
        return len(self._batches) if queue is None else self._outstanding[queue]

    def clear(self) -> None:
        """Forget all batches."""
        self._batches.clear()
        self._holders.clear()
        self._outstanding.clear()
