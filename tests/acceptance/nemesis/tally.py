"""Whether the faults did bite: counts of what the product did about them, and the least of each in an hour."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import cast

import redis

SUPERSEDED, ADOPTED, REJECTED = "superseded commits", "adopted flags", "rejected flags"
ADOPTIONS = "adoptions of flags"
TAKEOVERS, REAPED, REPEATED = "takeovers of the epoch", "reaped leases", "repeated scripts"
LEAST_AN_HOUR = {SUPERSEDED: 100, ADOPTED: 20, ADOPTIONS: 3, REJECTED: 20, TAKEOVERS: 20, REAPED: 50, REPEATED: 100}
LEAST_DEMANDED = 3
Entries = list[tuple[bytes, dict[bytes, bytes]]]
_SUPERSEDED = re.compile(r"(\d+) results of batch \w+ were superseded")
_REJECTED = re.compile(r"The record (.+) counts as missing: (.+)\.")
_TAKEN = re.compile(r"took epoch \d+")


class Tally:
    """The counts of a run."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._seen: dict[bytes, str] = {}
        self.counts: Counter[str] = Counter()

    def read_events(self, admin: redis.Redis) -> None:
        """Count what the event streams tell since they were read last; what was flushed in between is lost."""
        with suppress(redis.RedisError, OSError):
            for key in admin.scan_iter("{overnight}:run:*:events"):
                after = self._seen.get(key, "-")
                for number, entry in cast("Entries", admin.xrange(key, after if after == "-" else f"({after}")):
                    self._seen[key] = _text(number)
                    self._count({_text(name): _text(value) for name, value in entry.items()})

    def _count(self, entry: dict[str, str]) -> None:
        if entry.get("w") == "reaped":
            self.counts[REAPED] += 1
        adopted = self._adopted(entry)
        self.counts[ADOPTED] += adopted
        self.counts[ADOPTIONS] += bool(adopted)

    def _adopted(self, entry: dict[str, str]) -> int:
        """How many flags one SUBMIT or ADOPT took for results: what it added, or settled as cached."""
        if entry.get("w") == "added":
            return len([task for task in entry.get("t", "").split(",") if task])
        return entry.get("v", "").count(":c:") if entry.get("w") == "settled" else 0

    def read_logs(self, proxied: dict[str, dict[str, int]]) -> None:
        """Count what the logs and the proxy tell of the whole run."""
        self.counts[REPEATED] = sum(link.get("repeated", 0) for link in proxied.values())
        for log in self._logs.glob("*.log"):
            text = log.read_text("utf-8", "replace")
            self.counts[SUPERSEDED] += sum(int(found[1]) for found in _SUPERSEDED.finditer(text))
            self.counts[TAKEOVERS] += len(_TAKEN.findall(text))
            self.counts[REJECTED] += len(_REJECTED.findall(text))

    def doubled_warnings(self) -> list[str]:
        """Warnings of one rejected record that one client gave more than once."""
        found: list[str] = []
        for log in self._logs.glob("client*.log"):
            warnings = Counter(_REJECTED.findall(log.read_text("utf-8", "replace")))
            found += [f"{log.stem}: {place}: {why}" for (place, why), number in warnings.items() if number > 1]
        return found

    def lacking(self, hours: float) -> list[str]:
        """What happened less often than a run of that length must see.

        Fewer than `LEAST_DEMANDED` may be missing by chance: of them a short run must see some of any kind.
        """
        least = {name: int(number * hours) for name, number in LEAST_AN_HOUR.items()}
        lacking = [
            f"{name}: {self.counts[name]} of at least {number}"
            for name, number in least.items()
            if number >= LEAST_DEMANDED and self.counts[name] < number
        ]
        if sum(self.counts[name] for name in least) < sum(least.values()):
            lacking.append(f"{sum(self.counts.values())} effects of at least {sum(least.values())}")
        return lacking


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
