"""The Redis store as a client uses it: a run is put in place, filled and steered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from overnight.core.states import RunPhase, TaskState
from overnight.errors import AddedMeanwhile, DamagedRun, Refused
from overnight.json_text import decoded
from overnight.store import scripts
from overnight.store.codec import NO_DIGEST, chunks, packed_run, unpacked_index
from overnight.store.records import Addition, Adopted, Opened, Opening, Request, RunRecord
from overnight.store.redis_reading import RedisReading
from overnight.store.redis_server import Command, check_known, check_not_busy
from overnight.store.scripts import MOST_TASKS

#: The most bytes of blobs or messages that one call carries.
MOST_BYTES = 8 << 20
_ADOPTABLE = bytes((TaskState.CACHED, 0))
_NEW = bytes((TaskState.PENDING, 0))
_RETRIED = frozenset({TaskState.FAILED, TaskState.SKIPPED, TaskState.CANCELLED})


class RedisSubmitting(RedisReading):
    """The `SubmittingStore` on a server."""

    def open_run(self, run: RunRecord, context: bytes) -> Opened:
        """SUBMIT: see the port. A run in its way whose record is rubbish is cancelled: nobody can name it to do so."""
        arguments = (run.key, run.place, packed_run(run), context, repr(run.keep_seconds))
        rubbish = ""
        while True:
            word, other = self.server.send(self.server.on_run(scripts.SUBMIT, run.run_id, *arguments, rubbish))
            try:
                return Opened(Opening(word.decode()), self.run(other.decode()))
            except DamagedRun:
                meta = self.server.send(("HGETALL", self.server.keys.of_run(other.decode(), "meta")))
                if rubbish == other.decode() or not _is_rubbish(meta):
                    raise
                rubbish = other.decode()

    def put_blobs(self, run_id: str, blobs: Mapping[str, bytes]) -> None:
        """Store sealed blobs by digest; present ones are kept."""
        for piece in _bounded(list(blobs.items())):
            flat = [value for pair in piece for value in pair]
            check_known(self.server.send(self.server.on_run(scripts.BLOBS, run_id, *flat)), run_id)

    def missing_blobs(self, run_id: str, digests: Sequence[str]) -> list[str]:
        """Return those of `digests` that the run does not hold yet."""
        keys = self.server.keys
        commands: list[Command] = [("EXISTS", keys.of_run(run_id, "meta"))]
        commands += [("HEXISTS", keys.of_run(run_id, "blobs"), digest) for digest in digests]
        known, *present = self.server.send_all(commands)
        check_known(None if known else b"unknown", run_id)
        return [digest for digest, is_there in zip(digests, present, strict=True) if not is_there]

    def add_tasks(self, run_id: str, addition: Addition) -> None:
        """Add tasks: see the port."""
        cells = [_ADOPTABLE if task in addition.adopted else _NEW for task in _indices(addition)]
        digests = [
            addition.adopted[task].digest if task in addition.adopted else NO_DIGEST for task in _indices(addition)
        ]
        name = _name_of_staged(addition)
        for reply in self.server.send_all(self._staging(run_id, addition, name)):
            check_known(reply, run_id)
            if reply == b"disordered":
                raise AddedMeanwhile(run_id, addition.first, addition.first)
        told = ",".join(str(task) for task in sorted(addition.adopted))
        open_tasks = addition.count - len(addition.adopted)
        reply = self.server.send(
            self.server.on_run(
                scripts.ADD,
                run_id,
                addition.first,
                addition.count,
                addition.spec,
                b"".join(cells),
                b"".join(digests),
                told,
                open_tasks,
                name,
                *addition.blobs,
            )
        )
        check_known(reply[0], run_id)
        check_not_busy(reply, run_id)
        if reply[0] == b"disordered":
            raise AddedMeanwhile(run_id, reply[1], addition.first)

    def _staging(self, run_id: str, addition: Addition, name: str) -> Iterator[Command]:
        adopted = [(task, one.record) for task, one in addition.adopted.items()]
        pieces = [(len(piece), piece) for piece in _bounded(list(addition.messages.items()))]
        pieces += [(0, piece) for piece in _bounded(adopted)]
        for number, (messages, piece) in enumerate(pieces):
            begins = "" if number else "1"
            yield self.server.on_run(scripts.STAGE, run_id, addition.first, name, begins, messages, *_flat(piece))

    def activate(self, run_id: str, tasks: int = 0) -> None:
        """Submission is complete; `wait` tells schedulers as of a change of the active runs."""
        check_known(self.server.send(self.server.on_run(scripts.ACTIVATE, run_id, tasks)), run_id)

    def adopt(self, run_id: str, adopted: Mapping[int, Adopted]) -> list[int]:
        """ADOPT: PENDING tasks become CACHED. Return those that did, or had with the same digest."""
        taken: list[int] = []
        for piece in chunks(list(adopted.items()), MOST_TASKS):
            flat = [value for task, one in piece for value in (task, one.digest, one.record)]
            reply = self.server.send(self.server.on_run(scripts.ADOPT, run_id, *flat))
            check_known(reply[0], run_id)
            taken += reply[1:]
        return taken

    def rewrite_result(self, run_id: str, task: int, record: bytes, digest: bytes) -> bool:
        """Replace where a result lies. False if the digest differs or the task has no result."""
        reply = self.server.send(self.server.on_run(scripts.REWRITE, run_id, task, record, digest))
        check_known(reply, run_id)
        return bool(reply == b"ok")

    def request(self, run_id: str, request: Request, tasks: Sequence[int] = ()) -> None:
        """Carry a request out and tell followers. RETRY of a run that is being cancelled raises Refused."""
        if request is not Request.RETRY:
            check_known(self.server.send(self.server.on_run(scripts.REQUEST, run_id, request.value)), run_id)
            return
        if not self._retry(run_id, "", tasks):
            raise Refused(f"Run {run_id} is being cancelled; ask again when it has ended.")

    def mend(self, run_id: str, tasks: Sequence[int]) -> None:
        """Retry tasks, unless somebody has cancelled the run."""
        self._retry(run_id, "mend", tasks)

    def _retry(self, run_id: str, why: str, tasks: Sequence[int]) -> bool:
        """Retry tasks; False if the run is being cancelled, or, to mend it, was."""
        for piece in chunks(self._to_retry(run_id, tasks), MOST_TASKS):
            reply = self.server.send(self.server.on_run(scripts.RETRY, run_id, why, *piece))
            check_known(reply[0], run_id)
            check_not_busy(reply, run_id)
            if reply[0] == b"cancelled":
                return False
        return True

    def _to_retry(self, run_id: str, tasks: Sequence[int]) -> list[int]:
        """Return failed and cancelled tasks to retry, also those that skipped ones wait for, then what was skipped for
        them."""
        states = self.states(run_id)
        causes = self._causes(run_id)
        wanted = set(tasks).union(causes[task] for task in tasks if task in causes)
        chosen = [
            (code == TaskState.SKIPPED, task)
            for task, code in enumerate(states[::2])
            if code in _RETRIED and (not wanted or task in wanted or causes.get(task) in wanted)
        ]
        return [task for _, task in sorted(chosen)]

    def _causes(self, run_id: str) -> dict[int, int]:
        key = self.server.keys.of_run(run_id, "causes")
        found: dict[int, int] = {}
        cursor = None
        while cursor != 0:
            cursor, pairs = self.server.send(("HSCAN", key, cursor or 0, "COUNT", 1000))
            found.update((unpacked_index(task), unpacked_index(cause)) for task, cause in pairs.items())
        return found


def _indices(addition: Addition) -> range:
    return range(addition.first, addition.first + addition.count)


def _flat(pairs: Sequence[tuple[Any, Any]]) -> list[Any]:
    return [value for pair in pairs for value in pair]


def _bounded(pairs: Sequence[tuple[Any, bytes]]) -> Iterator[list[tuple[Any, bytes]]]:
    """Yield pairs in pieces of at most `MOST_TASKS` and about `MOST_BYTES`."""
    piece: list[tuple[Any, bytes]] = []
    size = 0
    for name, value in pairs:
        if piece and (len(piece) == MOST_TASKS or size + len(value) > MOST_BYTES):
            yield piece
            piece, size = [], 0
        piece.append((name, value))
        size += len(value)
    if piece:
        yield piece


def _name_of_staged(addition: Addition) -> str:
    """Return what tells the staged messages and adopted results of this addition from those of another client's;
    nothing if it has none."""
    if not addition.messages and not addition.adopted:
        return ""
    made = hashlib.sha256(addition.spec)
    for task, one in sorted(addition.adopted.items()):
        made.update(b"%d " % task + one.record)
    return made.hexdigest()


def _is_rubbish(meta: Mapping[bytes, bytes]) -> bool:
    """Tell whether a meta hash is one that no version of overnight writes."""
    try:
        stored = decoded(meta[b"record"])
        RunPhase(meta[b"phase"].decode("ascii"))
        float(meta[b"created_at"])
        int(meta[b"added"])
    except (ValueError, LookupError, RecursionError):
        return True
    return not isinstance(stored, dict)
