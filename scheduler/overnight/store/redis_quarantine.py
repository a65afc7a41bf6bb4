"""Hosts in quarantine, on a server: what is held against them, whom that bars, and its end."""

from __future__ import annotations

import json
from typing import Any

from overnight.core.suspicion import DEATHS_TO_QUARANTINE, EVIDENCE_SECONDS
from overnight.store import scripts
from overnight.store.codec import seconds_text
from overnight.store.records import Quarantine
from overnight.store.redis_reading import RedisReading


class RedisQuarantine(RedisReading):
    """What every role of the store needs of quarantine, on a server."""

    def accuse(self, host: str, run_id: str, task: int, seconds: float) -> tuple[int, float]:
        """ACCUSE: see the port."""
        numbers = (DEATHS_TO_QUARANTINE, repr(EVIDENCE_SECONDS), repr(seconds))
        command = self.server.on_shared(scripts.ACCUSE, host, f"{run_id} {task}", *numbers)
        number, milliseconds = self.server.send(command)
        return number, milliseconds / 1000

    def barred(self, instance: str) -> list[str]:
        """Return the queues from which a worker takes nothing while its host is in quarantine."""
        return [name.decode() for name in self.server.send(self.server.on_shared(scripts.BARRED, instance))]

    def release(self, host: str) -> bool:
        """RELEASE: see the port."""
        return bool(self.server.send(self.server.on_shared(scripts.RELEASE, host)))

    def quarantines(self) -> list[Quarantine]:
        """Return the hosts in quarantine; a damaged record counts as missing."""
        key = self.server.keys.shared("quarantine")
        time_read, stored = self.server.send_all([("TIME",), ("HGETALL", key)])
        now = float(seconds_text(time_read))
        found = [_quarantine(host.decode("utf-8", "replace"), text, now) for host, text in sorted(stored.items())]
        return [one for one in found if one is not None and one.seconds > 0]


def _quarantine(host: str, text: bytes, now: float) -> Quarantine | None:
    try:
        entry: Any = json.loads(text)
        names = (name.split(" ") for name in sorted(entry["evidence"], key=entry["evidence"].get))
        return Quarantine(host, float(entry["until"]) - now, tuple((run_id, int(task)) for run_id, task in names))
    except (ValueError, TypeError, LookupError, AttributeError):
        return None
