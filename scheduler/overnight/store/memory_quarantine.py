"""Hosts in quarantine, in memory: the rules of `scripts/accuse.lua` and of `barred_queues` in `common.lua`."""

from __future__ import annotations

from overnight.core.suspicion import DEATHS_TO_QUARANTINE, EVIDENCE_SECONDS
from overnight.store.memory_data import Held
from overnight.store.memory_reading import MemoryReading
from overnight.store.records import Quarantine, WorkerRecord


class MemoryQuarantine(MemoryReading):
    """What every role of the store needs of quarantine, in memory."""

    def accuse(self, host: str, run_id: str, task: int, seconds: float) -> tuple[int, float]:
        """ACCUSE: see the port."""
        with self._step() as now:
            for name in list(self.data.quarantine):
                if not self._held(name, now).evidence:
                    del self.data.quarantine[name]
            held = self.data.quarantine[host] = self._held(host, now)
            held.evidence.setdefault((run_id, task), now)
            if not held.until and len(held.evidence) >= DEATHS_TO_QUARANTINE:
                held.until = now + seconds
            return len(held.evidence), max(0.0, held.until - now)

    def _held(self, host: str, now: float) -> Held:
        """Return what is still held against a host: what has led to a quarantine is spent when that is over."""
        held = self.data.quarantine.get(host, Held())
        if held.until > now:
            return held
        kept = {} if held.until else {name: at for name, at in held.evidence.items() if at + EVIDENCE_SECONDS > now}
        return Held(0.0, kept)

    def barred(self, instance: str) -> list[str]:
        """Return the queues from which a worker takes nothing while its host is in quarantine."""
        with self._step() as now:
            return self._barred(instance, now)

    def _barred(self, instance: str, now: float) -> list[str]:
        alive = [worker for deadline, worker in self.data.workers.values() if deadline > now]
        _, own = self.data.workers.get(instance, (0.0, None))
        if own is None or not self._is_quarantined(own.host, now):
            return []
        others = [
            other
            for other in alive
            if not other.draining and _kind(other) == _kind(own) and not self._is_quarantined(other.host, now)
        ]
        served = {queue for other in others for queue in other.queues}
        return [queue for queue in own.queues if queue in served]

    def _is_quarantined(self, host: str, now: float) -> bool:
        held = self.data.quarantine.get(host)
        return held is not None and held.until > now

    def release(self, host: str) -> bool:
        """RELEASE: see the port."""
        with self._step():
            return self.data.quarantine.pop(host, None) is not None

    def quarantines(self) -> list[Quarantine]:
        """Return the hosts in quarantine."""
        with self._step() as now:
            return [
                Quarantine(host, held.until - now, tuple(sorted(held.evidence, key=held.evidence.__getitem__)))
                for host, held in sorted(self.data.quarantine.items())
                if held.until > now
            ]


def _kind(worker: WorkerRecord) -> tuple[list[str], int]:
    """Return what a worker must share with another to take over its work: Python minor and protocol."""
    return worker.python.split(".")[:2], worker.protocol
