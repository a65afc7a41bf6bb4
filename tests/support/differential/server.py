"""The simulation's server with a real one beside it: each call is carried out on both, and both must say the same.

Actors get the memory store's replies, so a seed plays here as it plays without a server. After each step what it may
have changed is read from the real server and compared: what runs share, and of the runs that it names each key and the
new events. A server that falls back is one whose keys are dumped and restored, or flushed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from overnight.errors import OvernightError
from overnight.store.codec import Cursor, as_mapping
from overnight.store.event_codec import unpacked_event
from overnight.store.records import Happening, Reaped, RunEvent
from overnight.store.redis import RedisStore
from tests.support.differential.alike import alike, comparable, told
from tests.support.differential.clocked import CLOCK, clocked_store
from tests.support.differential.truth import (
    FIXED,
    OF_RUN,
    Reader,
    kept_run,
    kept_shared,
    stored_durations,
    stored_run,
    stored_shared,
)
from tests.support.simulation.oracle import Oracle
from tests.support.simulation.server import WRITING, Line, Server
from tests.support.simulation.world import Violation, World

#: After so many writing steps everything is compared, whatever they named.
ALL_AFTER = 50
_BY_FIRST = frozenset({"dispatch", "withdraw", "settle", "finish", "repair"})


class Difference(Violation):
    """The two sides do not say the same."""


@dataclass(frozen=True)
class Said:
    """What one side answered to a call, or the class of what it raised."""

    reply: Any = None
    raised: type[Exception] | None = None


def said(call: Callable[[], Any]) -> Said:
    """Carry a call out."""
    try:
        return Said(comparable(call()))
    except (OvernightError, ValueError) as error:
        return Said(raised=type(error))


@dataclass
class Call:
    """The call under way, and what the real server answered."""

    line: Line
    name: str
    arguments: tuple[Any, ...]
    theirs: Said
    #: How many changes of the set of active runs the line had seen before.
    seen: int


class DifferentialServer(Server):
    """A server of the simulation, and a real one."""

    def __init__(self, world: World, oracle: Oracle, client: redis.Redis) -> None:
        super().__init__(world, oracle)
        client.flushall()
        self._client = client
        self._stores: dict[Line, RedisStore] = {}
        self._connection: Any = client.connection_pool.get_connection()
        self._own = self._store()
        self._keys = self._own.server.keys
        self._reader = Reader(self._connection, self._keys)
        self._snapshot: list[tuple[bytes, int, bytes]] = []
        self._kept = 0
        #: For each time that the server fell back: the changes of the set of active runs that it kept, and the number
        #: from which they are counted since.
        self._falls: list[tuple[int, int]] = []
        #: Of each run the ids of the events that stand on the real server, by number.
        self._ids: dict[str, list[str]] = {}
        #: Of each run a position that the real server has lost: whoever is there must hear of it.
        self._lost: dict[str, str] = {}
        self._call: Call | None = None
        #: How often anything was written, and of each line what it last waited for, and when.
        self._writes = 0
        self._waited: dict[Line, tuple[int, Any]] = {}
        self.compared = 0

    def close(self) -> None:
        self._client.connection_pool.release(self._connection)

    def _store(self) -> RedisStore:
        return clocked_store(self._client, self._connection, self.world.server_clock, lambda: self.world.now)

    # Calls.

    def _carried_out(self, line: Line, name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if self._has_nothing_new(line, name, arguments):
            return super()._carried_out(line, name, arguments, options)
        if line not in self._stores:
            self._stores[line] = self._store()
        store = self._stores[line]
        theirs = said(lambda: getattr(store, name)(*self._translated(name, arguments), **options))
        self._call = Call(line, name, arguments, theirs, line.store._seen_changes)
        try:
            reply = super()._carried_out(line, name, arguments, options)
        except (OvernightError, ValueError) as error:
            self._compare_replies(self._call, Said(raised=type(error)))
            self._compare_state()
            raise
        self._compare_replies(self._call, Said(comparable(reply)))
        return reply

    def _has_nothing_new(self, line: Line, name: str, arguments: tuple[Any, ...]) -> bool:
        """Tell whether the real server was asked the same before and nothing was written since: so many round trips
        less."""
        if name not in ("wait", "follow"):
            self._writes += name in WRITING
            return False
        asked = (self._writes, (name, arguments))
        if self._waited.get(line) == asked:
            return True
        self._waited[line] = asked
        return False

    def _count_script(self) -> None:
        """Both sides have carried a writing call out; the server may fall back right after it."""
        self._compare_state()
        super()._count_script()

    def _translated(self, name: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments with cursors as the real server gave them out."""
        if name == "wait":
            cursors, seconds = arguments
            return ({run_id: self._cursor(run_id, cursor) for run_id, cursor in cursors.items()}, seconds)
        if name == "follow":
            run_id, cursor, seconds = arguments
            return (run_id, self._cursor(run_id, cursor), seconds)
        return arguments

    def _cursor(self, run_id: str, cursor: str) -> str:
        number = Cursor.parse(cursor).number
        ids = self._ids.get(run_id, [])
        return Cursor(ids[number - 1] if 0 < number <= len(ids) else "0-0", number).text

    def lose(self, run_id: str, task: int, left: bytes | None) -> None:
        super().lose(run_id, task, left)
        key = self._keys.of_run(run_id, "results")
        command = ("HDEL", key, task) if left is None else ("HSET", key, task, left)
        self._connection.send_command(*command)
        self._connection.read_response()

    # Comparing.

    def _compare_replies(self, call: Call, ours: Said) -> None:
        self.compared += 1
        theirs = call.theirs
        if call.name == "wait" and ours.raised is None and theirs.raised is None:
            ours, theirs = self._comparable_waits(call, ours, theirs)
        if not alike(ours.raised, theirs.raised) or not alike(ours.reply, theirs.reply):
            self._differ("the reply", ours, theirs)

    def _comparable_waits(self, call: Call, ours: Said, theirs: Said) -> tuple[Said, Said]:
        """Of runs that are gone or behind, the real server tells these first, and the rest when asked again: so too of
        those that have lost dispatches, which it tells as a GAP."""
        runs = self.data.runs
        cursors: dict[str, str] = call.arguments[0]
        gone = cursors.keys() - runs.keys()
        behind = {id_ for id_ in cursors.keys() - gone if runs[id_].sequence < Cursor.parse(cursors[id_]).number}
        tells_first = any(event.what is Happening.GAP for event in theirs.reply[0])
        changed = bool(gone) or self._has_changed(call.seen)
        changed = changed and (theirs.reply[1] or not tells_first)
        return (
            Said((_by_run(ours.reply[0], gone | behind), changed)),
            Said((_by_run(theirs.reply[0], gone | behind), theirs.reply[1])),
        )

    def _has_changed(self, seen: int) -> bool:
        """Tell whether the set of active runs is not what a line has seen: its server may have lost what it saw."""
        seen = max(seen, 0)
        for kept, base in self._falls:
            if seen < base:
                if seen != kept:
                    return True
                seen = base
        return self.data.changes > seen

    def _compare_state(self) -> None:
        call = self._call
        assert call is not None
        self.compared += 1
        if self.compared % ALL_AFTER:
            self.compare([run_id for run_id in dict.fromkeys(_named(call)) if run_id in self.data.runs], OF_RUN)
        else:
            self.compare_all()

    def compare_all(self) -> None:
        """Compare all that both sides hold."""
        self.compare(sorted(self.data.runs), (*OF_RUN, *FIXED))
        self._expect_gaps()
        durations = {name: list(value) for name, value in self.data.durations.items()}
        stored = stored_durations(self._client, self._keys)
        if not alike(durations, stored):
            self._differ("durations", durations, stored)

    def _expect_gaps(self) -> None:
        """P9: whoever followed a run beyond where the server fell back to is told, whatever has happened since."""
        for run_id, cursor in self._lost.items():
            if run_id in self.data.runs:
                told = self._own.follow(run_id, cursor, 0)
                if not told or told[0].what is not Happening.GAP:
                    self._differ(f"a follower of {run_id} at {cursor}, which is lost", Happening.GAP, told)

    def compare(self, run_ids: Sequence[str], names: Sequence[str]) -> None:
        """Compare what runs share, and these runs."""
        cursors = [f"({ids[-1]}" if (ids := self._ids.get(run_id)) else "-" for run_id in run_ids]
        shared, runs = self._reader.read(run_ids, cursors, names)
        ours, theirs = kept_shared(self.data), stored_shared(shared)
        if not alike(ours, theirs):
            self._differ("what runs share", *_parts(ours, theirs))
        for run_id, read in zip(run_ids, runs, strict=True):
            run = self.data.runs.get(run_id)
            ours, theirs = kept_run(run, names) if run is not None else {}, stored_run(read)
            if not alike(ours, theirs):
                self._differ(f"run {run_id}", *_parts(ours, theirs))
            self._compare_events(run_id, read["events"])

    def _compare_events(self, run_id: str, entries: Iterable[Any]) -> None:
        ids = self._ids.setdefault(run_id, [])
        run = self.data.runs.get(run_id)
        ours = [told(event) for event in list(run.events)[len(ids) :]] if run is not None else []
        theirs = [told(unpacked_event(run_id, entry_id, as_mapping(entry))) for entry_id, entry in entries]
        if not alike(ours, theirs):
            self._differ(f"events of run {run_id}", ours, theirs)
        ids += [entry_id.decode() for entry_id, _ in entries]

    def _differ(self, what: str, ours: Any, theirs: Any) -> None:
        call, world = self._call, self.world
        asked = f"{call.line.owner} {call.name}{call.arguments!r}" if call is not None else "nothing"
        text = f"seed {world.seed}, step {world.steps}: {what} after {asked}\n  memory: {ours!r}\n  server: {theirs!r}"
        world.note(None, text)
        found = Difference(text)
        world.broken = world.broken or found
        raise found

    # Restarts.

    def _maybe_restart(self) -> None:
        was_saved = self._saved is not None
        super()._maybe_restart()
        if self._saved is not None and not was_saved:
            self._snapshot, self._kept = self._dumped(), self.data.changes

    def restart(self, saved: bytes | None) -> None:
        is_rollback = saved is not None and saved is self._saved
        snapshot, kept = (self._snapshot, self._kept) if is_rollback else ([], 0)
        super().restart(saved)
        self._writes += 1
        if saved is not None:
            self._falls.append((kept, self.data.changes))
            self._client.flushall()
            self._restore(snapshot)
            self._await_the_next_millisecond()
            followed = {run_id: Cursor(ids[-1], len(ids)).text for run_id, ids in self._ids.items() if ids}
            self._ids.clear()
            self.compare_all()
            self._lost |= {id_: text for id_, text in followed.items() if text != self._cursor(id_, text)}
            self._expect_gaps()

    def _dumped(self) -> list[tuple[bytes, int, bytes]]:
        keys = [key for key in self._client.scan_iter() if key != CLOCK.encode()]
        with self._client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.pttl(key)
                pipeline.dump(key)
            replies = pipeline.execute()
        return [(key, max(0, left), dump) for key, left, dump in zip(keys, replies[::2], replies[1::2], strict=True)]

    def _restore(self, snapshot: list[tuple[bytes, int, bytes]]) -> None:
        with self._client.pipeline(transaction=False) as pipeline:
            for key, left, dump in snapshot:
                pipeline.restore(key, left, dump)
            pipeline.execute()

    def _await_the_next_millisecond(self) -> None:
        """Event ids are times: a server that fell back is up again later than what it lost."""
        began: Any = self._client.time()
        while (now := self._client.time()) and (now[0], now[1] // 1000) <= (began[0], began[1] // 1000):
            time.sleep(0.0002)


def _by_run(events: Iterable[RunEvent], lost: set[str]) -> dict[str, list[RunEvent]]:
    groups: dict[str, list[RunEvent]] = {}
    for event in events:
        if not lost or (event.run_id in lost and event.what is Happening.GAP):
            groups.setdefault(event.run_id, []).append(event)
    return groups


def _named(call: Call) -> Iterable[str]:
    """Yield the ids of the runs that a call may have changed."""
    for argument in call.arguments[:2]:
        if isinstance(argument, str):
            yield argument
        elif hasattr(argument, "run_id"):
            yield argument.run_id
    if isinstance(call.theirs.reply, list):
        yield from (one.run_id for one in call.theirs.reply if isinstance(one, Reaped))


def _parts(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parts in which two records differ."""
    names = [name for name in {**ours, **theirs} if not alike(ours.get(name), theirs.get(name))]
    return {name: ours.get(name) for name in names}, {name: theirs.get(name) for name in names}
