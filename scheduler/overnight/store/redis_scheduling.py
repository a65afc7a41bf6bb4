"""The Redis store as the scheduler uses it. Every step that decides is fenced by the epoch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import redis

from overnight.config import HEARTBEAT_SECONDS, LEASE_SECONDS
from overnight.core.events import Flight
from overnight.core.states import RunPhase
from overnight.errors import ServerUnfit
from overnight.store import scripts
from overnight.store.codec import (
    Cursor,
    as_mapping,
    chunks,
    packed_batch,
    packed_charge,
    seconds_text,
    unpacked_charge,
    unpacked_run,
)
from overnight.store.dispatch_counts import DispatchCounts
from overnight.store.keys import SCHEMA, is_run_id
from overnight.store.records import Batch, Epoch, EpochHeld, Happening, Reaped, RunEvent, RunSnapshot, Verdict
from overnight.store.redis_reading import RedisReading
from overnight.store.redis_server import check_known, fence
from overnight.store.scripts import MOST_TASKS


class RedisScheduling(RedisReading):
    """The `SchedulingStore` on a server."""

    def __init__(self, client: redis.Redis, prefix: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__(client, prefix)
        self._monotonic = monotonic
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
                f"The keys {self.server.keys.prefix}:* on {self.server.address} have schema {rest[0].decode()}; this "
                f"version works with schema {SCHEMA}. Choose another OVERNIGHT_PREFIX or let the other version finish."
            )
        return EpochHeld(rest[0].decode(), rest[1].decode(), rest[2] / 1000)

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
        names = [name for run_id in ids if is_run_id(name := run_id.decode("utf-8", "replace"))]
        created = self.server.send_all(("HGET", keys.of_run(name, "meta"), "created_at") for name in names)
        known = [(_moment(at), name) for at, name in zip(created, names, strict=True) if at is not None]
        active = [name for _, name in sorted(known)]
        self._dispatched.keep(active)
        return active

    def load_run(self, run_id: str) -> RunSnapshot:
        """Read all that is needed to take the run over, at one instant."""
        reply = self.server.send(self.server.on_run(scripts.LOAD, run_id))
        check_known(None if reply else b"unknown", run_id)
        flat, states, digests, charges, flights, last = reply
        meta = as_mapping(flat)
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
            {int(task): unpacked_charge(charge) for task, charge in as_mapping(charges).items()},
            Cursor(last.decode(), int(meta[b"sequence"])).text,
        )

    def read_specs(self, run_id: str, first: int) -> list[bytes]:
        """Return the sealed chunks from task index `first` on."""
        return self._specs_from(run_id, first)

    def dispatch(self, epoch: Epoch, run_id: str, batches: Sequence[Batch]) -> list[bool]:
        """DISPATCH: see the port. A member whose lineage is empty depends on members of its own batch before it."""
        commands = [
            self.server.on_run(scripts.DISPATCH, run_id, *fence(epoch), *_flat(group)) for group in _grouped(batches)
        ]
        accepted: list[bool] = []
        for reply in self.server.send_all(commands):
            check_known(reply[0], run_id)
            _, total, *answers = reply
            self._dispatched.grow(run_id, sum(answers), total)
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

    def reap(self, epoch: Epoch, most: int = 100) -> list[Reaped]:
        """REAP: take back batches whose lease has run out by the server's clock, read again inside the script."""
        now = seconds_text(self.server.send(("TIME",)))
        leases = self.server.keys.shared("leases")
        self._forgive_a_moved_clock(epoch, float(now))
        due = self.server.send(("ZRANGEBYSCORE", leases, "-inf", now, "LIMIT", 0, most))
        names = [tuple(lease.decode().split(" ", 1)) for lease in due]
        replies = self.server.send_all(
            self.server.on_run(scripts.REAP, run_id, batch, *fence(epoch)) for run_id, batch in names
        )
        reaped: list[Reaped] = []
        for (run_id, batch), reply in zip(names, replies, strict=True):
            check_known(reply[0], run_id)
            if reply[0] == b"reaped":
                reaped.append(Reaped(run_id, batch, tuple(reply[1])))
        return reaped

    def _forgive_a_moved_clock(self, epoch: Epoch, now: float) -> None:
        """Give every lease a fresh term if the server's clock moved against this host's monotonic one."""
        offset = now - self._monotonic()
        moved, self._offset = abs(offset - (self._offset or offset)), offset
        if moved <= HEARTBEAT_SECONDS:
            return
        held = self.server.send(("ZRANGE", self.server.keys.shared("leases"), 0, -1))
        for piece in chunks(held, MOST_TASKS):
            reply = self.server.send(self.server.on_shared(scripts.GRACE, *fence(epoch), LEASE_SECONDS, *piece))
            check_known(reply, "")

    def wait(self, cursors: Mapping[str, str], seconds: float) -> tuple[list[RunEvent], bool]:
        """Wait for events or a change of the set of active runs since `active_runs` or the last such answer.

        A run that is gone, or has lost dispatches of this instance's, is told as a GAP.
        """
        deadline = time.monotonic() + seconds
        parsed = {run_id: Cursor.parse(cursor) for run_id, cursor in cursors.items()}
        while True:
            left = deadline - time.monotonic()
            events, gone, moved = self._read_events(parsed, self._control or "0-0", left, self._dispatched.is_lower)
            if gone:
                lost = [RunEvent(run_id, cursors[run_id], Happening.GAP) for run_id in gone]
                return events + lost, True
            self._control = moved or self._control
            if events or moved or left <= 0:
                return events, moved is not None

    def now(self) -> float:
        """Return the server's clock in seconds since the epoch."""
        return float(seconds_text(self.server.send(("TIME",))))

    def read_durations(self) -> dict[str, tuple[float, int]]:
        """Return learned durations by function name: seconds and number of observations."""
        stored = self.server.send(("HGETALL", self.server.keys.shared("durations")))
        return {name.decode(): tuple(json.loads(value)) for name, value in stored.items()}

    def write_durations(self, durations: Mapping[str, tuple[float, int]]) -> None:
        """Store learned durations."""
        for piece in chunks(list(durations.items()), MOST_TASKS):
            flat = [text for name, value in piece for text in (name, json.dumps(value))]
            self.server.send(self.server.on_shared(scripts.DURATIONS, *flat))


def _moment(text: bytes) -> float:
    """Return a time; that of a damaged record is before all others, so that whoever loads it says so."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def _grouped(batches: Sequence[Batch]) -> Iterator[list[Batch]]:
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


def _flat(batches: Sequence[Batch]) -> Iterator[str | int | bytes]:
    for batch in batches:
        yield from (batch.batch, packed_batch(batch), bytes(batch.attempts), len(batch.tasks))
        head = f"{batch.batch}\n".encode()
        for task, lineage in zip(batch.tasks, batch.lineages, strict=True):
            yield task
            yield head + lineage


def _packed(verdict: Verdict) -> tuple[int | str | bytes, ...]:
    return (
        verdict.task,
        chr(verdict.state),
        packed_charge(verdict.charge),
        "" if verdict.cause is None else verdict.cause,
        verdict.error or b"",
    )
