"""How the roles of the Redis store reach the server: scripts and plain reads, many in one round trip.

A script that the server does not know (a new server, a flushed cache) is loaded with all others, and what was sent is
sent again whole: every command here may be repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from redis.exceptions import NoScriptError, RedisError

from overnight.errors import DamagedRun, Fenced, MisusedKey, Refused, UnknownRun, Unreachable
from overnight.store.connection import address, translated
from overnight.store.key_types import explained, is_of_types, wrong_keys
from overnight.store.keys import Keys
from overnight.store.records import Epoch
from overnight.store.scripts import SCRIPTS, Script

Command = tuple[Any, ...]


class Server:
    """A server and the names of one deployment's keys on it."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self.client = client
        self.keys = Keys(prefix)
        self.address = address(client)

    def on_run(self, script: Script, run_id: str, *arguments: Any) -> Command:
        """Return the command that runs a script on a run."""
        keys = self.keys.for_run_script(run_id)
        return ("EVALSHA", script.sha, len(keys), *keys, run_id, *arguments)

    def on_shared(self, script: Script, *arguments: Any) -> Command:
        """Return the command that runs a script on what all runs share."""
        keys = self.keys.for_shared_script()
        return ("EVALSHA", script.sha, len(keys), *keys, *arguments)

    def send(self, command: Command) -> Any:
        """Carry out one command."""
        return self.send_all([command])[0]

    def send_all(self, commands: Iterable[Command]) -> list[Any]:
        """Carry out commands in order, in one round trip; Unreachable or StoreFull if any of them fails."""
        replies = self.send_each(commands)
        for reply in replies:
            if isinstance(reply, DamagedRun):
                raise reply
        return replies

    def send_each(self, commands: Iterable[Command]) -> list[Any]:
        """Do as `send_all`, with a DamagedRun in place of the reply to a command that failed on a damaged record."""
        pending = list(commands)
        if not pending:
            return []
        try:
            replies = self._execute(pending)
            if any(isinstance(reply, NoScriptError) for reply in replies):
                self._execute([("SCRIPT LOAD", script.text) for script in SCRIPTS])
                replies = self._execute(pending)
        except (RedisError, OSError) as error:
            raise translated(error, self.address) from error
        return [self._checked(command, reply) for command, reply in zip(pending, replies, strict=True)]

    def _checked(self, command: Command, reply: Any) -> Any:
        if not isinstance(reply, Exception):
            return reply
        error = self._explained(command, reply) or translated(reply, self.address)
        if not isinstance(error, DamagedRun):
            raise error from reply
        error.__cause__ = reply
        return error

    def misused_keys(self) -> list[MisusedKey | DamagedRun]:
        """Return what is wrong with the types of the keys that all runs share."""
        return wrong_keys(self.client, self.keys, self.keys.for_shared_script(), self.address)

    @contextmanager
    def naming(self, run_id: str, name: str) -> Iterator[None]:
        """Have a DamagedRun say which key of the run was read."""
        try:
            yield
        except DamagedRun as error:
            raise DamagedRun(f"The key {self.keys.of_run(run_id, name)} on {self.address}: {error}") from error

    def _explained(self, command: Command, reply: Exception) -> Unreachable | None:
        return explained(self.client, self.keys, command, self.address) if is_of_types(reply) else None

    def _execute(self, commands: Sequence[Command]) -> list[Any]:
        with self.client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py does not annotate it
            return pipeline.execute(raise_on_error=False)


def check_known(reply: Any, run_id: str) -> None:
    """Raise what a script's one-word reply stands for: UnknownRun or Fenced."""
    if reply == b"unknown":
        raise UnknownRun(f"The server knows no run {run_id}.")
    if reply == b"fenced":
        raise Fenced("Another scheduler has taken over the right to dispatch.")


def check_not_busy(reply: Sequence[Any], run_id: str) -> None:
    """Raise Refused where an ended run cannot become active because another one is in its way."""
    if reply[0] == b"busy":
        raise Refused(f"Run {run_id} cannot go on: run {reply[1].decode()} works on the same graph or place.")


def fence(epoch: Epoch) -> tuple[int, str]:
    """Return an epoch as scripts compare it."""
    return epoch.number, epoch.holder
