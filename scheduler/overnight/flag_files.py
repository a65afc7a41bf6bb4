"""Reading flags that are local files.

Every file is opened without following a link and without blocking, and must be regular: what else stands in the
place of a flag is left alone and reported. Facts alone need only the head of a file.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import stat
import time
from collections.abc import Container, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from overnight.errors import BadSeal
from overnight.flags import (
    DONE,
    Flag,
    FlagHeader,
    FoundFlag,
    body_in,
    check_place,
    decode_flag,
    decode_head,
    holds_header,
    lineage_of_header,
)
from overnight.keyring import Keyring
from overnight.naming import shown

LARGEST_FLAG_BYTES = 16 * 1024**3
_HEAD_BYTES = 4096
_warned: set[str] = set()
_logger = logging.getLogger(__name__)
#: The time with which the ids of runs on a queue begin (`launch.new_run_id`).
_BEGAN = re.compile(r"[0-9]{8}-[0-9]{6}-")
_BEGAN_FORM = "%Y%m%d-%H%M%S-"
#: By how much a file server's clock may go after those of clients.
CLOCKS_APART_SECONDS = 60.0
#: A temporary file is in place within moments, or its writer is gone, or frozen and will find that it is too late.
ABANDONED_SECONDS = 24 * 3600.0
_TEMPORARY = re.compile(r".+\.flag\.[0-9a-f]{16}\.tmp")
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class FileIdentity(NamedTuple):
    """What tells a file from one that takes its place later."""

    inode: int
    mtime_ns: int


def open_flag(source: Path | str | bytes, task_id: str, keyring: Keyring) -> Flag:
    """Return the flag of a task from a file or from its bytes.

    Raise FileNotFoundError if there is no file, BadSeal with the reason if what is there is not to be believed.
    """
    data = source if isinstance(source, bytes) else _read_regular(source, None, whole=True)[0]
    return decode_flag(data, task_id, keyring)


def identified_flag(source: Path, task_id: str, keyring: Keyring) -> tuple[Flag, FileIdentity]:
    """Return a task's flag and the identity of its file. Errors as in `open_flag`."""
    data, facts = _read_regular(source, None, whole=True)
    return decode_flag(data, task_id, keyring), FileIdentity(facts.st_ino, facts.st_mtime_ns)


def standing_flags(directory: Path, inodes: Container[int]) -> Iterator[FileIdentity]:
    """Yield the identity of each of these files that stands in a directory, named as a flag; raises OSError."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.inode() in inodes and entry.name.endswith(".flag"):
                with contextlib.suppress(FileNotFoundError):  # replaced since it was listed
                    facts = entry.stat(follow_symlinks=False)
                    yield FileIdentity(facts.st_ino, facts.st_mtime_ns)


def read_flag(source: Path | str, task_id: str, keyring: Keyring) -> tuple[Flag, int]:
    """Return a task's flag and the file's modification time in ns. Errors as in `open_flag`."""
    data, facts = _read_regular(source, None, whole=True)
    return decode_flag(data, task_id, keyring), facts.st_mtime_ns


def read_header(
    source: Path | str, task_id: str, keyring: Keyring, *, directory: int | None = None, with_body: bool = False
) -> FoundFlag:
    """Return the header of a task's flag and the file's modification time in ns, reading only the file's head.

    Errors as in `open_flag`. `directory` is a descriptor that a relative `source` refers to. `with_body` gives the
    body too where the head reaches to its end, verified.
    """
    data, facts = _read_regular(source, directory, whole=False)
    header, offset = decode_head(data, keyring)
    check_place(header, offset, task_id, facts.st_size)
    return FoundFlag(header, facts.st_mtime_ns, body_in(data, header, offset) if with_body else None)


def standing_flag(path: Path | str, task_id: str, keyring: Keyring, *, directory: int | None = None) -> Flag | None:
    """Return the flag that stands at `path`; None if there is none, or none that can be believed to its last byte."""
    try:
        return decode_flag(_read_regular(path, directory, whole=True)[0], task_id, keyring)
    except (FileNotFoundError, BadSeal):
        return None


def existing_valid(
    path: Path | str, task_id: str, run_id: str, lineage: bytes, keyring: Keyring, *, directory: int | None = None
) -> Flag | None:
    """Return the flag that stands at `path` if it stands for an attempt of this run with this lineage."""
    flag = standing_flag(path, task_id, keyring, directory=directory)
    return flag if flag is not None and stands_for(flag.header, run_id, lineage) else None


def stands_for(header: FlagHeader, run_id: str, lineage: bytes) -> bool:
    """Tell whether a flag's header is of a success of this run, or of a later one, with this lineage.

    Such a flag is never replaced by another attempt of the run: the attempt commits it and drops its own result.
    """
    if header.state != DONE or lineage_of_header(header) != lineage:
        return False
    return header.run_id == run_id or began_later(header.run_id, run_id)


def is_later_than(header: FlagHeader, run_id: str | None, attempt: int | None) -> bool:
    """Tell whether a flag's header is of a later attempt of this run, or of a run that began later, as ids tell.

    Who was frozen through the end of its own run, or of its lease, changes nothing of what came after (decision 0017).
    """
    if header.run_id == run_id:
        return attempt is not None and header.attempt is not None and header.attempt > attempt
    return began_later(header.run_id, run_id)


def began_later(other: str | None, run_id: str | None) -> bool:
    """Tell whether the run `other` began after `run_id`, as their ids tell; of some ids nothing is known."""
    began = [_BEGAN.match(one or "") for one in (other, run_id)]
    return began[0] is not None and began[1] is not None and began[0][0] > began[1][0]


def came_since(header: FlagHeader, placed: float, run_id: str) -> bool:
    """Tell whether a flag is of a success of another run that ended, or was put there, after `run_id` began: a worker
    may be frozen in between. `placed` is the file's modification time, by a clock that may be a minute apart."""
    found = _BEGAN.match(run_id)
    if found is None or header.state != DONE or header.run_id == run_id:
        return False
    try:
        began = datetime.strptime(found[0], _BEGAN_FORM).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return False
    try:
        ended = datetime.fromisoformat(header.finished or "").timestamp()
    except (ValueError, OverflowError):
        ended = placed
    return max(ended, placed + CLOCKS_APART_SECONDS) >= began


def read_headers(
    directory: Path | str, wanted: Iterable[tuple[str, str]], keyring: Keyring, *, with_bodies: bool = False
) -> Iterator[tuple[str, FoundFlag | BadSeal]]:
    """Yield (task id, what `read_header` finds, or why there is nothing to believe) for each flag that exists.

    `wanted` are (task id, file name); the directory is listed once. Nothing is yielded for a missing flag.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if keyring.is_empty:
            _see_whose(directory, descriptor)
        present = set(os.listdir(descriptor))  # noqa: PTH208 - pathlib lists no descriptor
        for task_id, name in wanted:
            if name not in present:
                continue
            try:
                yield task_id, read_header(name, task_id, keyring, directory=descriptor, with_body=with_bodies)
            except BadSeal as reason:
                yield task_id, reason
            except FileNotFoundError:
                continue  # removed since the listing
    finally:
        os.close(descriptor)


def _see_whose(directory: Path | str, descriptor: int) -> None:
    """Warn, once, of a directory of another user's whose records are believed although they carry no signature."""
    owner = os.fstat(descriptor).st_uid
    if owner in (0, os.geteuid()) or str(directory) in _warned:
        return
    _warned.add(str(directory))
    _logger.warning(
        "The status directory %s belongs to another user (%d), whose records are believed as they are not signed: that "
        "user can have code run as this one. Set OVERNIGHT_SECRET_KEY, or give another -d.",
        shown(str(directory)),
        owner,
    )


def _read_regular(path: Path | str, directory: int | None, *, whole: bool) -> tuple[bytes, os.stat_result]:
    """Return the content, or the head, of a regular file. Raise FileNotFoundError or BadSeal."""
    try:
        return _read_once(path, directory, whole=whole)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BadSeal("a symbolic link stands in its place; remove it") from None
        if error.errno == errno.ENXIO:
            raise BadSeal("a socket stands in its place; remove it") from None
        if error.errno != errno.ESTALE:
            raise BadSeal(f"it cannot be read: {error.strerror}") from error
    try:
        return _read_once(path, directory, whole=whole)
    except OSError as error:
        raise BadSeal(f"it cannot be read: {error.strerror}") from error


def _read_once(path: Path | str, directory: int | None, *, whole: bool) -> tuple[bytes, os.stat_result]:
    descriptor = os.open(path, _READ, dir_fd=directory)
    try:
        facts = os.fstat(descriptor)
        check_regular(facts)
        if facts.st_size > LARGEST_FLAG_BYTES:
            raise BadSeal(f"it has {facts.st_size} bytes, above the limit of {LARGEST_FLAG_BYTES}")
        return (_all_of(descriptor, facts.st_size) if whole else _head_of(descriptor, facts.st_size)), facts
    finally:
        os.close(descriptor)


def check_regular(facts: os.stat_result) -> None:
    """Raise BadSeal if something other than a regular file stands where a flag should be."""
    if not stat.S_ISREG(facts.st_mode):
        raise BadSeal("something that is not a regular file stands in its place; remove it")


def _all_of(descriptor: int, expected: int) -> bytes:
    data = os.read(descriptor, expected + 1)
    if len(data) == expected:
        return data
    chunks = [data]
    while chunk := os.read(descriptor, 1 << 20):
        chunks.append(chunk)
    return b"".join(chunks)


def _head_of(descriptor: int, expected: int) -> bytes:
    data = os.read(descriptor, _HEAD_BYTES)
    if len(data) == expected:
        return data
    while not holds_header(data):
        chunk = os.read(descriptor, 1 << 17)
        if not chunk:
            break
        data += chunk
    return data


def remove_abandoned(directory: Path | str, older_than: float = ABANDONED_SECONDS) -> None:
    """Remove the temporary files of writers that were killed: those last changed more than `older_than` s ago."""
    latest = time.time() - older_than
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name) and entry.stat(follow_symlinks=False).st_mtime < latest:
                os.unlink(entry.path)  # noqa: PTH108 - the entry is at hand
