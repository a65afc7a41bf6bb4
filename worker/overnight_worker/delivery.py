"""Outcomes on their way to the store: gathered, made into reports, committed in groups, again and again if need be.

A group goes when its first outcome has waited for the streaming interval, when it is large, or when the batch is
through. A commit that fails has an unknown outcome: the same reports are offered again, with growing pauses, for as
long as the outage lasts, and meanwhile lie in the spool. What the store no longer knows stays in the spool.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from overnight import failpoints
from overnight.errors import DamagedRun, UnknownRun, Unreachable
from overnight.store.records import Acceptance, CommitReply, Report
from overnight_worker.batch import ClaimedBatch, Member, Stage
from overnight_worker.post import Post
from overnight_worker.report import Reporter
from overnight_worker.spool import Spool, Spooled

STREAMING_SECONDS = 0.05
MOST_IN_GROUP = 256
MOST_BYTES_IN_GROUP = 4 << 20
LARGE_BYTES = 16 << 20
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0
_logger = logging.getLogger("overnight.worker")


class Delivery:
    """The outcomes of one batch. `lease_lost`, `stop` and `superseded` are what the store has said so far."""

    def __init__(self, post: Post, batch: ClaimedBatch, reporter: Reporter, spool: Spool) -> None:
        self.lease_lost = False
        self.stop = False
        self.superseded = 0
        self._post = post
        self._batch = batch
        self._reporter = reporter
        self._spool = spool
        self._waiting: list[Member] = []
        self._waiting_bytes = 0
        self._made: list[Report] = []
        self._spooled: Path | None = None
        self._due_at: float | None = None
        self._pause = 0.0

    @property
    def lease(self) -> tuple[str, str]:
        """The lease that it goes under: run id and batch."""
        return self._batch.run_id, self._batch.claim.batch

    @property
    def is_short(self) -> bool:
        """Tell whether one commit of what waits ends it, as far as is known."""
        untold = self._made or self._pause or self.lease_lost or self.stop
        return bool(self._waiting) and not untold and len(self._waiting) <= MOST_IN_GROUP and not self.is_large

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing is left to deliver."""
        return not self._waiting and not self._made

    @property
    def due_at(self) -> float | None:
        """When to call `flush` next, by the monotonic clock; None if there is nothing to deliver."""
        return self._due_at

    @property
    def is_large(self) -> bool:
        """Tell whether what waits may take long to write."""
        return self._waiting_bytes >= LARGE_BYTES

    def add(self, member: Member) -> None:
        """Take in a member that has ended."""
        self._waiting.append(member)
        self._waiting_bytes += len(member.ended.body) if member.ended is not None else 0
        now = time.monotonic()
        if self._due_at is None:
            self._due_at = now + STREAMING_SECONDS
        if len(self._waiting) >= MOST_IN_GROUP or self._waiting_bytes >= MOST_BYTES_IN_GROUP:
            self._due_at = max(now, self._due_at - STREAMING_SECONDS) if self._pause else now

    def hurry(self) -> None:
        """The batch is through: do not wait for more, unless the store is out of reach."""
        if self._due_at is not None and not self._pause:
            self._due_at = 0.0

    def flush(self) -> None:
        """Offer what there is to the store."""
        try:
            if not self._made:
                self._made = self._reporter.reports(self._batch, self._waiting[:MOST_IN_GROUP])
                del self._waiting[:MOST_IN_GROUP]
                self._waiting_bytes = 0
            self._take(self._committed())
        except Unreachable as error:
            self._wait_for_store(error)

    def leave_in_spool(self) -> bool:
        """Give up waiting for the store; tell whether all that is left lies in the spool."""
        if self._waiting:
            try:
                self._made += self._reporter.reports(self._batch, self._waiting)
                self._waiting.clear()
            except Unreachable:
                return False
        self._keep()
        return self._spooled is not None

    def give_back_rest(self) -> None:
        """Give back what goes back, when all else is delivered: also what a report has found void only now."""
        if not self.lease_lost:
            self.give_back([member.task for member in self._batch.members if member.stage is Stage.RETURNED])

    def give_back(self, tasks: Sequence[int]) -> None:
        """Give tasks of the batch back to the store."""
        if not tasks:
            return
        run_id, batch = self.lease
        try:
            failpoints.reach("worker.in_give_back")
            self._post.store.give_back(run_id, batch, self._post.instance, tasks)
        except (Unreachable, UnknownRun) as error:
            _logger.warning("tasks could not be given back, their lease runs out: %s", error)

    def _committed(self) -> CommitReply:
        batch = self._batch
        seconds = self._post.settings.lease_seconds
        try:
            failpoints.reach("worker.before_commit")
            reply = self._post.store.commit(batch.run_id, batch.claim.batch, self._post.instance, self._made, seconds)
        except (UnknownRun, DamagedRun) as error:
            _logger.warning("results of batch %s find no place: %s", batch.claim.batch, error)
            return CommitReply((), lease_lost=True, stop=True, known=False)
        failpoints.reach("worker.after_commit")
        return reply

    def _take(self, reply: CommitReply) -> None:
        self.lease_lost = self.lease_lost or reply.lease_lost
        self.stop = self.stop or reply.stop
        refused = [answer for answer in reply.acceptances if answer is Acceptance.SUPERSEDED]
        self.superseded += len(refused)
        if refused:
            _logger.info("%d results of batch %s were superseded", len(refused), self._batch.claim.batch)
        if reply.known:
            self._spool.remove(self._spooled)
        else:
            self._keep()
            _logger.warning("the server does not take results of run %s: they stay in the spool", self._batch.run_id)
        if self._pause:
            _logger.info("the server answers again: %d results delivered", len(self._made))
        self._made, self._spooled, self._pause = [], None, 0.0
        self._due_at = time.monotonic() if self._waiting else None

    def _wait_for_store(self, error: Unreachable) -> None:
        if not self._pause:
            _logger.warning("finished results wait for the server: %s", error)
            self._keep()
        self._pause = min(LONGEST_PAUSE_SECONDS, self._pause * 2 or FIRST_PAUSE_SECONDS)
        self._due_at = time.monotonic() + self._pause

    def _keep(self) -> None:
        if self._spooled is None and self._made:
            batch = self._batch
            self._spooled = self._spool.keep(
                Spooled(batch.run_id, batch.claim.batch, self._post.instance, tuple(self._made))
            )
