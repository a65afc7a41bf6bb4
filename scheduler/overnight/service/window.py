"""How many batches may wait on the queues, and how large they are.

Only a short window of batches is on the queues (about twice the workers), so that priorities, fairness between runs
and cancelling stay effective with a million tasks pending.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from overnight.core.events import Offer

BATCHES_PER_WORKER = 2
#: A queue without a worker gets this many batches, so that the first worker finds something to do.
UNATTENDED_WINDOW = 2
#: Expected work in one batch, in seconds: long beside the cost of a round trip, short beside a lease.
BATCH_SECONDS = 0.25
#: Less expected work than this is not spread over several batches.
LITTLE_SECONDS = 0.005
MOST_TASKS_IN_BATCH = 500
#: Expected work in a batch that follows a critical path: long beside the time for which it may wait before it starts.
CHAIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Window:
    """The batches that a queue may hold, given the workers that serve it."""

    workers: int

    @property
    def batches(self) -> int:
        """How many batches may be queued or running at once."""
        return self.workers * BATCHES_PER_WORKER if self.workers else UNATTENDED_WINDOW

    def offers(self, queue: str, number: int, ready: int) -> list[Offer]:
        """Return so many offers of room for batches, to a run that has `ready` tasks for the queue."""
        sizes = (MOST_TASKS_IN_BATCH, BATCH_SECONDS, self.share(ready), LITTLE_SECONDS, CHAIN_SECONDS)
        return [Offer(secrets.token_hex(16), queue, *sizes, max(1, self.workers)) for _ in range(number)]

    def share(self, ready: int) -> int:
        """Return how many of the ready tasks a batch may take: never more than a fair share for all workers."""
        return max(1, min(MOST_TASKS_IN_BATCH, ready // self.batches))
