"""The Redis store as people's commands and followers use it. Nothing here changes anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import redis

from overnight.core.states import TaskState
from overnight.errors import DamagedRun
from overnight.store.codec import (
    Cursor,
    chunks,
    of_known_form,
    seconds_text,
    unpacked_charge,
    unpacked_index,
    unpacked_run,
    unpacked_sequence,
    unpacked_worker,
    without_head,
)
from overnight.store.connection import SOCKET_SECONDS
from overnight.store.digest_ranges import DigestRanges
from overnight.store.event_codec import with_gaps
from overnight.store.keys import is_run_id
from overnight.store.records import EpochHeld, Happening, RunEvent, RunRecord, TaskView, WorkerRecord
from overnight.store.redis_server import Command, Server, check_known
from overnight.store.scripts import MOST_TASKS

#: A blocking read ends well before the socket's own timeout would.
LONGEST_BLOCK_SECONDS = SOCKET_SECONDS / 2
MOST_EVENTS = 1000
_SPECS_AT_ONCE = 32
_RESULTS_AT_ONCE = 200
_Value = TypeVar("_Value")


@dataclass(slots=True)
class Heard:
    """What one look at the streams tells: events, runs that are gone, runs whose last event has no number, and where
    the control stream stands if it moved."""

    events: list[RunEvent] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    control: str | None = None


class RedisReading:
    """The `ReadingStore` on a server; the other roles build on it."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self.server = Server(client, prefix)

    def runs(self) -> list[RunRecord]:
        """Return all runs that are kept, newest first; one whose record is damaged is left out."""
        keys = self.server.keys
        names = run_ids(self.server.send(("ZRANGE", keys.shared("runs"), 0, -1)))
        found: list[RunRecord] = []
        for piece in chunks(names, MOST_TASKS):
            metas = self.server.send_each(("HGETALL", keys.of_run(name, "meta")) for name in piece)
            found += (run for meta in metas if meta for run in readable(unpacked_run, meta))
        return sorted(found, key=lambda run: (run.created_at, run.run_id), reverse=True)

    def run(self, run_id: str) -> RunRecord:
        """Return one run."""
        meta = self.server.send(("HGETALL", self.server.keys.of_run(run_id, "meta")))
        check_known(None if meta else b"unknown", run_id)
        with self.server.naming(run_id, "meta"):
            return unpacked_run(meta)

    def states(self, run_id: str) -> bytes:
        """Return the state string: two bytes a task."""
        states = self._of_known_run(run_id, ("GET", self.server.keys.of_run(run_id, "states")))
        return states or b""

    def context(self, run_id: str) -> bytes:
        """Return the run's sealed context."""
        context = self._of_known_run(run_id, ("GET", self.server.keys.of_run(run_id, "context")))
        return context or b""

    def specs(self, run_id: str) -> list[bytes]:
        """Return all sealed chunks in order."""
        return self._specs_from(run_id, 0)

    def _specs_from(self, run_id: str, first: int, end: int | None = None) -> list[bytes]:
        key = self.server.keys.of_run(run_id, "specs")
        starts = sorted(map(unpacked_index, self._of_known_run(run_id, ("HKEYS", key))))
        wanted = [start for start in starts if start >= first and (end is None or start < end)]
        found: list[bytes] = []
        for piece in chunks(wanted, _SPECS_AT_ONCE):
            found += self.server.send(("HMGET", key, *piece))
        return found

    def tasks(self, run_id: str, tasks: Sequence[int]) -> list[TaskView]:
        """Return what is known of these tasks; those that the run does not hold are left out."""
        views: list[TaskView] = []
        for piece in chunks(tasks, MOST_TASKS):
            views += self._views(run_id, piece)
        return views

    @of_known_form
    def _views(self, run_id: str, tasks: Sequence[int]) -> list[TaskView]:
        keys = self.server.keys
        states = keys.of_run(run_id, "states")
        hashes = [("HMGET", keys.of_run(run_id, name), *tasks) for name in ("charges", "causes", "facts", "errors")]
        cells: list[Command] = [("GETRANGE", states, 2 * task, 2 * task + 1) for task in tasks]
        known, *replies = self.server.send_all([("EXISTS", keys.of_run(run_id, "meta")), *hashes, *cells])
        check_known(None if known else b"unknown", run_id)
        return [
            TaskView(
                task,
                TaskState(cell[0]),
                cell[1],
                unpacked_charge(charge),
                None if cause is None else unpacked_index(cause),
                without_head(facts),
                error,
            )
            for task, charge, cause, facts, error, cell in zip(tasks, *replies[:4], replies[4:], strict=True)
            if cell
        ]

    def read_results(self, run_id: str, tasks: Iterable[int]) -> dict[int, bytes]:
        """Return sealed results by task; missing ones are left out."""
        return self._read_hash(run_id, "results", list(tasks))

    def read_blobs(self, run_id: str, digests: Sequence[str]) -> dict[str, bytes]:
        """Return sealed blobs by digest; missing ones are left out."""
        return self._read_hash(run_id, "blobs", digests)

    def read_digests(self, run_id: str, tasks: Iterable[int]) -> list[bytes]:
        """Return the digests of the tasks' results in the given order (zeros: none)."""
        ranges = DigestRanges(tasks)
        reads = ranges.commands(self.server.keys.of_run(run_id, "digests"))
        known, *pieces = self.server.send_all([("EXISTS", self.server.keys.of_run(run_id, "meta")), *reads])
        check_known(None if known else b"unknown", run_id)
        return ranges.digests(pieces)

    def _read_hash(self, run_id: str, name: str, fields: Sequence[Any]) -> dict[Any, bytes]:
        key = self.server.keys.of_run(run_id, name)
        pieces = list(chunks(fields, _RESULTS_AT_ONCE))
        known, *replies = self.server.send_all(
            [("EXISTS", self.server.keys.of_run(run_id, "meta")), *(("HMGET", key, *piece) for piece in pieces)]
        )
        check_known(None if known else b"unknown", run_id)
        found: dict[Any, bytes] = {}
        for piece, values in zip(pieces, replies, strict=True):
            found.update((field, value) for field, value in zip(piece, values, strict=True) if value is not None)
        return found

    def _of_known_run(self, run_id: str, command: Command) -> Any:
        known, reply = self.server.send_all([("EXISTS", self.server.keys.of_run(run_id, "meta")), command])
        check_known(None if known else b"unknown", run_id)
        return reply

    def workers(self) -> list[WorkerRecord]:
        """Return the workers whose registration is alive."""
        keys = self.server.keys
        time_read, records = self.server.send_all([("TIME",), ("HGETALL", keys.shared("workers:records"))])
        later = f"({seconds_text(time_read)}"
        alive = set(self.server.send(("ZRANGEBYSCORE", keys.shared("workers"), later, "+inf")))
        announced = [record for instance, record in records.items() if instance in alive]
        found = [worker for record in announced for worker in readable(unpacked_worker, record)]
        return sorted(found, key=lambda worker: (worker.host, worker.started_at, worker.instance))

    def scheduler(self) -> EpochHeld | None:
        """Return who holds the right to dispatch, None if no scheduler does."""
        lease = ("HMGET", self.server.keys.shared("scheduler"), "holder", "description", "deadline")
        time_read, (holder, description, deadline) = self.server.send_all([("TIME",), lease])
        left = sum(readable(float, deadline or 0)) - float(seconds_text(time_read))
        return EpochHeld(as_text(holder), as_text(description or b""), left) if holder and left > 0 else None

    def follow(self, run_id: str, cursor: str, seconds: float) -> list[RunEvent]:
        """Return events after `cursor` ("0": from the first kept one), waiting up to `seconds` for one."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            heard = self._read_events({run_id: Cursor.parse(cursor)}, None, left)
            check_known(b"unknown" if heard.gone else None, run_id)
            if heard.damaged:
                raise DamagedRun(f"Run {run_id} cannot be followed: the number of its last event is none.")
            if heard.events or time.monotonic() >= deadline:
                return heard.events

    def _read_events(
        self,
        cursors: Mapping[str, Cursor],
        control: str | None,
        seconds: float,
        fell_back: Callable[[str, int], bool] = lambda _run_id, _dispatched: False,
    ) -> Heard:
        """Read the runs' streams, and the control stream after `control`, once.

        A run whose events, or by `fell_back` whose dispatches, are fewer than they were is told as a GAP; so is one
        that has more events than are found: where the clock fell back too, new ones have ids before the lost ones.
        """
        numbers, losses = self._heads(cursors, control, fell_back)
        if losses is not None:
            return losses
        heard = self._new_entries(cursors, control, seconds)
        told = {event.run_id for event in heard.events}
        ahead = [run_id for run_id, number in numbers.items() if number > cursors[run_id].number and run_id not in told]
        heard.events += map(self._rolled_back, ahead)
        return heard

    def _new_entries(self, cursors: Mapping[str, Cursor], control: str | None, seconds: float) -> Heard:
        """Return the entries after the cursors, and the control stream's new position if it moved."""
        keys = self.server.keys
        names = {keys.of_run(run_id, "events").encode(): run_id for run_id in cursors}
        positions = {name.decode(): cursors[run_id].entry_id for name, run_id in names.items()}
        if control is not None:
            positions[keys.shared("control")] = control
        heard = Heard()
        for name, entries in self._read_streams(positions, seconds):
            if name in names:
                heard.events += with_gaps(names[name], cursors[names[name]], entries)
            elif entries:
                heard.control = entries[-1][0].decode()
        return heard

    def _heads(
        self, cursors: Mapping[str, Cursor], control: str | None, fell_back: Callable[[str, int], bool]
    ) -> tuple[dict[str, int], Heard | None]:
        """Return the number of each run's latest event, and what a server that fell back has lost, None if nothing."""
        keys = self.server.keys
        commands: list[Command] = [("HMGET", keys.of_run(run, "meta"), "sequence", "dispatched") for run in cursors]
        if control is not None:
            commands.append(("XREVRANGE", keys.shared("control"), "+", "-", "COUNT", 1))
        replies = self.server.send_all(commands)
        heard, numbers = Heard(), {}
        for (run_id, cursor), (number, dispatched) in zip(cursors.items(), replies, strict=False):
            if number is None:
                heard.gone.append(run_id)
                continue
            known = [*readable(unpacked_sequence, number), *readable(unpacked_sequence, dispatched or b"0")]
            if len(known) < 2:
                heard.damaged.append(run_id)
            elif fell_back(run_id, known[1]) or known[0] < cursor.number:  # what is told once is asked for first
                heard.events.append(self._rolled_back(run_id))
            else:
                numbers[run_id] = known[0]
        if control is not None:
            end = replies[-1][0][0].decode() if replies[-1] else "0-0"
            heard.control = end if _place(end) < _place(control) else None
        return numbers, heard if heard.events or heard.gone or heard.damaged or heard.control else None

    def _rolled_back(self, run_id: str) -> RunEvent:
        """Return the GAP of a run whose server lost entries that the follower has seen."""
        keys = self.server.keys
        number, last = self.server.send_all(
            [
                ("HGET", keys.of_run(run_id, "meta"), "sequence"),
                ("XREVRANGE", keys.of_run(run_id, "events"), "+", "-", "COUNT", 1),
            ]
        )
        entry_id = last[0][0].decode() if last else "0-0"
        return RunEvent(run_id, Cursor(entry_id, unpacked_sequence(number or b"0")).text, Happening.GAP)

    def _read_streams(self, positions: Mapping[str, str], seconds: float) -> list[tuple[bytes, Any]]:
        if not positions:
            time.sleep(max(0.0, min(seconds, LONGEST_BLOCK_SECONDS)))
            return []
        block = ("BLOCK", int(min(seconds, LONGEST_BLOCK_SECONDS) * 1000) + 1) if seconds > 0 else ()
        reply = self.server.send(
            ("XREAD", "COUNT", MOST_EVENTS, *block, "STREAMS", *positions.keys(), *positions.values())
        )
        if not reply:
            return []
        return [(name, entries) for name, entries in (reply.items() if isinstance(reply, dict) else reply)]


def run_ids(found: Iterable[bytes]) -> list[str]:
    """Return those of the names that can be ids of runs: whoever may write to the server may add others."""
    return [name for text in found if is_run_id(name := as_text(text))]


def as_text(text: bytes) -> str:
    """Return text that is none of UTF-8 with marks in place of what is not."""
    return text.decode("utf-8", "replace")


def readable(unpacked: Callable[[Any], _Value], text: Any) -> Iterator[_Value]:
    """Yield the value of a text, unless it is none that overnight writes."""
    with suppress(DamagedRun, ValueError):
        if isinstance(text, DamagedRun):
            raise text
        yield unpacked(text)


def _place(entry_id: str) -> tuple[int, int]:
    """Return the id of a stream's entry as it is ordered."""
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number)
