"""What goes to the store while a batch runs: its own outcomes, and the last ones of the batch before it.

A child does not wait for the commit that ends its batch: where the next batch is at hand, it begins first.
"""

from __future__ import annotations

import logging

from overnight_worker.delivery import Delivery
from overnight_worker.heartbeat import Heartbeat
from overnight_worker.tail import NEVER

_logger = logging.getLogger("overnight.worker")


class Outgoing:
    """The deliveries of one batch and of the `earlier` one, whose lease is held until its last commit."""

    def __init__(self, own: Delivery, earlier: Delivery | None, heartbeat: Heartbeat) -> None:
        self._own = own
        self._earlier = earlier
        self._heartbeat = heartbeat
        if earlier is not None:
            earlier.hurry()

    @property
    def leases(self) -> list[tuple[str, str]]:
        """What is to be renewed, as (run id, batch), that of the batch at hand first."""
        return [delivery.lease for delivery in self._all()]

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing is left to deliver."""
        return all(delivery.is_empty for delivery in self._all())

    @property
    def may_wait(self) -> bool:
        """Tell whether what is left is one short commit, that nothing is known to be in the way of."""
        return self._earlier is None and self._own.is_short

    @property
    def due_at(self) -> float:
        """When to call `flush_due` next, by the monotonic clock."""
        return min((delivery.due_at for delivery in self._all() if delivery.due_at is not None), default=NEVER)

    def hurry(self) -> None:
        """The batch is through: do not wait for more."""
        for delivery in self._all():
            delivery.hurry()

    def flush_due(self, now: float) -> None:
        """Offer to the store what is due."""
        for delivery in self._all():
            if delivery.due_at is not None and now >= delivery.due_at:
                self._flush(delivery)
        if self._earlier is not None and self._earlier.is_empty:
            self._earlier.give_back_rest()
            self._earlier = None

    def leave_in_spool(self) -> None:
        """Give up waiting for the store."""
        for delivery in self._all():
            if not delivery.is_empty and not delivery.leave_in_spool():
                _logger.warning("results of batch %s are lost with this worker", delivery.lease[1])

    def _flush(self, delivery: Delivery) -> None:
        if not delivery.is_large:
            delivery.flush()
            return
        with self._heartbeat.beside(*self.leases):
            delivery.flush()

    def _all(self) -> list[Delivery]:
        return [self._own] if self._earlier is None else [self._own, self._earlier]
