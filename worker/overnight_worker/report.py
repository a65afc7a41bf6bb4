"""From outcomes to reports: digest, flag, sealed record, in that order (the order of an outcome).

Results of a group share the syncs of their flags. A flag that stands already for the same run and lineage is never
replaced: the attempt reports that one and drops its own result. Where flags cannot be written, results go through
Redis and one warning says so (C7). A result above the inline limit goes by reference: to its flag, else to a file in
the run's blob directory, else to a blob in Redis; one that fits nowhere fails its task, with its size.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from overnight.error_text import error_text
from overnight.errors import BadSeal, DamagedRun, ResultNotPicklable
from overnight.files import is_directory, is_url, may_write_into
from overnight.flag_files import open_flag
from overnight.flag_publishing import publish_flags
from overnight.flag_store import flag_store
from overnight.flag_writing import Written
from overnight.flags import DONE, AttemptFacts, FlagHeader, encode_flag
from overnight.messages import RunContext, StoredError, StoredResult, sealed_blob
from overnight.naming import flag_name, shown
from overnight.pickling import dump_exception
from overnight.recording import TaskIdentity, record_header
from overnight.store.records import Report
from overnight_worker.batch import ClaimedBatch, Ended, Member, Stage
from overnight_worker.blob_files import put_blob_file
from overnight_worker.certifying import certified
from overnight_worker.post import Post

LARGEST_REDIS_RESULT_BYTES = 64 << 20
_logger = logging.getLogger("overnight.worker")


class Reporter:
    """Makes the reports of one run's batches."""

    def __init__(self, post: Post, run_id: str, context: RunContext) -> None:
        self._post = post
        self._run_id = run_id
        self._context = context
        self._flags_unusable = False
        self._warned = False
        self._place = json.dumps({"worker": post.name, "host": post.host}, separators=(",", ":"))[:-1]
        if context.status_dir and not is_url(context.status_dir) and not is_directory(context.status_dir):
            self._give_up_flags("it is not there on this host, or this user may not look into it")
        if context.log_dir and not is_url(context.log_dir) and not may_write_into(context.log_dir):
            self._place += ',"unlogged":true'
            text = "this user may not write to log directory %s; of what tasks print the end of failed attempts is kept"
            _logger.warning(text, shown(context.log_dir))

    @property
    def local_flags(self) -> str | None:
        """The status directory, if it is a directory that this worker sees."""
        directory = self._context.status_dir
        return None if directory is None or self._flags_unusable or is_url(directory) else directory

    def reports(self, batch: ClaimedBatch, ended: Sequence[Member]) -> list[Report]:
        """Return a report for each ended member, in order, but for void ones: these go back, as the store knows no
        lineage of theirs by which to refuse them. May raise Unreachable while a blob is stored."""
        places = self._write_flags(batch, ended)
        for member in ended:
            if _ended(member).void:
                member.stage = Stage.RETURNED
                batch.drop_dependants(member.position)
        return [self._report(batch, one, places.get(one.position)) for one in ended if not _ended(one).void]

    def _report(self, batch: ClaimedBatch, member: Member, place: str | None) -> Report:
        record = self._record(member, _ended(member), place)
        ended = _ended(member)
        return Report(
            task=member.task,
            ok=ended.ok,
            record=record,
            digest=ended.digest if ended.ok else b"",
            lineage=batch.lineage(member),
            facts=self._facts(member, ended),
            seconds=ended.seconds,
            hopeless=ended.hopeless,
            died=ended.died,
            lost=ended.lost,
            certificate=b"" if ended.ok else certified(self._post, self._run_id, member, ended),
        )

    def _record(self, member: Member, ended: Ended, place: str | None) -> bytes:
        if ended.error is not None:
            return ended.error.sealed(self._run_id, member.task, self._post.keyring)
        stored = self._stored(ended, place)
        if stored is None:
            member.ended = _too_large(member, ended)
            return self._record(member, member.ended, None)
        return stored.sealed(self._run_id, member.task, self._post.keyring)

    def _stored(self, ended: Ended, place: str | None) -> StoredResult | None:
        size = len(ended.body)
        if size <= self._post.settings.inline_bytes:
            return StoredResult(ended.digest, size, body=ended.body)
        locator = place or put_blob_file(self._context.blob_dir, ended.digest, ended.body) or self._redis_blob(ended)
        return None if locator is None else StoredResult(ended.digest, size, locator=locator)

    def _redis_blob(self, ended: Ended) -> str | None:
        if len(ended.body) > LARGEST_REDIS_RESULT_BYTES:
            return None
        digest = ended.digest.hex()
        blob = sealed_blob(self._run_id, digest, ended.body, self._post.keyring)
        try:
            self._post.store.put_blobs(self._run_id, {digest: blob})
        except DamagedRun as error:
            _logger.warning("results cannot be stored with run %s: %s", self._run_id, error)
            return None
        return "redis:"

    def _facts(self, member: Member, ended: Ended) -> bytes:
        """Return the attempt's facts for people as JSON. Only numbers vary, so it is written without an encoder.

        `found`: a flag stood already, so the times are those of an attempt that ran elsewhere or before. `unlogged`:
        the worker may not write to the log directory.
        """
        seconds = "null" if ended.seconds is None else f"{ended.seconds:.6f}"
        found = ',"found":true' if ended.kept is not None else ""
        return (
            f'{self._place},"attempt":{member.attempt},"started":{ended.started:.6f},"seconds":{seconds},'
            f'"peak_memory":{ended.peak_memory},"bytes":{len(ended.body)}{found}}}'
        ).encode("ascii")

    # Flags.

    def _write_flags(self, batch: ClaimedBatch, members: Sequence[Member]) -> dict[int, str]:
        """Write the flags of successes; return where each lies, by position in the batch."""
        directory = self._context.status_dir
        self._find_void(batch, members)
        successes = [m for m in members if _ended(m).ok and _ended(m).kept is None and not _ended(m).void]
        places = {member.position: kept for member in members if (kept := _ended(member).kept) is not None}
        if directory is None or self._flags_unusable or not successes:
            return places
        headers = [self._header(batch, member) for member in successes]
        group = [
            _Flag(
                member, header, flag_name(header.task_id), encode_flag(header, _ended(member).body, self._post.keyring)
            )
            for member, header in zip(successes, headers, strict=True)
        ]
        if is_url(directory):
            written = self._write_remote(directory, group)
        else:
            flags = [(flag.header, flag.name, flag.data) for flag in group]
            before, is_active = _before(batch, successes), partial(self._post.is_active, self._run_id)
            written = publish_flags(directory, flags, self._post.keyring, before, is_active=is_active)
        for flag, result in zip(group, written, strict=True):
            if result.error is not None:
                self._warn_once(directory, flag.header.task_id, result.error)
                continue
            place = f"{directory.rstrip('/')}/{flag.name}"
            _ended(flag.member).void = result.void
            if not result.void and (not result.kept or self._take_over(batch, flag.member, place)):
                places[flag.member.position] = f"flag:{place}"
        if any(result.error is not None for result in written):
            self._find_void(batch, members)  # of these nothing was said of what they were computed from
        return places

    def _write_remote(self, directory: str, group: Sequence[_Flag]) -> list[Written]:
        store = flag_store(directory, self._post.keyring)
        errors = [store.write(flag.name, flag.data) for flag in group]
        return [Written(error=None if error is None else OSError(str(error))) for error in errors]

    def _find_void(self, batch: ClaimedBatch, members: Sequence[Member]) -> None:
        """Note which outcomes were computed from one of this batch in whose place another one was put on record."""
        for member in members:
            before = [_ended(inner) for inner in batch.inner(member) if inner.ended is not None]
            _ended(member).void |= any(one.void or bool(one.handed_on) for one in before)

    def _take_over(self, batch: ClaimedBatch, member: Member, path: str) -> bool:
        """Report the flag that stands in place of this attempt's own result; False if it is gone again.

        What was computed from the own one, or was to be, goes back.
        """
        try:
            flag = open_flag(path, member.facts.task_id, self._post.keyring)
        except (OSError, BadSeal):
            return False
        ended = _ended(member)
        standing = bytes.fromhex(flag.header.body_sha256)
        if standing != ended.digest:
            ended.handed_on = ended.handed_on or ended.digest
            batch.drop_dependants(member.position)
        ended.body, ended.digest = flag.body, standing
        return True

    def _header(self, batch: ClaimedBatch, member: Member) -> FlagHeader:
        ended = _ended(member)
        facts = AttemptFacts(
            run_id=self._run_id,
            attempt=member.attempt,
            started=_iso(ended.started),
            finished=None if ended.seconds is None else _iso(ended.started + ended.seconds),
            duration_seconds=ended.seconds,
            host=self._post.host,
            python=self._post.python,
            dependency_records=batch.dependency_records(member),
        )
        identity = TaskIdentity(member.facts.task_id, member.facts.function, tuple(member.facts.dependency_ids))
        return record_header(identity, DONE, facts)

    def _warn_once(self, directory: str, task_id: str, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            _logger.warning(
                "the flag of task %s cannot be written to %s: %s; results go through Redis",
                shown(task_id),
                shown(directory),
                error,
            )

    def _give_up_flags(self, reason: str) -> None:
        self._flags_unusable = True
        _logger.warning(
            "status directory %s: %s; results go through Redis", shown(str(self._context.status_dir)), reason
        )


def _before(batch: ClaimedBatch, group: Sequence[Member]) -> list[list[int]]:
    """Return for each member of a group which others of the group it was computed from, by their place in it."""
    places = {member.position: index for index, member in enumerate(group)}
    return [[places[inner.position] for inner in batch.inner(one) if inner.position in places] for one in group]


@dataclass(frozen=True, slots=True)
class _Flag:
    member: Member
    header: FlagHeader
    name: str
    data: bytes


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def digest_of(body: bytes) -> bytes:
    """Return the digest by which a serialised result is known."""
    return hashlib.sha256(body).digest()


def failure(error: BaseException, *, hopeless: bool = False) -> Ended:
    """Return the outcome of an attempt that the supervisor itself declares failed."""
    text = error_text(error)
    stored = StoredError(text.type_name, text.message, text.traceback, dump_exception(error))
    return Ended(error=stored, hopeless=hopeless)


def _too_large(member: Member, ended: Ended) -> Ended:
    task = shown(member.facts.task_id)
    error = ResultNotPicklable(
        f"The result of task {task!r} pickles to {len(ended.body)} bytes, above the limit of "
        f"{LARGEST_REDIS_RESULT_BYTES} for results that go through Redis; use a status directory that the "
        "workers see, or write it to a file and return the file's path."
    )
    failed = failure(error, hopeless=True)
    failed.started, failed.seconds, failed.peak_memory = ended.started, ended.seconds, ended.peak_memory
    return failed


def _ended(member: Member) -> Ended:
    if member.ended is None:
        raise ValueError(f"Member {member.position} has no outcome yet.")
    return member.ended
