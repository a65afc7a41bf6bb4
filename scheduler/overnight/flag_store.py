"""Where the flags of one status directory are kept: a local directory, or a URL that fsspec reaches.

Both stores answer the same four questions (`FlagStore`). Reading raises FileNotFoundError for a flag that is not
there and BadSeal for one that is not to be believed; writing returns its errors.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from overnight import flag_files
from overnight.errors import BadSeal, Unreachable
from overnight.files import REMOTE_FILES, FileFacts, file_system, is_url, local_path, url_shown
from overnight.flag_publishing import later_ones
from overnight.flag_writing import sync_flags, write_flag
from overnight.flags import Flag, FlagHeader, FoundFlag, body_in, check_place, decode_flag, decode_head, holds_header
from overnight.keyring import Keyring

#: Between two syncs pass so many seconds, and so many that syncing takes at most this share of the time.
SYNC_SECONDS = 0.1
SYNC_SHARE = 0.1
_REMOTE_HEAD_BYTES = 8192
_HEADS_AT_ONCE = 256
_WITHOUT_ATOMIC_WRITES = frozenset({"sftp", "ssh", "ftp", "smb", "hdfs", "webhdfs"})


class FlagStore(Protocol):
    """The flags of one status directory, by file name."""

    def place(self, name: str) -> str:
        """Return where a flag is, for messages."""

    def open(self, name: str, task_id: str) -> tuple[Flag, int | None]:
        """Return a task's verified flag and its modification time in ns (None if unknown)."""

    def read_headers(
        self, wanted: Iterable[tuple[str, str]], *, with_bodies: bool = False
    ) -> Iterator[tuple[str, FoundFlag | BadSeal]]:
        """Yield (task id, what was found, or why it is not believed) of those of `wanted`, (task id, file name), that
        exist. `with_bodies` gives the bodies too that come along with their headers.
        """

    def write(self, name: str, data: bytes, *, unless_later: FlagHeader | None = None) -> Exception | None:
        """Write one flag; return why it could not be written, the former one then being intact.

        With `unless_later`, the flag's header, one of a later run stays where it is.
        """

    def sync(self) -> Exception | None:
        """Make everything written so far survive a power cut; return why that cannot be said."""


def flag_store(directory: str, keyring: Keyring) -> FlagStore:
    """Return the store for a path, made absolute, or a URL. Nothing is touched."""
    return RemoteFlags(directory, keyring) if is_url(directory) else LocalFlags(local_path(directory), keyring)


class LocalFlags:
    """Flags in a directory of this machine. Writes share their syncs over time.

    A flag is in place at once, and survives a power cut from the next sync on: that of the first write when one is
    due, or a call of `sync`. What a power cut tears before is refused when it is read.
    """

    def __init__(self, directory: str, keyring: Keyring) -> None:
        self.directory = os.path.abspath(directory)  # noqa: PTH100 - stays text for speed
        self._keyring = keyring
        self._unsynced: list[str] = []
        self._due = float("-inf")
        self._is_tidy = False

    def place(self, name: str) -> str:
        """Return the path of a flag."""
        return f"{self.directory}/{name}"

    def open(self, name: str, task_id: str) -> tuple[Flag, int | None]:
        """Return a task's verified flag and its modification time in ns."""
        return flag_files.read_flag(self.place(name), task_id, self._keyring)

    def read_headers(
        self, wanted: Iterable[tuple[str, str]], *, with_bodies: bool = False
    ) -> Iterator[tuple[str, FoundFlag | BadSeal]]:
        """Yield what is found in existing flags after one listing of the directory."""
        return flag_files.read_headers(self.directory, wanted, self._keyring, with_bodies=with_bodies)

    def write(self, name: str, data: bytes, *, unless_later: FlagHeader | None = None) -> Exception | None:
        """Replace a flag; it is synced at once, together with those that wait, if a sync is due. The first time, what
        killed writers left is removed."""
        if not self._is_tidy:
            self._is_tidy = True
            flag_files.remove_abandoned(self.directory)
        keep = later_ones([unless_later], self._keyring, [name]) if unless_later is not None else None
        error = write_flag(self.directory, name, data, keep=keep)
        if error is not None:
            return error
        self._unsynced.append(name)
        return self.sync() if time.monotonic() >= self._due else None

    def sync(self) -> Exception | None:
        """Sync the flags that were written without."""
        names, self._unsynced = self._unsynced, []
        if not names:
            return None
        began = time.monotonic()
        error = sync_flags(self.directory, names)
        ended = time.monotonic()
        self._due = ended + max(SYNC_SECONDS, (ended - began) / SYNC_SHARE)
        return error


class RemoteFlags:
    """Flags on a store that fsspec reaches; one PUT of complete bytes where the store's writes are atomic."""

    def __init__(self, url: str, keyring: Keyring) -> None:
        self.url = url.rstrip("/")
        self._keyring = keyring

    def place(self, name: str) -> str:
        """Return the URL of a flag, without credentials."""
        return f"{url_shown(self.url)}/{name}"

    def open(self, name: str, task_id: str) -> tuple[Flag, int | None]:
        """Return a task's verified flag and its modification time in ns."""
        facts = REMOTE_FILES.look(f"{self.url}/{name}")
        if facts is None:
            raise FileNotFoundError(self.place(name))
        data = self._bytes(name)
        return decode_flag(data, task_id, self._keyring), facts.mtime_ns

    def read_headers(
        self, wanted: Iterable[tuple[str, str]], *, with_bodies: bool = False
    ) -> Iterator[tuple[str, FoundFlag | BadSeal]]:
        """Yield what is found in existing flags after one listing, their heads fetched many at once."""
        ids = {name: task_id for task_id, name in wanted}
        present = list((REMOTE_FILES.listing(self.url, ids.keys()) or {}).items())
        for start in range(0, len(present), _HEADS_AT_ONCE):
            chunk = present[start : start + _HEADS_AT_ONCE]
            for (name, facts), head in zip(chunk, self._heads(chunk), strict=True):
                yield ids[name], self._found(name, ids[name], facts, head, with_body=with_bodies)

    def write(self, name: str, data: bytes, *, unless_later: FlagHeader | None = None) -> Exception | None:
        """Replace a flag; whether it is a later run's is looked up just before, as a store has no rename to refuse."""
        try:
            if unless_later is not None and self._is_later(name, unless_later):
                return None
            system, directory = file_system(self.url)
            system.makedirs(directory, exist_ok=True)
            self._put(system, f"{directory.rstrip('/')}/{name}", data)
        except Exception as error:  # a store raises what its library raises; the caller reports it
            return error
        return None

    def sync(self) -> None:
        """Do nothing: a store keeps what it has taken."""

    def _is_later(self, name: str, header: FlagHeader) -> bool:
        try:
            return flag_files.is_later_than(self.open(name, header.task_id)[0].header, header.run_id, header.attempt)
        except (FileNotFoundError, BadSeal):
            return False

    def _put(self, system: Any, path: str, data: bytes) -> None:
        protocols = {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)
        if not protocols & _WITHOUT_ATOMIC_WRITES:
            system.pipe_file(path, data)
            return
        temporary = f"{path}.{secrets.token_hex(8)}.tmp"
        try:
            system.pipe_file(temporary, data)
            system.mv(temporary, path)
        except BaseException:
            with contextlib.suppress(Exception):  # the error that is on its way says more
                system.rm_file(temporary)
            raise

    def _bytes(self, name: str) -> bytes:
        try:
            system, directory = file_system(self.url)
            data: bytes = system.cat_file(f"{directory.rstrip('/')}/{name}")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise BadSeal(f"it cannot be read: {error}") from error
        return data

    def _heads(self, chunk: list[tuple[str, FileFacts]]) -> list[bytes | Exception]:
        system, directory = file_system(self.url)
        paths = [f"{directory.rstrip('/')}/{name}" for name, _ in chunk]
        ends = [_REMOTE_HEAD_BYTES if facts.size is None else min(facts.size, _REMOTE_HEAD_BYTES) for _, facts in chunk]
        try:
            heads: list[bytes | Exception] = system.cat_ranges(paths, [0] * len(paths), ends, on_error="return")
        except OSError as error:
            raise Unreachable(f"{url_shown(self.url)} cannot be read: {error}") from error
        return heads

    def _found(
        self, name: str, task_id: str, facts: FileFacts, head: bytes | Exception, *, with_body: bool
    ) -> FoundFlag | BadSeal:
        if facts.is_directory:
            return BadSeal("a directory stands in its place; remove it")
        if isinstance(head, Exception):
            return BadSeal(f"it cannot be read: {head}")
        try:
            data = head if holds_header(head) or len(head) < _REMOTE_HEAD_BYTES else self._bytes(name)
            header, offset = decode_head(data, self._keyring)
            check_place(header, offset, task_id, facts.size)
            return FoundFlag(header, facts.mtime_ns, body_in(data, header, offset) if with_body else None)
        except BadSeal as reason:
            return reason
