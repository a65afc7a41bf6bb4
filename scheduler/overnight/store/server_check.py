"""Whether a run is safe on a server: what INFO says, compared with what the protocol needs.

Read at start and after each reconnect to a server with another `run_id`. What the access rules forbid to read is
unknown, and what is unknown is neither refused nor warned of.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.exceptions import RedisError, ResponseError

from overnight.config import Settings
from overnight.errors import ServerUnfit, Unreachable, UsageError
from overnight.keyring import COMMAND_THAT_MAKES_A_KEY, KEY_VARIABLE, Keyring
from overnight.store.connection import connect, hidden, translated

OLDEST = (6, 2)
LEAST_FREE = 0.2
#: First versions without the remote-code flaw CVE-2025-49844, by major and minor.
_PATCHED: dict[str, dict[tuple[int, ...], int]] = {
    "redis": {(6, 2): 20, (7, 2): 11, (7, 4): 6, (8, 0): 4, (8, 2): 2},
    "valkey": {(7, 2): 11, (8, 0): 6, (8, 1): 4},
}
_SINCE_PATCHED: dict[str, tuple[int, ...]] = {"redis": (8, 3), "valkey": (9, 0)}


@dataclass(frozen=True, slots=True)
class ServerReport:
    """What was found: the server's id (changes when it restarts), product and version, refusals, warnings."""

    run_id: str
    version: str
    refusals: tuple[str, ...]
    warnings: tuple[str, ...]


def reach(url: str, settings: Settings) -> tuple[redis.Redis, ServerReport]:
    """Return a client of a server on which a run is safe, and the report on it. Raises as `connect`, or ServerUnfit."""
    client = connect(url, settings=settings)
    try:
        return client, check_server(client, url)
    except ServerUnfit:
        raise
    except Unreachable:  # it ended after it had answered
        client.close()
        client = connect(url, settings=settings)
        return client, check_server(client, url)


def check_server(client: redis.Redis, url: str) -> ServerReport:
    """Return the report on a server on which a run is safe; ServerUnfit names what to change on any other."""
    report = examine(client, url)
    if report.refusals:
        raise ServerUnfit(f"The server {hidden(url)} cannot carry a run: {' '.join(report.refusals)}")
    return report


def examine(client: redis.Redis, url: str) -> ServerReport:
    """Return the report on a server, whatever it says. Unreachable if the server does not answer."""
    return judge(read_facts(client, url), client, url)


def read_facts(client: redis.Redis, url: str) -> dict[str, Any]:
    """Return what the server says of itself, as far as this user may ask. Unreachable if it does not answer."""
    try:
        facts = _read(client.info)
        for directive in ("appendfsync", "no-appendfsync-on-rewrite"):
            facts |= _read(client.config_get, directive)
    except (RedisError, OSError) as error:
        raise translated(error, hidden(url)) from error
    return facts


def judge(facts: Mapping[str, Any], client: redis.Redis, url: str) -> ServerReport:
    """Return the report on a server that says this of itself."""
    product = "valkey" if "valkey_version" in facts else "redis"
    version = str(facts.get("valkey_version") or facts.get("redis_version") or "unknown")
    return ServerReport(
        str(facts.get("run_id", "")),
        f"{product} {version}",
        (*_refusals(facts), *_open_to_all(client, url)),
        (*_warnings(facts), *_remote_warnings(product, version, url)),
    )


def refusal_of_changes(client: redis.Redis, url: str) -> str | None:
    """Say why the server refuses all changes now; None if it takes them, or if that cannot be told."""
    try:
        facts = _read(client.info)
    except (RedisError, OSError):
        return None
    if facts.get("aof_last_write_status", "ok") != "ok":
        return f"The server {hidden(url)} cannot write to its disk and refuses changes: make room there."
    limit, used = facts.get("maxmemory") or 0, facts.get("used_memory") or 0
    if limit and used > limit:
        return f"The memory of the server {hidden(url)} is full and it refuses changes: raise its maxmemory."
    return None


def _read(question: Callable[..., Any], *arguments: str) -> dict[str, Any]:
    try:
        return dict(question(*arguments))
    except ResponseError:  # forbidden or unknown there: these facts stay unknown
        return {}


def _refusals(facts: Mapping[str, Any]) -> Iterator[str]:
    spoken = str(facts.get("redis_version", ""))
    if spoken and _numbers(spoken)[:2] < OLDEST:
        yield f"It is version {spoken}; version {OLDEST[0]}.{OLDEST[1]} or newer is needed."
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield f"Its eviction policy {policy} deletes tasks silently: set `maxmemory-policy noeviction`."
    if facts.get("role", "master") != "master":
        yield "It is a replica: name its primary."


def _open_to_all(client: redis.Redis, url: str) -> Iterator[str]:
    options = client.connection_pool.connection_kwargs
    has_secret = options.get("password") or options.get("credential_provider")
    if is_remote(url) and not has_secret:
        yield "It is reached over the network without a password: set `requirepass` or a user, and name it in the URL."


def _warnings(facts: Mapping[str, Any]) -> Iterator[str]:
    if facts.get("aof_enabled") == 0:
        yield "The server keeps no append-only file: what it holds is lost when it stops (`appendonly yes`)."
    elif facts.get("appendfsync") == "no":
        yield "The server leaves syncing to the kernel: a power cut may lose 30 s (`appendfsync everysec`)."
    if facts.get("no-appendfsync-on-rewrite") == "yes":
        yield "The server does not sync while it rewrites its file (`no-appendfsync-on-rewrite no`)."
    if facts.get("aof_last_write_status", "ok") != "ok":
        yield "The server's last write to its append-only file failed: look at its disk."
    limit, used = facts.get("maxmemory") or 0, facts.get("used_memory") or 0
    if limit and used > (1 - LEAST_FREE) * limit:
        yield f"The server's memory is {used / limit:.0%} used: raise `maxmemory`."
    if facts.get("cluster_enabled") == 1:
        yield "The server is part of a cluster: the URL must name the node that holds the deployment's slot."


def _remote_warnings(product: str, version: str, url: str) -> Iterator[str]:
    if not is_remote(url):
        return
    if urlsplit(url).scheme != "rediss":
        yield "The server is reached over the network without TLS (`rediss://`)."
    numbers = _numbers(version)
    if numbers and numbers[:2] < _SINCE_PATCHED[product]:
        patched = _PATCHED[product].get(numbers[:2])
        if patched is None or numbers[2:3] < (patched,):
            yield f"{product} {version} has the flaw CVE-2025-49844 unless its vendor patched it: update it."


def require_key(url: str | None, keyring: Keyring) -> None:
    """Raise UsageError if records go to a server beyond this host and no key signs them."""
    if url is not None and is_remote(url) and keyring.is_empty:
        raise UsageError(
            f"The server {hidden(url)} is beyond this host and no key is set, so whoever can write to it could have "
            f"code run here: set {KEY_VARIABLE}, for all processes alike, to what this prints: "
            f"{COMMAND_THAT_MAKES_A_KEY}"
        )


def is_remote(url: str) -> bool:
    """Tell whether a URL leads to another host than this one's loopback or a socket."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return False
    host = parts.hostname or "localhost"
    if host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
