"""What the tasks of a batch need: functions and shared arguments, results of dependencies, flags that stand already.

The supervisor checks every seal; what it hands to the child are bytes that were sealed for this run. Blobs are kept
from batch to batch, and so are results that lie elsewhere: each is read from there once, and must have the digest that
is on record.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import datetime

from overnight.errors import BadSeal, InputLost, TaskError
from overnight.flag_files import existing_valid
from overnight.messages import StoredResult, opened_blob
from overnight.naming import flag_name
from overnight.results import ResultLost, Results
from overnight_worker.batch import NO_DIGEST, ClaimedBatch, Ended, Member, Stage
from overnight_worker.post import Post
from overnight_worker.report import failure

LARGEST_BLOB_CACHE_BYTES = 256 << 20


class Inputs:
    """Reads for one supervisor; its cache of blobs spans batches and runs."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._cache: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._cached_bytes = 0

    def check_lineage(self, batch: ClaimedBatch) -> None:
        """Learn the digests of outside dependencies; members whose lineage is not the expected one go back."""
        outside = batch.outside()
        if outside:
            batch.digests = dict(zip(outside, self._post.store.read_digests(batch.run_id, outside), strict=True))
        for member in batch.open_members():
            gone = any(batch.digests.get(task) == NO_DIGEST for task in member.facts.dependencies)
            other = bool(member.expected) and not batch.inner(member) and batch.lineage(member) != member.expected
            if gone or other:
                member.stage = Stage.RETURNED
                batch.drop_dependants(member.position)

    def look_first(self, batch: ClaimedBatch, status_dir: str | None) -> list[Member]:
        """Return the members for which a valid flag of the same run and lineage stands; they have ended.

        Each is looked for: a server that was rolled back hands out a finished task as if for the first time.
        """
        if status_dir is None:
            return []
        found = []
        for member in batch.open_members():
            path = f"{status_dir.rstrip('/')}/{flag_name(member.facts.task_id)}"
            if not os.path.lexists(path) or any(inner.ended is None for inner in batch.inner(member)):
                continue
            flag = existing_valid(path, member.facts.task_id, batch.run_id, batch.lineage(member), self._post.keyring)
            if flag is not None:
                member.ended = Ended(flag.body, digest=bytes.fromhex(flag.header.body_sha256), kept=f"flag:{path}")
                member.ended.started = _seconds_of(flag.header.started)
                member.ended.seconds = flag.header.duration_seconds
                member.stage = Stage.ENDED
                found.append(member)
        return found

    def blobs(self, run_id: str, digests: Iterable[str]) -> dict[str, bytes | TaskError]:
        """Return blobs by digest; in place of one that is missing or damaged the error of whoever needs it."""
        wanted = dict.fromkeys(digests)
        lacking = [digest for digest in wanted if (run_id, digest) not in self._cache]
        sealed = self._post.store.read_blobs(run_id, lacking) if lacking else {}
        found: dict[str, bytes | TaskError] = {}
        for digest in wanted:
            found[digest] = self._blob(run_id, digest, sealed.get(digest))
        return found

    def results(self, batch: ClaimedBatch, tasks: Sequence[int]) -> dict[int, bytes | InputLost]:
        """Return the serialised results of tasks outside the batch, or why one cannot be had."""
        if not tasks:
            return {}
        results = Results(self._post.store, batch.run_id, self._post.keyring)
        stored = results.stored(tasks)
        names = _names_of_dependencies(batch)
        return {
            task: self._result(results, batch, task, names.get(task, str(task)), stored.get(task)) for task in tasks
        }

    def _result(
        self, results: Results, batch: ClaimedBatch, task: int, name: str, stored: StoredResult | ResultLost | None
    ) -> bytes | InputLost:
        """Return the body of a result; one that lies elsewhere is read once for all tasks that take it."""
        digest = batch.digests.get(task)
        if not isinstance(stored, StoredResult) or stored.body is not None or stored.digest != digest:
            return _body(results, name, digest, stored)
        key = (batch.run_id, digest.hex())
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        body = _body(results, name, digest, stored)
        if isinstance(body, bytes):
            self._remember(key, body)
        return body

    def _blob(self, run_id: str, digest: str, sealed: bytes | None) -> bytes | TaskError:
        cached = self._cache.get((run_id, digest))
        if cached is not None:
            self._cache.move_to_end((run_id, digest))
            return cached
        if sealed is None:
            return TaskError(f"The server does not hold the function or argument {digest[:16]} of run {run_id}.")
        try:
            body = opened_blob(sealed, run_id, digest, self._post.keyring)
        except BadSeal as error:
            return TaskError(f"A function or argument of the task is not to be believed: {error}")
        self._remember((run_id, digest), body)
        return body

    def _remember(self, key: tuple[str, str], body: bytes) -> None:
        self._cache[key] = body
        self._cached_bytes += len(body)
        while self._cached_bytes > LARGEST_BLOB_CACHE_BYTES and len(self._cache) > 1:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= len(dropped)


def _body(
    results: Results, name: str, digest: bytes | None, stored: StoredResult | ResultLost | None
) -> bytes | InputLost:
    if stored is None:
        return InputLost(f"The result of {name!r} is not on the server any more.")
    if isinstance(stored, ResultLost):
        return InputLost(str(stored))
    if stored.digest != digest:
        return InputLost(f"The result of {name!r} is not the one on record.")
    try:
        return results.body(stored, name)
    except ResultLost as error:
        return InputLost(str(error))


def needed_by(member: Member, found: dict[str, bytes | TaskError]) -> Ended | None:
    """Return the failure of a member that needs a blob which cannot be had."""
    for digest in (member.facts.function_digest, *member.facts.blobs):
        error = found[digest]
        if isinstance(error, TaskError):
            return failure(error)
    return None


def _names_of_dependencies(batch: ClaimedBatch) -> dict[int, str]:
    """Return the ids of all tasks that members of the batch depend on, by index."""
    names: dict[int, str] = {}
    for member in batch.members:
        names.update(zip(member.facts.dependencies, member.facts.dependency_ids, strict=True))
    return names


def _seconds_of(moment: str | None) -> float:
    """Return a flag's time in seconds since the epoch, 0 if it tells none."""
    try:
        return 0.0 if moment is None else datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return 0.0
