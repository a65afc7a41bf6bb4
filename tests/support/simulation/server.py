"""The server of a world: what it holds, how it forgets, and the unreliable lines by which actors reach it.

A line has every method of the memory store; each call is a step of the world, is watched by the oracle, and may be
lost before or after it was carried out, or carried out twice, as a client that sends a command again does.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from overnight.errors import StoreFull, Unreachable
from overnight.store.codec import Cursor
from overnight.store.memory import MemoryStore
from overnight.store.memory_data import MemoryData
from overnight.store.records import Happening, RunEvent
from overnight.transport.memory import MemoryTransport
from tests.support.simulation.faults import HEARTBEAT, LEASE
from tests.support.simulation.oracle import Oracle
from tests.support.simulation.world import World

WRITING = frozenset(
    {
        "open_run", "put_blobs", "add_tasks", "activate", "adopt", "rewrite_result", "restore_digests", "invalidate",
        "repair", "mend", "request",
        "take_epoch", "leave_epoch", "dispatch", "withdraw", "settle", "finish", "reap", "write_durations",
        "register", "heartbeat", "unregister", "claim", "commit", "give_back",
    }
)  # fmt: skip
#: By more than this the clock has moved. It moves by halves of a second, which never come to this.
MOVED = 1.1 * HEARTBEAT
#: What a server without room refuses.
NEEDS_ROOM = frozenset({"open_run", "put_blobs", "add_tasks", "dispatch"})
#: How often a scheduler waits before it is looked at although it has heard nothing.
IDLE_WAITS = 4
#: What wakes those who wait for events.
TELLING = WRITING - {
    "put_blobs",
    "rewrite_result",
    "restore_digests",
    "take_epoch",
    "write_durations",
    "register",
    "heartbeat",
}


class Server:
    """What the server holds, and what becomes of it."""

    def __init__(self, world: World, oracle: Oracle) -> None:
        self.world = world
        self.oracle = oracle
        self.data = MemoryData()
        self.queues = MemoryTransport()
        self.down_until = 0.0
        self.full_until = 0.0
        #: For each restart that lost something: run id -> number of the last event that is still known.
        self.rollbacks: list[dict[str, int]] = []
        self._saved: bytes | None = None
        self._scripts_until_loss = 0
        self._is_telling = False
        oracle.server = self

    @property
    def is_down(self) -> bool:
        """Tell whether nobody can reach the server now."""
        return self.world.now < self.down_until

    def call(self, line: Line, name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Carry one call out, or fail."""
        world = self.world
        world.step(name)
        self._maybe_restart()
        if self.is_down:
            world.sleep(0.05)
            raise Unreachable("The server is down.")
        if world.strikes("request"):
            raise Unreachable("The request was lost.")
        if name in NEEDS_ROOM and self._is_full():
            raise StoreFull("There is no room.")
        reply = self._carried_out(line, name, arguments, options)
        if name in WRITING and world.strikes("repeat"):
            world.sleep(world.random.choice((0.0, 0.01, 0.1, 1.0)))
            reply = self._carried_out(line, name, arguments, options)
        if world.strikes("reply"):
            raise Unreachable("The reply was lost.")
        if world.storm:
            world.step(f"after {name}")
        return reply

    def _carried_out(self, line: Line, name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        line.store.data = self.data
        method = getattr(line.store, name)
        if name not in WRITING:
            return method(*arguments, **options)
        with self.oracle.script(line.owner, name, arguments) as told:
            reply = told.reply = method(*arguments, **options)
        self._is_telling = name in TELLING
        self._count_script()
        if name in TELLING:
            self.world.wake_all()
        return reply

    def _is_full(self) -> bool:
        world = self.world
        if world.strikes("memory"):
            self.full_until = world.now + world.random.choice((0.3, 2.0, 8.0))
        return world.storm and world.now < self.full_until

    # Restarts.

    def _maybe_restart(self) -> None:
        world = self.world
        if self._saved is None and world.strikes("restart"):
            kind = world.random.choice(("nothing", "some", "some", "some", "all"))
            if kind == "some":
                self._saved = pickle.dumps((self.data, self.queues))
                self._scripts_until_loss = world.random.randint(1, world.random.choice((3, 12)))
            else:
                self.restart(pickle.dumps((MemoryData(), MemoryTransport())) if kind == "all" else None)
        if world.strikes("outage"):
            self.down_until = world.now + world.random.choice((0.3, 1.0, 4.0))
        if world.strikes("clock"):
            world.server_skew += world.random.choice((-8.0, -2.0, -0.5, 0.5, 2.0, 8.0))

    def _count_script(self) -> None:
        """Fall back after so many scripts that changed a run: signs of life do not count."""
        if self._saved is None:
            return
        self._scripts_until_loss -= int(self._is_telling)
        if self._scripts_until_loss <= 0 or not self.world.storm:
            self.restart(self._saved)

    def restart(self, saved: bytes | None) -> None:
        """Come back with what was saved; None: with everything. Half of all restarts are hidden by the client."""
        world = self.world
        self._saved = None
        world.cost("")
        world.note(None, f"server restarts, {'losing nothing' if saved is None else 'having lost something'}")
        if saved is not None:
            lost = self.data.changes
            self.data, self.queues = pickle.loads(saved)
            self.rollbacks.append({run_id: run.sequence for run_id, run in self.data.runs.items()})
            self.data.changes = max(lost, self.data.changes) + 1_000_000
            self.oracle.fell_back()
        if world.random.random() < 0.5:
            self.down_until = world.now + world.random.choice((0.2, 0.5, 2.0))
        world.wake_all()

    def lose(self, run_id: str, task: int, left: bytes | None) -> None:
        """Lose what is recorded of a result; something else may be left in its place."""
        results = self.data.runs[run_id].results
        if left is None:
            del results[task]
        else:
            results[task] = left

    def settle_down(self) -> None:
        """The storm is over."""
        if self._saved is not None:
            self.restart(self._saved)
        self.down_until = 0.0


def store_on(world: World) -> MemoryStore:
    """Return a memory store on a world's clocks."""
    return MemoryStore(world.server_clock, lambda: world.now, lease_seconds=LEASE, heartbeat_seconds=MOVED)


class Line:
    """One actor's connection to the server: every port of the store."""

    def __init__(self, server: Server, owner: str) -> None:
        self.server = server
        self.owner = owner
        self.store = store_on(server.world)
        self._known_rollbacks: dict[str, int] = {}
        #: The last event of each run that was lost on its way here, and how often the server had fallen back by then.
        self._lost: dict[str, tuple[int, int]] = {}
        self._has_heard = True
        self._waits = 0
        #: Called when a scheduler begins to wait: everything it heard has been handled. Seldom where that was nothing.
        self.at_rest: Callable[[], None] | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)

        def call(*arguments: Any, **options: Any) -> Any:
            return self.server.call(self, name, arguments, options)

        self.__dict__[name] = call
        return call

    def wait(self, cursors: Any, seconds: float) -> tuple[list[RunEvent], bool]:
        """Wait as the scheduler does."""
        self._waits += 1
        if self.at_rest is not None and (self._has_heard or self._waits % IDLE_WAITS == 0):
            self.at_rest()
        deadline = self.server.world.now + seconds
        while True:
            gaps = [gap for run_id, cursor in cursors.items() for gap in self._gap(run_id, cursor)]
            held = {run_id: self._held_back(run_id, cursor) for run_id, cursor in cursors.items()}
            events, changed = self.server.call(self, "wait", (held, 0), {})
            events = self._heard(gaps + events)
            self._has_heard = bool(events) or changed
            if self._has_heard or self.server.world.now >= deadline:
                return self._reached(events), changed
            self._listen(deadline, cursors, self.store._seen_changes)

    def follow(self, run_id: str, cursor: str, seconds: float) -> list[RunEvent]:
        """Wait as a client does."""
        deadline = self.server.world.now + seconds
        while True:
            gaps = list(self._gap(run_id, cursor))
            events = self.server.call(self, "follow", (run_id, self._held_back(run_id, cursor), 0), {})
            events = self._heard(gaps + events)
            if events or self.server.world.now >= deadline:
                return self._reached(events)
            self._listen(deadline, {run_id: cursor}, None)

    def _listen(self, deadline: float, cursors: Mapping[str, str], changes: int | None) -> None:
        """Wait at the server: nothing goes over the line before there is something to tell, for those who know of so
        many `changes` of the set of active runs that there are others."""
        server = self.server
        while server.world.now < deadline:
            server.world.park(deadline - server.world.now, listening=True)
            is_changed = changes not in (None, server.data.changes)
            if server.is_down or is_changed or any(self._has_news(*one) for one in cursors.items()):
                return

    def _has_news(self, run_id: str, cursor: str) -> bool:
        run = self.server.data.runs.get(run_id)
        return run is None or run.sequence != Cursor.parse(self._held_back(run_id, cursor)).number

    def _heard(self, events: list[RunEvent]) -> list[RunEvent]:
        """Return the events that arrive: some never do, some twice, some with a later look."""
        world = self.server.world
        heard: list[RunEvent] = []
        for event in events:
            kind = world.random.choice(("lost", "lost", "doubled", "late")) if world.strikes("event") else ""
            if kind == "late":
                break
            if kind == "lost" and event.what is not Happening.GAP:
                self._lost[event.run_id] = (Cursor.parse(event.cursor).number, len(self.server.rollbacks))
            elif kind != "lost":
                heard += [event] * (2 if kind == "doubled" else 1)
        return heard

    def _past_lost(self, run_id: str, cursor: str) -> str:
        """Return the cursor behind what was lost on the way: nobody looks for that again."""
        number, rollbacks = self._lost.get(run_id, (0, 0))
        is_behind = number > Cursor.parse(cursor).number and rollbacks == len(self.server.rollbacks)
        return Cursor(f"{number}-0", number).text if is_behind else cursor

    # A server that lost entries numbers new ones from where it fell back to. A real one's carry times besides, by
    # which a follower that was further sees with the first new entry that some are gone.

    def _base(self, run_id: str) -> int | None:
        known = self._known_rollbacks.get(run_id, 0)
        numbers = [lost.get(run_id, 0) for lost in self.server.rollbacks[known:]]
        return min(numbers) if numbers else None

    def _held_back(self, run_id: str, cursor: str) -> str:
        cursor = self._past_lost(run_id, cursor)
        base, number = self._base(run_id), Cursor.parse(cursor).number
        if base is None or number <= base:
            return cursor
        run = self.server.data.runs.get(run_id)
        return Cursor(f"{base}-0", base).text if run is not None and run.sequence >= base else cursor

    def _gap(self, run_id: str, cursor: str) -> Sequence[RunEvent]:
        base, run = self._base(run_id), self.server.data.runs.get(run_id)
        if base is None or run is None or Cursor.parse(cursor).number <= base or run.sequence <= base:
            return ()
        return (RunEvent(run_id, Cursor(f"{base}-0", base).text, Happening.GAP),)

    def _reached(self, events: list[RunEvent]) -> list[RunEvent]:
        for event in events:
            self._known_rollbacks[event.run_id] = len(self.server.rollbacks)
        return events

    def load_run(self, run_id: str) -> Any:
        """Read a run: what follows is followed from there."""
        snapshot = self.server.call(self, "load_run", (run_id,), {})
        self._known_rollbacks[run_id] = len(self.server.rollbacks)
        return snapshot
