"""The Redis store as the scheduler uses it. Every step that decides is fenced by the epoch."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence

import redis

from overnight.config import HEARTBEAT_SECONDS, LEASE_SECONDS, LONGEST_TERMS
from overnight.core.events import Flight
from overnight.core.states import RunPhase
from overnight.errors import DamagedRun, ServerUnfit
from overnight.store import scripts
from overnight.store.batch_arguments import dispatched, grouped
from overnight.store.codec import (
    Cursor,
    as_mapping,
    chunks,
    of_known_form,
    packed_charge,
    seconds_text,
    unpacked_charge,
    unpacked_duration,
    unpacked_index,
    unpacked_run,
    unpacked_sequence,
    unpacked_tasks,
)
from overnight.store.dispatch_counts import DispatchCounts
from overnight.store.keys import SCHEMA, is_run_id
from overnight.store.records import Batch, Epoch, EpochHeld, Happening, Reaped, RunEvent, RunSnapshot, Verdict
from overnight.store.redis_reading import RedisReading, as_text, readable, run_ids
from overnight.store.redis_server import check_known, fence
from overnight.store.scripts import MOST_TASKS

_logger = logging.getLogger("overnight.store")


class RedisScheduling(RedisReading):
    """The `SchedulingStore` on a server. A server's clock that moved against `monotonic` by more than a heartbeat gives
    every lease one fresh term of `lease_seconds`; unseen moves give it to those that would last for more than a few."""

    def __init__(
        self,
        client: redis.Redis,
        prefix: str,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        lease_seconds: float = LEASE_SECONDS,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        super().__init__(client, prefix)
        self._monotonic = monotonic
        self._lease_seconds = lease_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._control: str | None = None
        self._offset: float | None = None
        self._dispatched = DispatchCounts()

    def take_epoch(self, holder: str, description: str, seconds: float) -> Epoch | EpochHeld:
        """Take or renew the scheduler lease; ServerUnfit if the keys there are of another schema."""
        word, *rest = self.server.send(self.server.on_shared(scripts.EPOCH, holder, description, repr(seconds), SCHEMA))
        if word == b"taken":
            return Epoch(rest[0], holder)
        if word == b"schema":
            raise ServerUnfit(
                f"The keys {self.server.keys.prefix}:* on {self.server.address} have schema {as_text(rest[0])}; this "
                f"version works with schema {SCHEMA}. Choose another OVERNIGHT_PREFIX or let the other version finish."
            )
        return EpochHeld(as_text(rest[0]), as_text(rest[1]), rest[2] / 1000)

    def leave_epoch(self, epoch: Epoch) -> None:
        """Give the lease up. Its holder alone is compared, so a process known to be dead can be made to leave."""
        self.server.send(self.server.on_shared(scripts.LEAVE, epoch.holder))

    def active_runs(self) -> list[str]:
        """Return the ids of all runs that are not over, oldest first. `wait` tells of changes after this."""
        keys = self.server.keys
        last, ids = self.server.send_all(
            [
                ("XREVRANGE", keys.shared("control"), "+", "-", "COUNT", 1),
                ("SMEMBERS", keys.shared("runs:active")),
            ]
        )
        self._control = last[0][0].decode() if last else "0-0"
        names = run_ids(ids)
        created = self.server.send_each(("HGET", keys.of_run(name, "meta"), "created_at") for name in names)
        known = [(_moment(at), name) for at, name in zip(created, names, strict=True) if at is not None]
        active = [name for _, name in sorted(known)]
        self._dispatched.keep(active)
        return active

    @of_known_form
    def load_run(self, run_id: str) -> RunSnapshot:
        """Read all that is needed to take the run over, at one instant."""
        reply = self.server.send(self.server.on_run(scripts.LOAD, run_id))
        check_known(None if reply else b"unknown", run_id)
        flat, states, digests, charges, flights, last, lacking, repairs = reply
        meta = as_mapping(flat)
        with self.server.naming(run_id, "meta"):
            run = unpacked_run(meta)
        self._dispatched.take(run_id, int(meta.get(b"dispatched", 0)))
        return RunSnapshot(
            run,
            self._specs_from(run_id, 0, run.added),
            states,
            digests,
            [
                Flight(batch.decode(), queue.decode(), tuple(tasks), bool(claimed))
                for batch, queue, claimed, tasks in flights
            ],
            {unpacked_index(task): unpacked_charge(charge) for task, charge in as_mapping(charges).items()},
            Cursor(last.decode(), unpacked_sequence(meta[b"sequence"])).text,
            unpacked_sequence(meta.get(b"invalidations", b"0")),
            {task: unpacked_tasks(lineage[1:]) for task, lineage in zip(lacking[::2], lacking[1::2], strict=True)},
            {unpacked_index(task): unpacked_sequence(number) for task, number in as_mapping(repairs).items()},
        )

    def read_specs(self, run_id: str, first: int) -> list[bytes]:
        """Return the sealed chunks from task index `first` on."""
        return self._specs_from(run_id, first)

    def dispatch(
        self, epoch: Epoch, run_id: str, batches: Sequence[Batch], invalidations: int | None = None
    ) -> list[bool]:
        """DISPATCH: see the port. A member whose lineage is empty depends on members of its own batch before it."""
        heard = "" if invalidations is None else invalidations
        commands = [
            self.server.on_run(scripts.DISPATCH, run_id, *fence(epoch), heard, *dispatched(group))
            for group in grouped(batches)
        ]
        accepted: list[bool] = []
        for reply in self.server.send_all(commands):
            check_known(reply[0], run_id)
            _, total, new, *answers = reply
            self._dispatched.grow(run_id, new, total)
            accepted += [bool(answer) for answer in answers]
        return accepted

    def withdraw(self, epoch: Epoch, run_id: str, batches: Sequence[str]) -> list[str]:
        """Take back batches that no worker holds. Return those withdrawn."""
        withdrawn: list[str] = []
        for batch in batches:
            reply = self.server.send(self.server.on_run(scripts.WITHDRAW, run_id, *fence(epoch), batch))
            check_known(reply[0], run_id)
            withdrawn += [name.decode() for name in reply[1:]]
        return withdrawn

    def settle(self, epoch: Epoch, run_id: str, verdicts: Sequence[Verdict]) -> None:
        """Record verdicts; one that is no transition from where its task stands changes nothing."""
        commands = [
            self.server.on_run(
                scripts.SETTLE, run_id, *fence(epoch), *(value for verdict in piece for value in _packed(verdict))
            )
            for piece in chunks(verdicts, MOST_TASKS)
        ]
        for reply in self.server.send_all(commands):
            check_known(reply, run_id)

    def finish(self, epoch: Epoch, run_id: str, phase: RunPhase) -> bool:
        """End the run if every task is terminal and its submission complete. False if not."""
        if not phase.is_over:
            raise ValueError(f"A run cannot end in phase {phase.value}.")
        reply = self.server.send(self.server.on_run(scripts.FINISH, run_id, *fence(epoch), phase.value))
        check_known(reply, run_id)
        return bool(reply == b"ended")

    def abandon(self, epoch: Epoch, run_id: str) -> bool:
        """ABANDON: end a cancelled run whose tasks cannot all be made terminal. False if it is not cancelled."""
        reply = self.server.send(self.server.on_run(scripts.ABANDON, run_id, *fence(epoch)))
        check_known(reply, run_id)
        return bool(reply == b"ended")

    def note(self, epoch: Epoch, run_id: str, text: str) -> None:
        """Keep with the run what its scheduler has to say to people; an empty text takes the note away."""
        check_known(self.server.send(self.server.on_run(scripts.NOTE, run_id, *fence(epoch), text)), run_id)

    def reap(self, epoch: Epoch, most: int = 100) -> list[Reaped]:
        """REAP: take back batches whose lease has run out by the server's clock, read again inside the script."""
        now = seconds_text(self.server.send(("TIME",)))
        leases = self.server.keys.shared("leases")
        self._forgive_a_moved_clock(epoch, float(now))
        latest = float(now) + LONGEST_TERMS * self._lease_seconds
        due, far = self.server.send_all(
            [
                ("ZRANGEBYSCORE", leases, "-inf", now, "LIMIT", 0, most),
                ("ZRANGEBYSCORE", leases, f"({latest!r}", "+inf", "LIMIT", 0, MOST_TASKS),
            ]
        )
        # They are of before the clock was moved back, which no scheduler has seen.
        self._renew(epoch, far)
        names = [_lease(lease) for lease in due]
        replies = self.server.send_each(
            self.server.on_run(scripts.REAP, name[0], name[1], *fence(epoch)) for name in names if name is not None
        )
        reaped: list[Reaped] = []
        astray = [lease for lease, name in zip(due, names, strict=True) if name is None]
        taken = [(lease, *name) for lease, name in zip(due, names, strict=True) if name is not None]
        for (lease, run_id, batch), reply in zip(taken, replies, strict=True):
            if isinstance(reply, DamagedRun):
                astray.append(lease)
                continue
            check_known(reply[0], run_id)
            if reply[0] == b"reaped":
                reaped.append(Reaped(run_id, batch, tuple(reply[1])))
        self._put_off(epoch, astray)
        return reaped

    def _put_off(self, epoch: Epoch, leases: Sequence[bytes]) -> None:
        """Look for a while no more at leases that nobody can take back, lest they stand before all others: those of
        damaged runs, and members that are no leases."""
        if leases:
            _logger.warning("%d leases belong to no run that can be read, such as %r", len(leases), leases[0][:100])
            self._renew(epoch, leases, LONGEST_TERMS)

    def _forgive_a_moved_clock(self, epoch: Epoch, now: float) -> None:
        """Give every lease a fresh term if the server's clock moved against this host's monotonic one."""
        offset = now - self._monotonic()
        if self._offset is not None and abs(offset - self._offset) > self._heartbeat_seconds:
            held = self.server.send(("ZRANGE", self.server.keys.shared("leases"), 0, -1))
            self._renew(epoch, held)
        self._offset = offset

    def _renew(self, epoch: Epoch, leases: Sequence[bytes], terms: int = 1) -> None:
        for piece in chunks(leases, MOST_TASKS):
            grace = self.server.on_shared(scripts.GRACE, *fence(epoch), repr(terms * self._lease_seconds), *piece)
            check_known(self.server.send(grace), "")

    def wait(self, cursors: Mapping[str, str], seconds: float) -> tuple[list[RunEvent], bool]:
        """Wait for events or a change of the set of active runs since `active_runs` or the last such answer.

        A run that is gone, has lost dispatches of this instance's, or of which it cannot be said whether events were
        missed, is told as a GAP.
        """
        deadline = time.monotonic() + seconds
        parsed = {run_id: Cursor.parse(cursor) for run_id, cursor in cursors.items()}
        while True:
            left = deadline - time.monotonic()
            heard = self._read_events(parsed, self._control or "0-0", left, self._dispatched.is_lower)
            self._control = heard.control or self._control
            lost = [RunEvent(run_id, cursors[run_id], Happening.GAP) for run_id in (*heard.gone, *heard.damaged)]
            if heard.events or lost or heard.control or time.monotonic() >= deadline:
                return heard.events + lost, bool(heard.gone or heard.control)

    def now(self) -> float:
        """Return the server's clock in seconds since the epoch."""
        return float(seconds_text(self.server.send(("TIME",))))

    def read_durations(self) -> dict[str, tuple[float, int]]:
        """Return learned durations by function name: seconds and number of observations."""
        stored = self.server.send(("HGETALL", self.server.keys.shared("durations")))
        return {as_text(name): known for name, value in stored.items() for known in readable(unpacked_duration, value)}

    def write_durations(self, durations: Mapping[str, tuple[float, int]]) -> None:
        """Store learned durations."""
        for piece in chunks(list(durations.items()), MOST_TASKS):
            flat = [text for name, value in piece for text in (name, json.dumps(value))]
            self.server.send(self.server.on_shared(scripts.DURATIONS, *flat))


def _moment(text: bytes | DamagedRun) -> float:
    """Return a time; that of a damaged record is before all others, so that whoever loads it says so."""
    try:
        return 0.0 if isinstance(text, DamagedRun) else float(text)
    except ValueError:
        return 0.0


def _lease(member: bytes) -> tuple[str, str] | None:
    """Return run and batch of a lease; None of a member that is no lease."""
    run_id, separator, batch = as_text(member).partition(" ")
    return (run_id, batch) if separator and is_run_id(run_id) and "\ufffd" not in batch else None


def _packed(verdict: Verdict) -> tuple[int | str | bytes, ...]:
    return (
        verdict.task,
        chr(verdict.state),
        packed_charge(verdict.charge),
        "" if verdict.cause is None else verdict.cause,
        verdict.error or b"",
        verdict.certificate or b"",
    )
