"""The Redis store as people's commands and followers use it. Nothing here changes anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import redis

from overnight.core.states import TaskState
from overnight.store.codec import (
    NO_DIGEST,
    Cursor,
    chunks,
    seconds_text,
    unpacked_charge,
    unpacked_run,
    unpacked_worker,
    with_gaps,
    without_head,
)
from overnight.store.connection import SOCKET_SECONDS
from overnight.store.records import EpochHeld, Happening, RunEvent, RunRecord, TaskView, WorkerRecord
from overnight.store.redis_server import Command, Server, check_known
from overnight.store.scripts import MOST_TASKS

#: A blocking read ends well before the socket's own timeout would.
LONGEST_BLOCK_SECONDS = SOCKET_SECONDS / 2
MOST_EVENTS = 1000
_SPECS_AT_ONCE = 32
_RESULTS_AT_ONCE = 200
Streams = Mapping[str, tuple[str, str]]


class RedisReading:
    """The `ReadingStore` on a server; the other roles build on it."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self.server = Server(client, prefix)

    def runs(self) -> list[RunRecord]:
        """Return all runs that are kept, newest first."""
        keys = self.server.keys
        ids = self.server.send(("ZRANGE", keys.shared("runs"), 0, -1))
        metas: list[dict[bytes, bytes]] = []
        for piece in chunks(ids, MOST_TASKS):
            metas += self.server.send_all(("HGETALL", keys.of_run(run_id.decode(), "meta")) for run_id in piece)
        found = [unpacked_run(meta) for meta in metas if meta]
        return sorted(found, key=lambda run: (run.created_at, run.run_id), reverse=True)

    def run(self, run_id: str) -> RunRecord:
        """Return one run."""
        meta = self.server.send(("HGETALL", self.server.keys.of_run(run_id, "meta")))
        check_known(None if meta else b"unknown", run_id)
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
        starts = sorted(int(start) for start in self._of_known_run(run_id, ("HKEYS", key)))
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
                None if cause is None else int(cause),
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
        key = self.server.keys.of_run(run_id, "digests")
        commands: list[Command] = [("EXISTS", self.server.keys.of_run(run_id, "meta"))]
        commands += [("GETRANGE", key, 32 * task, 32 * task + 31) for task in tasks]
        known, *digests = self.server.send_all(commands)
        check_known(None if known else b"unknown", run_id)
        return [digest or NO_DIGEST for digest in digests]

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
        found = [unpacked_worker(record) for instance, record in records.items() if instance in alive]
        return sorted(found, key=lambda worker: (worker.host, worker.started_at, worker.instance))

    def scheduler(self) -> EpochHeld | None:
        """Return who holds the right to dispatch, None if no scheduler does."""
        lease = ("HMGET", self.server.keys.shared("scheduler"), "holder", "description", "deadline")
        time_read, (holder, description, deadline) = self.server.send_all([("TIME",), lease])
        left = float(deadline or 0) - float(seconds_text(time_read))
        return EpochHeld(holder.decode(), (description or b"").decode(), left) if holder and left > 0 else None

    def follow(self, run_id: str, cursor: str, seconds: float) -> list[RunEvent]:
        """Return events after `cursor` ("0": from the first kept one), waiting up to `seconds` for one."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            events, is_unknown, _ = self._read_events({run_id: Cursor.parse(cursor)}, None, left)
            check_known(b"unknown" if is_unknown else None, run_id)
            if events or left <= 0:
                return events

    def _read_events(
        self,
        cursors: Mapping[str, Cursor],
        control: str | None,
        seconds: float,
        fell_back: Callable[[str, int], bool] = lambda _run_id, _dispatched: False,
    ) -> tuple[list[RunEvent], list[str], str | None]:
        """Read the runs' streams, and the control stream after `control`, once.

        Returns the events, the ids of runs that are gone, and the control stream's new position if it moved. A run
        whose events, or by `fell_back` whose dispatches, are fewer than they were is told as a GAP; so is one that has
        more events than are found: where the clock fell back too, new ones have ids before those that were lost.
        """
        heads = self._heads(cursors)
        gone = [run_id for run_id in cursors if run_id not in heads]
        behind = [
            run_id
            for run_id, (number, dispatched) in heads.items()
            if number < cursors[run_id].number or fell_back(run_id, dispatched)
        ]
        if gone or behind:
            return [self._rolled_back(run_id) for run_id in behind], gone, None
        events, moved = self._new_entries(cursors, control, seconds)
        heard = {event.run_id for event in events}
        silent = [run_id for run_id, (number, _) in heads.items() if number > cursors[run_id].number]
        return events + [self._rolled_back(run_id) for run_id in silent if run_id not in heard], gone, moved

    def _heads(self, run_ids: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Return for each run that is there the number of its latest event, and how many batches it has had."""
        ids = list(run_ids)
        names = [self.server.keys.of_run(run_id, "meta") for run_id in ids]
        replies = self.server.send_all(("HMGET", name, "sequence", "dispatched") for name in names)
        heads = zip(ids, replies, strict=True)
        return {run_id: (int(number), int(count or 0)) for run_id, (number, count) in heads if number is not None}

    def _new_entries(
        self, cursors: Mapping[str, Cursor], control: str | None, seconds: float
    ) -> tuple[list[RunEvent], str | None]:
        """Return the entries after the cursors, and the control stream's new position if it moved."""
        keys = self.server.keys
        streams = {keys.of_run(run_id, "events").encode(): run_id for run_id in cursors}
        positions = {name.decode(): cursors[run_id].entry_id for name, run_id in streams.items()}
        if control is not None:
            positions[keys.shared("control")] = control
        events: list[RunEvent] = []
        moved = None
        for name, entries in self._read_streams(positions, seconds):
            if name in streams:
                events += with_gaps(streams[name], cursors[streams[name]], entries)
            elif entries:
                moved = entries[-1][0].decode()
        return events, moved

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
        return RunEvent(run_id, Cursor(entry_id, int(number or 0)).text, Happening.GAP)

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
