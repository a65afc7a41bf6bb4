"""Finished reports on disk, for as long as the store cannot be reached.

While an outage lasts, what a worker has finished is kept here too, so that it survives the worker. A file holds the
reports of one batch as one sealed record; it is removed when the store has answered. A worker that starts, or is idle
after an outage, commits what dead ones left: a success is accepted from whatever attempt comes first. Who lives is
told by locks: each worker holds that of its own name.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import struct
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from overnight import failpoints
from overnight.errors import BadSeal
from overnight.flag_files import check_regular
from overnight.keyring import Keyring
from overnight.state_dir import make_private, try_lock, unlock
from overnight.store.records import Report
from overnight.wire import LARGEST_RECORD, Purpose, open_sealed, seal

_LENGTH = struct.Struct(">I")
_SUFFIX = ".spool"
#: Of a report in the head of a file; what follows are the tasks whose results it lacked.
_COLUMNS = 9
_logger = logging.getLogger("overnight.worker")


@dataclass(frozen=True, slots=True)
class Spooled:
    """The reports of one batch, as they were offered to the store."""

    run_id: str
    batch: str
    instance: str
    reports: Sequence[Report]


class Spool:
    """The spool of a worker in a directory that all workers of the state directory share."""

    def __init__(self, directory: Path, instance: str, keyring: Keyring) -> None:
        self._directory = directory
        self._instance = instance
        self._keyring = keyring
        self._lock: int | None = None
        self._broken = False

    def keep(self, spooled: Spooled) -> Path | None:
        """Write reports; return the file. None, and one warning, if they cannot be written."""
        draft = self._directory / f"{self._instance}.{secrets.token_hex(8)}.tmp"
        path = draft.with_suffix(_SUFFIX)
        try:
            self._open()
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(_encoded(spooled, self._keyring))
                file.flush()
                os.fsync(descriptor)
            failpoints.reach("worker.in_spool_write")
            draft.rename(path)
        except OSError as error:
            self._report_broken(error)
            with suppress(OSError):
                draft.unlink()
            return None
        return path

    def remove(self, path: Path | None) -> None:
        """Forget reports that the store has answered."""
        if path is not None:
            path.unlink(missing_ok=True)

    def leftovers(self) -> Iterator[tuple[Path, Spooled]]:
        """Yield what lies here between two batches: this worker's own, and what workers that live no more have left.

        A dead one's file is locked while it is looked at.
        """
        for path in sorted(self._directory.glob(f"*{_SUFFIX}")):
            owner = path.name.partition(".")[0]
            with suppress(FileNotFoundError):
                lock = None if owner == self._instance else try_lock(self._directory / f"{owner}.lock", create=False)
                if lock is None and owner != self._instance:
                    continue
                try:
                    spooled = self._read(path)
                    if spooled is not None:
                        yield path, spooled
                finally:
                    if lock is not None:
                        unlock(lock)

    def close(self) -> None:
        """Release the lock; the spool of this worker is then that of a dead one."""
        if self._lock is None:
            return
        if not any(self._directory.glob(f"{self._instance}.*{_SUFFIX}")):
            (self._directory / f"{self._instance}.lock").unlink(missing_ok=True)
        unlock(self._lock)
        self._lock = None

    def _open(self) -> None:
        if self._lock is None:
            make_private(self._directory.parent)
            self._directory.mkdir(mode=0o700, exist_ok=True)
            self._lock = try_lock(self._directory / f"{self._instance}.lock")

    def _read(self, path: Path) -> Spooled | None:
        try:
            return _decoded(_content(path), self._keyring)
        except (BadSeal, OSError, ValueError, KeyError) as error:
            _logger.warning("spool file %s is set aside: %s", path, error)
            with suppress(OSError):
                path.rename(path.with_suffix(".damaged"))
            return None

    def _report_broken(self, error: OSError) -> None:
        if not self._broken:
            self._broken = True
            _logger.warning(
                "finished results cannot be kept in %s, only in memory: %s", self._directory, error.strerror
            )


def _content(path: Path) -> bytes:
    """Return the content of a regular file, links not followed, as far as a record may reach."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        check_regular(os.fstat(descriptor))
        return file.read(LARGEST_RECORD + 1)


def _encoded(spooled: Spooled, keyring: Keyring) -> bytes:
    rows = [
        [
            report.task,
            report.ok,
            b64encode(report.digest).decode(),
            b64encode(report.lineage).decode(),
            report.facts.decode(),
            report.seconds,
            report.hopeless,
            len(report.record),
            len(report.certificate),
            *report.lost,
        ]
        for report in spooled.reports
    ]
    head = json.dumps(rows).encode("ascii")
    body = b"".join(
        (_LENGTH.pack(len(head)), head, *(report.record + report.certificate for report in spooled.reports))
    )
    bound = {"run": spooled.run_id, "batch": spooled.batch, "instance": spooled.instance}
    return seal(Purpose.SPOOL, bound, body, keyring)


def _decoded(data: bytes, keyring: Keyring) -> Spooled:
    opened = open_sealed(data, Purpose.SPOOL, keyring)
    (length,) = _LENGTH.unpack_from(opened.body)
    position = _LENGTH.size + length
    reports = []
    for row in json.loads(opened.body[_LENGTH.size : position]):
        task, ok, digest, lineage, facts, seconds, hopeless, *sizes = row[:_COLUMNS]
        record, certificate = (opened.body[start:end] for start, end in _stretches(position, sizes))
        position += sum(sizes)
        report = Report(
            task,
            ok,
            record,
            b64decode(digest),
            b64decode(lineage),
            facts.encode(),
            seconds,
            hopeless,
            certificate=certificate,
            lost=row[_COLUMNS:],
        )
        reports.append(report)
    header = opened.header
    return Spooled(header["run"], header["batch"], header["instance"], reports)


def _stretches(start: int, sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield where each of the parts of these sizes begins and ends."""
    for size in sizes:
        yield start, start + size
        start += size
