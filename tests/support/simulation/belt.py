"""The unreliable lines by which actors reach the queues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from overnight.errors import Unreachable
from overnight.transport.port import Entry

if TYPE_CHECKING:
    from tests.support.simulation.server import Server


class Belt:
    """One actor's connection to the queues."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def push(self, entries: Sequence[Entry]) -> None:
        self._step("push")
        world = self._server.world
        for entry in entries:
            if world.strikes("entry"):
                self._mislead(entry)
            else:
                self._server.queues.push([entry])
        world.wake_all()

    def _mislead(self, entry: Entry) -> None:
        """Lose an entry, double it, or deliver it late."""
        world = self._server.world
        kind = world.random.choice(("lost", "doubled", "late"))
        world.note(None, f"queue entry {kind}")
        if kind == "doubled":
            self._server.queues.push([entry])
            self._server.queues.push([entry])
        if kind == "late":

            def deliver() -> None:
                self._server.queues.push([entry])
                world.wake_all()

            world.start("late", deliver, world.random.random() * 6.0)

    def missing(self, entries: Sequence[Entry]) -> list[Entry]:
        self._step("missing")
        return self._server.queues.missing(entries)

    def remove(self, entries: Sequence[Entry]) -> None:
        self._step("remove")
        self._server.queues.remove(entries)

    def depth(self, queue: str) -> int:
        self._step("depth")
        return self._server.queues.depth(queue)

    def pop(self, queue: str) -> Entry | None:
        """Take an entry, as a worker does; killed right after it, the entry is in no list."""
        self._step("pop")
        entry = self._server.queues.pop(queue)
        if entry is not None and self._server.world.storm:
            self._server.world.step("popped")
        return entry

    def take(self, queue: str, seconds: float) -> Entry | None:
        """Take an entry as soon as there is one, at most so many seconds later."""
        server, world = self._server, self._server.world
        deadline = world.now + seconds
        entry = self.pop(queue)
        while entry is None and world.now < deadline:
            world.park(deadline - world.now, listening=True)
            if server.is_down or server.queues.depth(queue):
                entry = self.pop(queue)
        return entry

    def _step(self, name: str) -> None:
        self._server.world.step(name)
        if self._server.is_down:
            raise Unreachable("The server is down.")
