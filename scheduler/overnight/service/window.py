"""How many batches may wait on the queues, and how large they are.

Only a short window of batches is on the queues (about twice the workers), so that priorities, fairness between runs
and cancelling stay effective with a million tasks pending. A run that comes while it is full waits for no place in it.
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
        return [self._offer(queue, self.share(ready)) for _ in range(number)]

    def extra_offer(self, queue: str) -> Offer:
        """Return an offer beyond the window, to a run that has just come. It is no fair share: to spread a little work
        over workers that all have something at hand costs more than to do it one after the other."""
        return self._offer(queue, MOST_TASKS_IN_BATCH)

    def share(self, ready: int) -> int:
        """Return how many of the ready tasks a batch may take: never more than a fair share for all workers."""
        return max(1, min(MOST_TASKS_IN_BATCH, ready // self.batches))

    def _offer(self, queue: str, share: int) -> Offer:
        sizes = (MOST_TASKS_IN_BATCH, BATCH_SECONDS, share, LITTLE_SECONDS, CHAIN_SECONDS)
        return Offer(secrets.token_hex(16), queue, *sizes, max(1, self.workers))
