"""The product's Redis store on a clock that a test moves.

Each script reads the server's clock once, by ``redis.call('TIME')`` in `common.lua`; whatever else wants the time asks
the server for it by TIME. So one line before each script's own text, and one place where commands are sent, are all
that must stand in for the clock. Lifetimes of keys go on by the server's own clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import redis
from redis.exceptions import ResponseError

from overnight.store.redis import RedisStore
from overnight.store.redis_server import Command, Server
from overnight.store.scripts import SCRIPTS, Script
from tests.support.simulation.faults import LEASE
from tests.support.simulation.server import MOVED

PREFIX = "differential"
CLOCK = f"{{{PREFIX}}}:clock"
_CLOCKED = f"""
local server = redis
local redis = {{sha1hex = server.sha1hex, call = function(command, ...)
  if command == 'TIME' then return {{string.match(server.call('GET', '{CLOCK}'), '(%d+) (%d+)')}} end
  return server.call(command, ...)
end}}
"""


def clocked(script: Script) -> Script:
    """Return a script that reads the clock of a test."""
    text = _CLOCKED + script.text
    return Script(script.name, text, hashlib.sha1(text.encode("ascii"), usedforsecurity=False).hexdigest())


#: The scripts by name, as clocked stores run them.
CLOCKED_SCRIPTS = {script.name: clocked(script) for script in SCRIPTS}


class ClockedServer(Server):
    """A server whose scripts and whose TIME tell what `clock` says, over one connection that stays.

    Pipelines, which take a connection and give it back, cost more than the server itself.
    """

    def __init__(self, client: redis.Redis, connection: Any, clock: Callable[[], float]) -> None:
        super().__init__(client, PREFIX)
        self._connection = connection
        self._clock = clock

    def on_run(self, script: Script, run_id: str, *arguments: Any) -> Command:
        return super().on_run(CLOCKED_SCRIPTS[script.name], run_id, *arguments)

    def on_shared(self, script: Script, *arguments: Any) -> Command:
        return super().on_shared(CLOCKED_SCRIPTS[script.name], *arguments)

    def _execute(self, commands: Sequence[Command]) -> list[Any]:
        now = divmod(round(self._clock() * 1e6), 1_000_000)
        sent = [("SET", CLOCK, "{} {}".format(*now)), *commands]
        self._connection.send_packed_command(self._connection.pack_commands(sent))
        _, *replies = [self._reply(command[0]) for command in sent]
        return [now if command == ("TIME",) else reply for command, reply in zip(commands, replies, strict=True)]

    def _reply(self, name: str) -> Any:
        try:
            return self.client.parse_response(self._connection, name)  # type: ignore[no-untyped-call]
        except ResponseError as error:
            return error


@contextmanager
def other_script(client: redis.Redis, name: str, right: str, wrong: str) -> Iterator[None]:
    """Let clocked stores run a script in which one part is another."""
    kept = CLOCKED_SCRIPTS[name]
    assert right in kept.text, f"{name}.lua does not hold {right!r}"
    text = kept.text.replace(right, wrong)
    CLOCKED_SCRIPTS[name] = replace(kept, text=text, sha=client.script_load(text))
    try:
        yield
    finally:
        CLOCKED_SCRIPTS[name] = kept


def load_scripts(client: redis.Redis) -> None:
    """Make the clocked scripts known to a server."""
    for script in CLOCKED_SCRIPTS.values():
        client.script_load(script.text)


def clocked_store(
    client: redis.Redis, connection: Any, clock: Callable[[], float], monotonic: Callable[[], float]
) -> RedisStore:
    """Return a store on a server that knows the scripts; it uses this connection of the client's."""
    store = RedisStore(client, PREFIX, monotonic, lease_seconds=LEASE, heartbeat_seconds=MOVED)
    store.server = ClockedServer(client, connection, clock)
    return store
