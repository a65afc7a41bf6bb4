"""One claimed batch, from the first look at its inputs to the last commit: the supervisor's loop while tasks run.

The loop waits for the child, for a signal and for its timers, and does one small thing at a time: take outcomes in,
commit a group, send a heartbeat, kill a task that is over its limit. The child goes on with the next task meanwhile.
Nothing here waits for the child, and a call to the store waits no longer than its connection's own limits.

A child that dies charges exactly the task in its shared page; the rest goes on in a fresh child. A lost lease or a
request to stop kills what runs; what has been serialised by then is still committed. Whatever has no outcome in the
end goes back to the store uncharged.
"""

from __future__ import annotations

import logging
import os
import select
import time

from overnight.errors import DamagedRun, UnknownRun, Unreachable
from overnight.messages import RunContext
from overnight_worker.ahead import Ahead, Desk
from overnight_worker.announcing import is_announced
from overnight_worker.answers import ended_by_death, ended_of, note_death
from overnight_worker.batch import ClaimedBatch, Ended, Member, Stage
from overnight_worker.child_process import ChildProcess
from overnight_worker.death import Death
from overnight_worker.delivery import Delivery
from overnight_worker.frames import Frame, Kind
from overnight_worker.heartbeat import Heartbeat
from overnight_worker.limits import Limits, Verdict
from overnight_worker.nursery import Nursery
from overnight_worker.orders import Orders
from overnight_worker.outgoing import Outgoing
from overnight_worker.post import Post
from overnight_worker.stopped import BY_CANCEL, BY_WORKER, end_stopped
from overnight_worker.tail import STOP_SEEN_SECONDS, Tail

MOST_FRUITLESS_DEATHS = 3
STORE_PAUSE_SECONDS = 0.5
_logger = logging.getLogger("overnight.worker")


class Session:
    """Runs the open members of a batch; what `run` leaves of its `delivery`, the next session takes as `earlier`."""

    def __init__(
        self,
        post: Post,
        batch: ClaimedBatch,
        context: RunContext,
        nursery: Nursery,
        orders: Orders,
        delivery: Delivery,
        heartbeat: Heartbeat,
        desk: Desk,
        earlier: Delivery | None = None,
    ) -> None:
        self._post = post
        self._batch = batch
        self._context = context
        self._nursery = nursery
        self._orders = orders
        self.delivery = delivery
        self._outgoing = Outgoing(delivery, earlier, heartbeat)
        self._heartbeat = heartbeat
        self._desk = desk
        self._ahead = Ahead(batch, desk)
        self._child: ChildProcess | None = None
        self._in_child = False
        self._fruitless_deaths = 0
        self._limits = Limits(batch, post)
        self._tail = Tail(batch)
        self._drained_at: float | None = None

    def run(self) -> bool:
        """Run until every member has an outcome or goes back, and see to the rest. False: one commit is left, for which
        `finish` must be called, or which the session of the next batch must be given, if that is at hand."""
        while self._in_child or self._batch.open_members():
            if self._in_child:
                self._turn()
            elif self._post.stopping.level:
                self._return_open()
            else:
                self._send_rest()
        goes_back = any(member.stage is Stage.RETURNED for member in self._batch.members)
        if self._outgoing.may_wait and not goes_back and not self._post.stopping.level:
            return False
        self.finish()
        return True

    def finish(self) -> None:
        """See to it that the store answers all outcomes, and gets back what has none."""
        while not self._outgoing.is_empty and (not self._post.stopping.level or self._post.drain_seconds_left > 0):
            self._turn()
        self._end()

    def _turn(self) -> None:
        if not self._in_child:
            self._outgoing.hurry()
        self._wait()
        if self._child is not None and self._in_child:
            self._child.write()
            self._listen(self._child)
        self._do_duties()

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._post.stopping, select.POLLIN)
        if self._child is not None and self._in_child:
            self._child.watch(poll)
        now = time.monotonic()
        poll.poll(max(0.0, min(due for due in self._timers(now)) - now) * 1000)
        self._post.stopping.clear_wakeup()

    def _timers(self, now: float) -> list[float]:
        timers = [self._heartbeat.due_at, self._outgoing.due_at]
        if self._in_child and self._child is not None:
            timers += (self._limits.due_at(self._child), self._tail.due_at(self._child), self._ahead.due_at)
        if self._in_child and self._post.stopping.level:
            timers.append(now + max(STOP_SEEN_SECONDS, self._post.drain_seconds_left))
            if self._drained_at is not None and any(self._returnable()):
                timers.append(self._drained_at + STOP_SEEN_SECONDS)
        return timers

    # What the child says.

    def _send_rest(self) -> None:
        if time.monotonic() >= self._heartbeat.due_at:
            # Whoever was frozen since its claim hears that the lease is lost before it starts anything.
            self._do_duties()
            return
        self._child = self._nursery.child_for(self._batch.run_id, self._context)
        self._child.progress.go_on()
        self._in_child = True
        try:
            frames = self._orders.frames(self._batch, self._child, self.delivery.add)
        except (UnknownRun, DamagedRun):
            self._in_child = False
            self._return_open()
            return
        except Unreachable as error:
            _logger.warning("batch %s waits for the server: %s", self._batch.claim.batch, error)
            self._in_child = False
            time.sleep(STORE_PAUSE_SECONDS)
            self._do_duties()
            return
        self._in_child = bool(frames)
        while frames and self._batch.open_members() and not is_announced(self._batch, self._child, self._heartbeat):
            self._do_duties()
        if self._in_child:
            self._child.send(frames)
            self._desk.clear()

    def _listen(self, child: ChildProcess) -> None:
        frames = child.receive()
        if frames is None:
            self._child_died(child)
            return
        for frame in frames:
            self._take(child, frame)

    def _take(self, child: ChildProcess, frame: Frame) -> None:
        match frame.kind:
            case Kind.SUCCESS | Kind.FAILURE:
                position, ended = ended_of(frame)
                self._ended(self._batch.members[position], ended)
            case Kind.ENDED:
                self._in_child = False
                self._nursery.returned(child, frame.fields())
            case Kind.STALE:
                self._in_child = False
                self._nursery.replace("modules have changed since it loaded them")

    def _ended(self, member: Member, ended: Ended) -> None:
        self._fruitless_deaths = 0
        if member.stage is not Stage.OPEN:
            return
        member.stage, member.ended = Stage.ENDED, ended
        self.delivery.add(member)
        if not ended.ok:
            self._batch.drop_dependants(member.position)

    # What happens to the child.

    def _child_died(self, child: ChildProcess) -> None:
        running = child.progress.running()
        with os.fdopen(child.output_copy(), "rb", buffering=0) as output:
            self._judge(self._nursery.bury(child), running, output.fileno())

    def _judge(self, death: Death, running: tuple[int, float] | None, output: int) -> None:
        verdict = self._limits.take_verdict()
        self._in_child = False
        if self.delivery.lease_lost or self.delivery.stop or self._post.stopping.level >= 2:
            return
        self._fruitless_deaths += 1
        was_running = None if running is None else self._batch.members[running[0]]
        if running is not None and was_running is not None and was_running.stage is Stage.OPEN:
            if verdict is None or verdict.position == was_running.position:
                self._charge(was_running, death, running[1], verdict, output)
            # Otherwise the kill was meant for the task before: this one has just begun and begins again.
        elif self._fruitless_deaths < MOST_FRUITLESS_DEATHS:
            _logger.warning("the child ended between two tasks: %s", death.sentence())
        elif self._batch.open_members():
            self._charge(self._batch.open_members()[0], death, None, None, output)

    def _charge(self, member: Member, death: Death, since: float | None, verdict: Verdict | None, output: int) -> None:
        """Record the death of the child, or its kill at a limit, as the failure of the task it ran."""
        death = verdict.on(death) if verdict is not None else death
        ended = ended_by_death(member, death, self._post.name, verdict, since)
        note_death(member, ended, death, output, self._batch.run_id, self._context)
        self._ended(member, ended)

    # Duties.

    def _do_duties(self) -> None:
        now = time.monotonic()
        if now >= self._heartbeat.due_at:
            self._beat()
        self._outgoing.flush_due(now)
        self._obey(now)

    def _beat(self) -> None:
        child = self._child if self._in_child else None
        running = child.progress.running() if child is not None else None
        task = self._batch.members[running[0]].task if running is not None else None
        since = time.time() - (time.monotonic() - running[1]) if running is not None else None
        reply = self._heartbeat.beat(
            *self._outgoing.leases,
            task=task,
            task_since=since,
            memory=child.memory() if child is not None else 0,
            tail=self._heartbeat.last_lines.record(child, self._batch, self._context),
        )
        if reply is not None and self._batch.open_members():
            self.delivery.lease_lost = self.delivery.lease_lost or reply.lost
            self.delivery.stop = self.delivery.stop or reply.stop

    def _obey(self, now: float) -> None:
        """Stop what must not go on: after a lost lease, a cancelled run, a signal, a time limit."""
        if self.delivery.lease_lost or self.delivery.stop or self._post.stopping.level >= 2:
            if self._in_child:
                _logger.info("batch %s is not to go on: what runs is killed", self._batch.claim.batch)
            self._return_open()
            self._kill_child()
        elif self._post.stopping.level == 1:
            self._drain(now)
        if self._in_child and self._child is not None:
            self._limits.enforce(self._child)
            self._ahead.look(self._child, now)
            if not self._post.stopping.level:
                self._give_back([member.task for member in self._tail.released(self._child, now)])

    def _drain(self, now: float) -> None:
        if not self._in_child or self._child is None:
            self._return_open()
            return
        self._child.progress.stop()
        if self._drained_at is None:
            self._drained_at = now
        elif now >= self._drained_at + STOP_SEEN_SECONDS:
            returned = self._returnable()
            for member in returned:
                member.stage = Stage.RETURNED
            self._give_back([member.task for member in returned])
        if self._post.drain_seconds_left <= 0:
            self._return_open()
            self._kill_child()

    def _returnable(self) -> list[Member]:
        """Return the open members that the child neither runs nor has run: an outcome may be on its way."""
        if self._child is None or not self._in_child:
            return self._batch.open_members()
        running, begun = self._child.progress.running(), self._child.progress.begun
        at = running[0] if running is not None else None
        return [member for member in self._batch.open_members() if member.position >= begun and member.position != at]

    def _return_open(self) -> None:
        for member in self._batch.open_members():
            member.stage = Stage.RETURNED

    def _kill_child(self) -> None:
        if self._in_child and self._child is not None:
            self._in_child = False
            why = None if self.delivery.lease_lost else BY_CANCEL if self.delivery.stop else BY_WORKER
            end_stopped(self._child, self._nursery, self._batch, self._context, self._post.name, why)

    # The end.

    def _end(self) -> None:
        self._outgoing.leave_in_spool()
        self.delivery.give_back_rest()

    def _give_back(self, tasks: list[int]) -> None:
        self.delivery.give_back(tasks)
