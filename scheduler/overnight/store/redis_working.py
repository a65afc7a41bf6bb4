"""The Redis store as a worker uses it."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence

from overnight.store import scripts
from overnight.store.codec import as_mapping, chunks, of_known_form, packed_tasks, packed_worker, unpacked_run
from overnight.store.event_codec import packed_report
from overnight.store.records import Acceptance, Claim, ClaimRefused, CommitReply, LeaseReply, Report, WorkerRecord
from overnight.store.redis_quarantine import RedisQuarantine
from overnight.store.redis_server import check_known
from overnight.store.scripts import MOST_TASKS


class RedisWorking(RedisQuarantine):
    """The `WorkingStore` on a server, but for `put_blobs`, which clients use as well."""

    def register(self, worker: WorkerRecord, seconds: float) -> None:
        """Announce the worker for `seconds`."""
        self.heartbeat(worker, seconds, ())

    def heartbeat(
        self, worker: WorkerRecord, seconds: float, leases: Sequence[tuple[str, str]], tail: bytes | None = None
    ) -> list[LeaseReply]:
        """HEARTBEAT: renew registration and leases (run id, batch); one reply per lease."""
        server = self.server
        news = () if tail is None else (tail,)
        announcement = server.on_shared(scripts.REGISTER, worker.instance, packed_worker(worker), repr(seconds), *news)
        renewals = [
            server.on_run(
                scripts.HEARTBEAT, run_id, batch, worker.instance, repr(seconds), worker.begun_in(run_id, batch)
            )
            for run_id, batch in leases
        ]
        _, *replies = server.send_all([announcement, *renewals])
        return [LeaseReply(bool(lost), bool(stop)) for lost, stop in replies]

    def unregister(self, instance: str) -> None:
        """Forget the worker."""
        self.server.send(self.server.on_shared(scripts.UNREGISTER, instance))

    @of_known_form
    def claim(self, run_id: str, batch: str, instance: str, sequence: int, seconds: float) -> Claim | ClaimRefused:
        """CLAIM: take the batch under a lease of `seconds`."""
        reply = self.server.send(self.server.on_run(scripts.CLAIM, run_id, batch, instance, sequence, repr(seconds)))
        check_known(reply[0], run_id)
        if reply[0] == b"refused":
            return ClaimRefused(reply[1].decode())
        _, meta, record, tasks, cells, entries, messages, context = reply
        packed = json.loads(record)
        if not isinstance(packed["queue"], str):
            raise TypeError(packed)
        return Claim(
            unpacked_run(as_mapping(meta)),
            batch,
            packed["queue"],
            tuple(tasks),
            tuple(cell[1] for cell in cells),
            tuple(entry.partition(b"\n")[2] for entry in entries),
            tuple(message or b"" for message in messages),
            context,
            seconds,
        )

    def commit(self, run_id: str, batch: str, instance: str, reports: Sequence[Report], seconds: float) -> CommitReply:
        """COMMIT: record outcomes and renew the lease."""
        pieces = list(chunks(reports, MOST_TASKS)) or [()]
        commands = [
            self.server.on_run(scripts.COMMIT, run_id, batch, instance, repr(seconds), *_flat(piece))
            for piece in pieces
        ]
        replies = self.server.send_all(commands)
        acceptances = [_ACCEPTANCES[answer] for reply in replies for answer in reply[3:]]
        acceptances += [Acceptance.SUPERSEDED] * (len(reports) - len(acceptances))
        return CommitReply(
            tuple(acceptances),
            lease_lost=bool(replies[-1][1]),
            stop=bool(replies[-1][2]),
            known=all(reply[0] for reply in replies),
        )

    def give_back(self, run_id: str, batch: str, instance: str, tasks: Sequence[int]) -> None:
        """GIVE_BACK: tasks of the batch that have not started become PENDING, nothing charged."""
        for piece in chunks(tasks, MOST_TASKS):
            check_known(
                self.server.send(self.server.on_run(scripts.GIVE_BACK, run_id, batch, instance, *piece)), run_id
            )


_LINEAGE = struct.Struct("33p")
_ACCEPTANCES = (Acceptance.SUPERSEDED, Acceptance.ACCEPTED)


def _flat(reports: Sequence[Report]) -> Iterator[bytes]:
    """Yield the reports as COMMIT takes them: what has a fixed size in two arguments, for each costs time."""
    for report in reports:
        if report.ok and len(report.digest) != 32:
            raise ValueError(f"The digest of a result holds 32 bytes, not {len(report.digest)}.")
    yield b"".join(map(packed_report, reports))
    yield b"".join(_LINEAGE.pack(report.lineage) for report in reports)
    for report in reports:
        yield report.record
        yield report.facts
    for report in reports:
        if not report.ok:
            yield report.certificate
            yield packed_tasks(report.lost).encode("ascii")
