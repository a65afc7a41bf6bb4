"""Why the server refused a command: which of overnight's keys holds another type than overnight keeps there.

A server says WRONGTYPE and no more. Whoever reads that is told the key, what belongs there, what stands there, and what
to do about it. Looked at after a command has failed, and never before one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis
from redis.exceptions import RedisError

from overnight.errors import DamagedRun, MisusedKey
from overnight.store.keys import Keys

_WRONG_TYPE = "WRONGTYPE"
_NAMES = {"zset": "sorted set"}
#: What to do about a key that all runs share.
_REMEDY = "Delete or rename it; what waits for it then goes on."


def is_of_types(error: Exception) -> bool:
    """Tell whether a server refused a command for the type of a key."""
    return isinstance(error, RedisError) and _WRONG_TYPE in str(error)


def explained(client: redis.Redis, keys: Keys, command: Sequence[Any], address: str) -> MisusedKey | DamagedRun | None:
    """Return what is wrong with the keys of a command that was refused for a type.

    MisusedKey where all runs share the key, else DamagedRun. None if the types are right by now, or are not told.
    """
    faults = wrong_keys(client, keys, [argument for argument in command if isinstance(argument, str)], address)
    shared = [fault for fault in faults if isinstance(fault, MisusedKey)]
    return next(iter(shared or faults), None)


def wrong_keys(client: redis.Redis, keys: Keys, names: Sequence[str], address: str) -> list[MisusedKey | DamagedRun]:
    """Return one sentence for each of these names that is a key of overnight's and holds another type."""
    faults: list[MisusedKey | DamagedRun] = []
    for name, found in _types(client, [name for name in dict.fromkeys(names) if keys.type_of(name) is not None]):
        wanted = keys.type_of(name) or ""
        if found in ("none", wanted):
            continue
        text = (
            f"The key {name} on the server {address} must be a {_NAMES.get(wanted, wanted)} and is a "
            f"{_NAMES.get(found, found)}: overnight did not write it."
        )
        is_shared = keys.run_of(name) is None
        faults.append(MisusedKey(f"{text} {_REMEDY}") if is_shared else DamagedRun(text))
    return faults


def _types(client: redis.Redis, names: Sequence[str]) -> list[tuple[str, str]]:
    """Return name and type of those keys whose type this process may ask for."""
    try:
        with client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.type(name)
            replies = pipeline.execute(raise_on_error=False)
    except (RedisError, OSError):
        return []
    found = zip(names, replies, strict=True)
    return [(name, reply.decode("ascii")) for name, reply in found if isinstance(reply, bytes)]
