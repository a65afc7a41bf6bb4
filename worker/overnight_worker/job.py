"""Run one batch: look at its run, claim it, open what was claimed, run it, deliver what came of it.

RQ names `run_batch` in its jobs; overnight's own worker reads run and batch from the job and calls `Foreman.run`
instead. A worker that does not fit a run (Python minor, protocol, keys) never claims from it: the entry goes back to
the end of its queue, and one line says what does not fit.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from dataclasses import dataclass

from overnight import failpoints
from overnight.errors import (
    BadSeal,
    DamagedRun,
    ForeignRecord,
    OvernightError,
    UnknownRun,
    Unreachable,
    UsageError,
    remedy,
)
from overnight.messages import RunContext, TaskFacts, TaskMessage
from overnight.naming import shown
from overnight.store.records import QUARANTINED, Claim, ClaimRefused, RunRecord
from overnight.transport.port import Entry, Transport
from overnight.wire import PROTOCOL, PYTHON_MINOR
from overnight_worker.ahead import Desk, EmptyDesk
from overnight_worker.batch import ClaimedBatch, Member, Stage
from overnight_worker.delivery import Delivery
from overnight_worker.first_word import say_it_works
from overnight_worker.heartbeat import Heartbeat
from overnight_worker.inputs import Inputs
from overnight_worker.nursery import Nursery
from overnight_worker.orders import Orders
from overnight_worker.post import Post
from overnight_worker.report import Reporter, failure
from overnight_worker.session import Session
from overnight_worker.spool import Spool

MOST_KNOWN_RUNS = 64
#: How long a worker that does not fit leaves an entry that it put back to others.
UNFIT_PAUSE_SECONDS = 1.0
_logger = logging.getLogger("overnight.worker")


def run_batch(run_id: str, batch: str) -> None:
    """Refuse to run under RQ's own worker, which has neither leases nor a place for results."""
    raise UsageError(f"Batch {batch} of run {run_id} was taken by a plain RQ worker. Start `overnight worker` for it.")


@dataclass(frozen=True, slots=True)
class _KnownRun:
    """What is kept of a run from batch to batch; `unfit` says why this worker takes no part in it."""

    context: RunContext | None
    reporter: Reporter | None
    unfit: str | None = None


class Foreman:
    """Runs batches, one after the other, with one child."""

    def __init__(self, post: Post, transport: Transport, heartbeat: Heartbeat, spool: Spool) -> None:
        self.nursery = Nursery(post)
        self._post = post
        self._transport = transport
        self._heartbeat = heartbeat
        self._spool = spool
        self._inputs = Inputs(post)
        self._runs: OrderedDict[str, _KnownRun] = OrderedDict()
        self._sequence = 0
        self._unfinished: Session | None = None

    def run(self, entry: Entry, desk: Desk | None = None) -> None:
        """Run what the entry names, if there is still something to run. Errors of the store are waited out.

        The `desk` is cleared when the child has something to do, and before the entry is put back. The last outcomes
        may be left for the next call, or for `finish`.
        """
        desk = desk or EmptyDesk()
        try:
            known = self._known(entry.run_id)
        except UnknownRun:
            _logger.info("batch %s: the run %s is gone", entry.batch, entry.run_id)
            return
        except Unreachable as error:
            # The scheduler pushes the entry again.
            _logger.warning("batch %s is left: %s", entry.batch, error)
            return
        if known.context is None or known.reporter is None:
            self.finish()
            desk.clear()
            self.put_back(entry)
            time.sleep(UNFIT_PAUSE_SECONDS)
            return
        claim = self._claim(entry, desk)
        if claim is not None:
            say_it_works()
            self._work_on(claim, known.context, known.reporter, desk)

    @property
    def is_unfinished(self) -> bool:
        """Tell whether outcomes of the last batch are left to deliver."""
        return self._unfinished is not None

    def finish(self) -> None:
        """Deliver what the last batch has left. It is due before anything that may take long."""
        session, self._unfinished = self._unfinished, None
        if session is not None:
            session.finish()

    def _claim(self, entry: Entry, desk: Desk) -> Claim | None:
        self._sequence += 1
        seconds = self._post.settings.lease_seconds
        while self._post.stopping.level == 0:
            try:
                claim = self._post.store.claim(entry.run_id, entry.batch, self._post.instance, self._sequence, seconds)
                failpoints.reach("worker.after_claim")
            except UnknownRun:
                return None
            except DamagedRun as error:
                _logger.warning("batch %s is left, its run %s is damaged: %s", entry.batch, entry.run_id, error)
                return None
            except Unreachable as error:
                # The same sequence number gets the same answer, should the claim have been carried out.
                self._heartbeat.tell_outage(f"claim of batch {entry.batch} waits: {error}")
                self.finish()
                time.sleep(0.5)
                continue
            if isinstance(claim, ClaimRefused) and claim.reason == QUARANTINED:
                # Before the next entry is taken, the store is asked which queues to leave alone.
                self._heartbeat.due_at = 0.0
                desk.clear()
                self.put_back(entry)
                return None
            if isinstance(claim, ClaimRefused):
                _logger.debug("batch %s: %s", entry.batch, claim.reason)
                return None
            return claim
        return None

    def _work_on(self, claim: Claim, context: RunContext, reporter: Reporter, desk: Desk) -> None:
        batch, delivery = self._opened(claim, reporter)
        while True:
            try:
                self._inputs.check_lineage(batch)
                break
            except DamagedRun as error:
                _logger.warning("batch %s is left, its run %s is damaged: %s", claim.batch, batch.run_id, error)
                return
            except Unreachable as error:
                self._heartbeat.tell_outage(f"batch {claim.batch} waits: {error}")
                self.finish()
                self._heartbeat.beat((batch.run_id, claim.batch))
                if self._post.stopping.level >= 2:
                    return
                time.sleep(0.5)
            except UnknownRun:
                return
        for member in self._inputs.look_first(batch, reporter.local_flags):
            delivery.add(member)
        orders = Orders(self._post, context, self._inputs)
        last, self._unfinished = self._unfinished, None
        earlier = last.delivery if last is not None else None
        session = Session(self._post, batch, context, self.nursery, orders, delivery, self._heartbeat, desk, earlier)
        if not session.run():
            self._unfinished = session

    def _opened(self, claim: Claim, reporter: Reporter) -> tuple[ClaimedBatch, Delivery]:
        """Open the messages of a claim; a task whose message is not to be believed fails."""
        run_id = claim.run.run_id
        members, damaged = [], []
        rows = zip(claim.tasks, claim.attempts, claim.lineages, claim.messages, strict=True)
        for position, (task, attempt, lineage, sealed) in enumerate(rows):
            try:
                message = TaskMessage.opened(sealed, run_id, task, self._post.keyring)
                members.append(Member(position, task, attempt, lineage, message.facts, message.payload))
            except (BadSeal, ValueError, TypeError) as error:
                _logger.warning("the message of task %d of run %s is refused: %s", task, run_id, error)
                member = Member(position, task, attempt, lineage, _unreadable(task), b"")
                why = f"The task's message is refused: {error}" if sealed else "The server has lost the task's message."
                member.stage, member.ended = Stage.ENDED, failure(BadSeal(f"{why} {remedy(error)}"))
                members.append(member)
                damaged.append(member)
        batch = ClaimedBatch(claim, members)
        delivery = Delivery(self._post, batch, reporter, self._spool)
        for member in damaged:
            delivery.add(member)
            batch.drop_dependants(member.position)
        return batch, delivery

    # Runs.

    def _known(self, run_id: str) -> _KnownRun:
        known = self._runs.get(run_id)
        if known is None:
            known = self._examined(self._post.store.run(run_id))
            self._runs[run_id] = known
            if len(self._runs) > MOST_KNOWN_RUNS:
                self._runs.popitem(last=False)
        return known

    def _examined(self, run: RunRecord) -> _KnownRun:
        unfit = _misfit(run)
        context = None
        if unfit is None:
            try:
                context = RunContext.opened(self._post.store.context(run.run_id), run.run_id, self._post.keyring)
            except ForeignRecord as error:
                unfit = str(error)
            except BadSeal as error:
                unfit = f"its context cannot be opened with this worker's keys: {error} {remedy(error)}"
        if context is None:
            _logger.warning("run %s (%s) is left to other workers: %s", run.run_id, shown(run.name), unfit)
            self._heartbeat.say(f"does not fit run {run.run_id}: {unfit}")
            return _KnownRun(None, None, unfit)
        return _KnownRun(context, Reporter(self._post, run.run_id, context))

    def put_back(self, entry: Entry) -> None:
        """Give an entry back to its queue, for another worker or for later."""
        try:
            self._transport.push([entry])
        except OvernightError as error:
            _logger.warning("batch %s is left: %s", entry.batch, error)

    # What earlier workers left.

    def deliver_leftovers(self) -> None:
        """Commit what lies in the spool: of workers that live no more, and of runs that were unknown before."""
        for path, spooled in self._spool.leftovers():
            try:
                reply = self._post.store.commit(
                    spooled.run_id,
                    spooled.batch,
                    spooled.instance,
                    spooled.reports,
                    self._post.settings.lease_seconds,
                )
            except (UnknownRun, DamagedRun):
                continue
            except Unreachable:
                return
            if reply.known:
                self._spool.remove(path)
                _logger.info("%d results of run %s delivered from the spool", len(spooled.reports), spooled.run_id)


def _misfit(run: RunRecord) -> str | None:
    if run.protocol != PROTOCOL:
        return f"it speaks protocol {run.protocol}, this worker protocol {PROTOCOL}"
    minor = run.python.split(".")[1] if run.python.count(".") else run.python
    if minor != str(PYTHON_MINOR):
        return f"its tasks were made by Python {run.python}, this worker runs Python 3.{PYTHON_MINOR}"
    return None


def _unreadable(task: int) -> TaskFacts:
    return TaskFacts(f"#{task}", "", "", (), (), (), ())
