"""What whoever may write to a server can put in place of a record: other types and lengths, junk (ADVERSITY 8, A2).

A `Damage` names one place and what is put there; `of_run` and `of_shared` list them for what a server holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import redis

JUNK = b"\x80\x04\xff\x00garbage\n"
#: What is put in place of a field or of a whole string.
VALUES = (
    b"", JUNK, b"-1", b"nan", b"inf", b"1e400", b"99999999999999999999", b"null", b"[]", b"{}", b'{"tasks":[1e99]}',
    b'{"tasks":"x","queue":7}', b'{"queue":"q","tasks":[-1],"look_first":1}', b"[" * 2000, b"a\nb", b"0 0 0 0",
)  # fmt: skip
#: What is put into a stream.
ENTRIES: tuple[dict[bytes, bytes], ...] = (
    {JUNK: JUNK},
    {b"n": JUNK, b"w": b"claimed"},
    {b"n": b"1", b"w": b"claimed"},
    {b"n": b"7", b"w": b"nonsense"},
    {b"n": b"7", b"w": b"committed", b"b": JUNK, b"i": JUNK, b"c": JUNK},
    {b"n": b"7", b"w": b"committed", b"b": b"b", b"i": b"i", b"c": b"\xff" * 45},
    {b"n": b"7", b"w": b"returned", b"b": b"b", b"t": b"-1,99999999999999999999,x"},
    {b"n": b"7", b"w": b"settled", b"v": b"0:z:,1:d:99999999999"},
    {b"n": b"7", b"w": b"requested", b"q": b"dance"},
    {b"n": b"7", b"w": b"ended", b"p": b"tired"},
    {b"n": b"7", b"w": b"added", b"t": b"99999999"},
    {b"n": b"7", b"w": b"invalidated", b"t": b"99999999"},
)
_OTHER_TYPES = ("string", "hash", "list", "zset")


@dataclass(frozen=True)
class Damage:
    """One place of one key, and what is put there. `field` is None for a whole key."""

    key: str
    how: str
    field: bytes | None = None
    value: Any = None

    def __str__(self) -> str:
        field = "" if self.field is None else f" {self.field[:20]!r}"
        return f"{self.key}{field} {self.how} {str(self.value)[:50]}"

    def put(self, client: redis.Redis, prefix: str) -> None:
        """Do it to the key of this name under a prefix."""
        key = prefix + self.key
        match self.how:
            case "gone":
                client.delete(key)
            case "type":
                client.delete(key)
                _make(client, key, self.value)
            case "text":
                client.set(key, self.value)
            case "field":
                assert self.field is not None
                client.hset(key, self.field.decode("latin-1"), self.value)
            case "fields":
                client.hset(key, mapping=self.value)
            case "no field":
                assert self.field is not None
                client.hdel(key, self.field.decode("latin-1"))
            case "entry":
                client.xadd(key, self.value)
            case "member":
                client.zadd(key, {self.field or b"": self.value})
            case "set member":
                client.sadd(key, self.value)


def _make(client: redis.Redis, key: str, kind: str) -> None:
    if kind == "string":
        client.set(key, JUNK)
    elif kind == "hash":
        client.hset(key, "junk", "junk")
    elif kind == "list":
        client.rpush(key, JUNK)
    else:
        client.zadd(key, {"junk": 1.0})


def _kind(client: redis.Redis, key: bytes) -> str:
    kind = client.type(key)
    return kind.decode() if isinstance(kind, bytes) else str(kind)


def of_run(client: redis.Redis, prefix: str, names: tuple[str, ...]) -> Iterator[Damage]:
    """Yield each damage of a run of which every key exists."""
    for name in names:
        kind = _kind(client, (prefix + name).encode())
        yield Damage(name, "gone")
        yield from (Damage(name, "type", value=other) for other in _OTHER_TYPES if other != kind)
        if kind == "string":
            yield from (Damage(name, "text", value=value) for value in (*VALUES, b"x" * 100_001))
        elif kind == "stream":
            yield from (Damage(name, "entry", value=entry) for entry in ENTRIES)
        else:
            fields: Any = client.hkeys(prefix + name)
            for field in sorted(fields) if name == "meta" else sorted(fields)[:2]:
                yield Damage(name, "no field", field)
                yield from (Damage(name, "field", field, value) for value in VALUES)
            yield Damage(name, "fields", value=dict.fromkeys((JUNK, b"", b"-1", b"99999999999999999999"), JUNK))


def of_shared() -> Iterator[Damage]:
    """Yield each damage of what runs share that leaves the types of keys as they are."""
    for member in (JUNK, b"", b" ", b"nobody", b"no run", b"r1 nothing", b"../x y", b"r1 " + JUNK, b" b", b"r1 "):
        yield from (Damage("leases", "member", member, score) for score in (float("-inf"), 0.0, 4e9))
        yield from (Damage(name, "member", member, score) for name in ("runs", "workers") for score in (0.0, 4e9))
        yield Damage("runs:active", "set member", value=member)
    evidence = (
        b'{"until":0,"evidence":{"x":"y"}}',
        b'{"until":0,"evidence":[[]]}',
        b'{"until":4e9,"evidence":{"x":1}}',
    )
    yield from (Damage("quarantine", "field", b"form%d" % at, value) for at, value in enumerate(evidence))
    for name in ("workers:records", "workers:tails", "durations", "quarantine"):
        yield from (Damage(name, "field", b"junk%d" % at, value) for at, value in enumerate(VALUES))
    yield from (Damage("workers", "member", b"junk%d" % at, 4e9) for at in range(len(VALUES)))
    for at, value in enumerate((b"1 {}", b"1 []", b"1 7", b'1 {"queues":7}', b"nan {}")):
        yield Damage("workers:records", "field", b"form%d" % at, value)
        yield Damage("workers", "member", b"form%d" % at, 4e9)
    for at, value in enumerate((b"[NaN,1]", b'["x",1]', b"[1]", b"[1,2,3]", b"[-1,1]", b"[1e308,-5]", b"[Infinity,2]")):
        yield Damage("durations", "field", b"form%d" % at, value)
    yield Damage("durations", "field", JUNK, JUNK)
    yield from (Damage(name, "fields", value={JUNK: JUNK, b"": b""}) for name in ("runs:graphs", "runs:places"))
    yield Damage("control", "entry", value={JUNK: JUNK})
