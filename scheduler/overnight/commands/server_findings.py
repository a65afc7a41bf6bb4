"""What `doctor` finds at the server: fitness, persistence, eviction, memory, its clock and how soon it answers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from overnight.commands.findings import FAULT, NOTE, OK, WARNING, Finding
from overnight.store.server_check import LEAST_FREE, judge, read_facts

if TYPE_CHECKING:
    import redis

    from overnight.store.redis import RedisStore

#: By so much a clock may differ before it is told.
MOST_SKEW_SECONDS = 1.0
#: An answer that takes longer makes every hop of a chain slow.
SLOW_ANSWER_SECONDS = 0.05
_ANSWERS = 5
_NOT_TOLD = (
    "not looked at, as this user may not ask the server (INFO): let an administrator type 'overnight doctor' once, "
    "with an address of theirs in OVERNIGHT_REDIS_URL"
)


def server(client: redis.Redis, url: str) -> Iterator[Finding]:
    """Yield whether a run is safe on this server."""
    from overnight.store.connection import hidden

    facts = read_facts(client, url)
    report = judge({**facts, "maxmemory": 0}, client, url)  # what there is of memory is a finding of its own
    name = report.version if facts else "one that does not tell its version"
    yield Finding("server", OK, f"{name} answers at {hidden(url)}")
    for refusal in report.refusals:
        yield Finding("server", FAULT, refusal, 5)
    for warning in report.warnings:
        yield Finding("server", WARNING, warning)
    if "maxmemory_policy" not in facts:
        yield Finding("persistence, eviction, memory", NOTE, _NOT_TOLD)
        return
    if facts.get("aof_enabled") == 1 and facts.get("appendfsync", "everysec") != "no":
        yield Finding("persistence", OK, f"append-only file, synced {facts.get('appendfsync', '(not told how often)')}")
    if facts["maxmemory_policy"] == "noeviction":
        yield Finding("eviction", OK, "none: a full server refuses new work and keeps what it has")
    yield memory(facts)


def memory(facts: Mapping[str, Any]) -> Finding:
    """Tell how much room is left: below the server's own limit, or else on its machine."""
    used, limit, total = (int(facts.get(name) or 0) for name in ("used_memory", "maxmemory", "total_system_memory"))
    room = limit or total
    text = f"{used / 1e6:.0f} MB used of {room / 1e6:.0f} MB" + (" (maxmemory)" if limit else " on its machine")
    if limit and used > limit:
        text += ": it is full and refuses changes, so no run can start or go on. Raise maxmemory"
        return Finding("memory", FAULT, text, 5)
    if room and used > (1 - LEAST_FREE) * room:
        remedy = "raise maxmemory" if limit else "give it a machine with more memory"
        return Finding("memory", WARNING, f"{text}: {remedy}, or let runs expire sooner (OVERNIGHT_KEEP_SECONDS)")
    if not limit:
        text += "; with `maxmemory` in its configuration it refuses work before its machine is full"
    return Finding("memory", OK, text)


def keys(store: RedisStore) -> Iterator[Finding]:
    """Yield each key that all runs share and that overnight cannot use, as another type stands there."""
    for fault in store.server.misused_keys():
        yield Finding("keys", FAULT, str(fault), fault.exit_status)


def clock_and_answer(store: RedisStore) -> Iterator[Finding]:
    """Yield how this host's clock compares with the server's, and how long the server takes to answer."""
    looks = [_look_at_clock(store) for _ in range(_ANSWERS)]
    seconds, skew = min(looks)
    text = f"the server answers in {1000 * seconds:.1f} ms"
    if seconds > SLOW_ANSWER_SECONDS:
        yield Finding("latency", WARNING, f"{text}: put it nearer to its workers; short tasks are slow like this")
    else:
        yield Finding("latency", OK, text)
    yield clock("this host", skew - seconds / 2)


def clock(whose: str, skew: float) -> Finding:
    """Tell of a clock that is `skew` seconds ahead of the server's."""
    if abs(skew) <= MOST_SKEW_SECONDS:
        return Finding("clock", OK, f"{whose} and the server agree to {max(0.01, abs(skew)):.2f} s")
    direction = "ahead of" if skew > 0 else "behind"
    text = (
        f"{whose} is {abs(skew):.0f} s {direction} the server: files look newer or older than they are, and by their "
        "times overnight decides what must run. Set both clocks right (chrony, systemd-timesyncd)"
    )
    return Finding("clock", WARNING, text)


def _look_at_clock(store: RedisStore) -> tuple[float, float]:
    """Return how long a question took, and by how much this host's clock was ahead when it had been answered."""
    begun = time.perf_counter()
    server_now = store.now()
    return time.perf_counter() - begun, time.time() - server_now
