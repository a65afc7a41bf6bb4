"""What a server holds, key by key, and how the memory store holds the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import redis

from overnight.store.codec import as_mapping, packed_batch, packed_charge, packed_tasks, unpacked_run, unpacked_worker
from overnight.store.keys import Keys
from overnight.store.memory_data import Dispatched, MemoryData, MemoryRun

#: What changes in a run, in the order in which it is read.
OF_RUN = (
    "meta", "states", "digests", "results", "errors", "facts", "charges", "causes", "inflight", "batches", "holds",
    "repairs",
)  # fmt: skip
#: What is written once, with an addition.
FIXED = ("context", "specs", "messages", "blobs")
SHARED = ("runs", "runs:active", "runs:graphs", "runs:places", "leases", "scheduler", "workers", "workers:records",
          "quarantine")  # fmt: skip
_STRINGS = frozenset({"states", "digests", "context"})
_READ_SHARED = {
    "runs": ("ZRANGE", 0, -1),
    "runs:active": ("SMEMBERS",),
    "leases": ("ZRANGE", 0, -1, "WITHSCORES"),
    "workers": ("ZRANGE", 0, -1, "WITHSCORES"),
}
Truth = dict[str, Any]


class Reader:
    """Reads what a server holds of some runs and of what they share, in one round trip."""

    def __init__(self, connection: Any, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys
        self._packed: dict[tuple[str, bool], bytes] = {}
        self._shared = self._pack(self._read_shared(name) for name in SHARED)

    def _pack(self, commands: Iterable[tuple[Any, ...]]) -> bytes:
        return b"".join(part for command in commands for part in self._connection.pack_command(*command))

    def _read_shared(self, name: str) -> tuple[Any, ...]:
        command, *rest = _READ_SHARED.get(name, ("HGETALL",))
        return (command, self._keys.shared(name), *rest)

    def _of_run(self, run_id: str, names: Sequence[str]) -> bytes:
        return self._pack(("GET" if name in _STRINGS else "HGETALL", self._keys.of_run(run_id, name)) for name in names)

    def read(self, run_ids: Sequence[str], cursors: Sequence[str], names: Sequence[str]) -> tuple[Truth, list[Truth]]:
        """Return what is shared, and of each run the named keys, and "events" after its cursor."""
        parts = [self._shared]
        for run_id, cursor in zip(run_ids, cursors, strict=True):
            key = (run_id, len(names) > len(OF_RUN))
            if key not in self._packed:
                self._packed[key] = self._of_run(run_id, names)
            parts.append(self._packed[key])
            parts.append(self._pack([("XRANGE", self._keys.of_run(run_id, "events"), cursor, "+")]))
        self._connection.send_packed_command([b"".join(parts)])
        receive = self._connection.read_response
        shared = {name: receive() for name in SHARED}
        runs = [{name: receive() for name in (*names, "events")} for _ in run_ids]
        return shared, runs


def stored_run(read: Truth) -> Truth:
    """Return what was read of a run in the form of `kept_run`; empty if there is none."""
    found = {name: value if name in _STRINGS else as_mapping(value) for name, value in read.items() if name != "events"}
    meta = found.pop("meta")
    if not meta:
        return {}
    found["record"] = unpacked_run(meta)
    found["open"], found["sequence"] = int(meta[b"open"]), int(meta[b"sequence"])
    return {**found, "states": found["states"] or b"", "digests": found["digests"] or b""}


def kept_run(run: MemoryRun, names: Sequence[str]) -> Truth:
    """Return what the memory store keeps of a run, each key as a server holds it."""
    texts = {
        "states": bytes(run.states),
        "digests": bytes(run.digests),
        "results": _by_text(run.results),
        "errors": _by_text(run.errors),
        "facts": {
            b"%d" % task: one.batch.encode() + (b"+\n" if one.ok else b"-\n") + one.facts
            for task, one in run.accepted.items()
        },
        "charges": {b"%d" % task: packed_charge(charge).encode() for task, charge in run.charges.items()},
        "causes": {b"%d" % task: b"%d" % cause for task, cause in run.causes.items()},
        "inflight": {b"%d" % task: one.batch.encode() + b"\n" + _lineage(one) for task, one in run.inflight.items()},
        "batches": {name.encode(): packed_batch(batch.batch).encode() for name, batch in run.batches.items()},
        "holds": {
            name.encode(): "\n".join(
                (hold.instance, str(hold.sequence), "".join(hold.marks), "" if hold.begun is None else str(hold.begun))
            ).encode()
            for name, batch in run.batches.items()
            if (hold := batch.hold) is not None
        },
        "repairs": {b"%d" % task: b"%d" % number for task, number in run.repairs.items()},
        "record": run.record,
        "open": run.count_open(),
        "sequence": run.sequence,
    }
    if len(names) > len(OF_RUN):
        texts |= {"context": run.context, "specs": _by_text(run.specs), "messages": _by_text(run.messages)}
        texts["blobs"] = {digest.encode(): blob for digest, blob in run.blobs.items()}
    return texts


def _lineage(one: Dispatched) -> bytes:
    if one.lineage is not None:
        return one.lineage
    return b"?" + packed_tasks(one.lacked).encode() if one.lacked else b"!"


def _by_text(values: dict[int, bytes]) -> dict[bytes, bytes]:
    return {b"%d" % task: value for task, value in values.items()}


def stored_shared(read: Truth) -> Truth:
    """Return what was read of what runs share in the form of `kept_shared`."""
    lease = as_mapping(read["scheduler"])
    holder = lease.get(b"holder", b"").decode()
    records = {name: unpacked_worker(text) for name, text in as_mapping(read["workers:records"]).items()}
    return {
        "runs": sorted(read["runs"]),
        "active": sorted(read["runs:active"]),
        "graphs": as_mapping(read["runs:graphs"]),
        "places": as_mapping(read["runs:places"]),
        "leases": _scores(read["leases"]),
        "scheduler": (
            int(lease.get(b"number", 0)),
            holder,
            lease.get(b"description", b"").decode() if holder else "",
            float(lease.get(b"deadline", 0)),
        ),
        "workers": {name: (at, records.get(name)) for name, at in _scores(read["workers"]).items()},
        "quarantine": {host: _held(text) for host, text in as_mapping(read["quarantine"]).items()},
    }


def _held(text: bytes) -> tuple[float, dict[str, float]]:
    entry = json.loads(text)
    return float(entry["until"]), dict(entry["evidence"])


def _scores(flat: Sequence[bytes]) -> dict[bytes, float]:
    return {name: float(score) for name, score in as_mapping(flat).items()}


def kept_shared(data: MemoryData) -> Truth:
    """Return what the memory store keeps for all runs."""
    lease = data.scheduler
    return {
        "runs": sorted(run_id.encode() for run_id in data.runs),
        "active": sorted(run_id.encode() for run_id in data.active),
        "graphs": {key.encode(): run_id.encode() for key, run_id in data.graphs.items()},
        "places": {place.encode(): run_id.encode() for place, run_id in data.places.items()},
        "leases": {f"{run_id} {batch}".encode(): at for (run_id, batch), at in data.leases.items()},
        "scheduler": (lease.number, lease.holder, lease.description, lease.deadline),
        "workers": {instance.encode(): worker for instance, worker in data.workers.items()},
        "quarantine": {
            host.encode(): (held.until, {f"{run_id} {task}": at for (run_id, task), at in held.evidence.items()})
            for host, held in data.quarantine.items()
        },
    }


def stored_durations(client: redis.Redis, keys: Keys) -> dict[str, list[Any]]:
    """Return the learned durations that a server holds."""
    stored: dict[bytes, bytes] = client.hgetall(keys.shared("durations"))  # type: ignore[assignment]
    return {name.decode(): json.loads(text) for name, text in stored.items()}
