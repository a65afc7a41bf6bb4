"""Records of tasks in Redis, with flag files as the second copy: either heals the other.

Both copies hold the same sealed flag, byte for byte, so that whichever is whole is believed. A flag that is missing or
damaged in the directory is written again from Redis with the time it had; one that Redis lacks is put there when it is
read. Redis out of reach costs one warning: the files alone go on. Records above `LARGEST_COPY_BYTES` stay in files.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from overnight.cache import FileTaskCache
from overnight.config import read_settings
from overnight.errors import BadSeal, OvernightError
from overnight.flag_files import open_flag
from overnight.flag_store import FlagStore
from overnight.flags import Flag, FlagHeader, FoundFlag, decode_head
from overnight.keyring import Keyring

if TYPE_CHECKING:
    import redis

_logger = logging.getLogger(__name__)

LARGEST_COPY_BYTES = 1024 * 1024
KEEP_SECONDS = 90 * 24 * 3600
#: After Redis could not be used it is left alone for so long.
PAUSE_SECONDS = 5.0
_TIME = struct.Struct(">q")
_AT_ONCE = 500


class RedisTaskCache(FileTaskCache):
    """A `FileTaskCache` whose records lie in Redis as well.

    `redis_url` is the server; `cache_dir` the directory of the flags, a local path. `name` tells caches on one server
    apart (default: the directory's path). Copies in Redis expire `keep_seconds` after the last write. Construction
    touches neither server nor disk.
    """

    def __init__(
        self,
        redis_url: str,
        cache_dir: str,
        *,
        name: str | None = None,
        keep_seconds: float = KEEP_SECONDS,
        keyring: Keyring | None = None,
    ) -> None:
        super().__init__(cache_dir, keyring=keyring)
        copies = RedisCopies(redis_url, name or self.directory, keep_seconds)
        self._store = TwoCopies(self._store, copies, self._keyring)


class RedisCopies:
    """Flags in one Redis hash, each with the modification time of its file. Nothing here raises for a lost server."""

    def __init__(self, url: str, name: str, keep_seconds: float) -> None:
        self._url = url
        self._settings = read_settings()
        digest = hashlib.sha256(name.encode()).hexdigest()[:32]
        self._key = f"{{{self._settings.prefix}}}:flags:{digest}"
        self._keep_seconds = int(keep_seconds)
        self._client: redis.Redis | None = None
        self._retry_at = 0.0

    def put(self, copies: Sequence[tuple[str, int, bytes]]) -> bool:
        """Store flags, given as (file name, modification time in ns, content); tell whether all of them are there."""
        fields = {name: _TIME.pack(mtime) + data for name, mtime, data in copies if len(data) <= LARGEST_COPY_BYTES}
        if fields and self._ask(lambda client: _put(client, self._key, fields, self._keep_seconds)) is None:
            return False
        return len(fields) == len(copies)

    def get(self, names: Sequence[str]) -> dict[str, tuple[int, bytes]]:
        """Return modification time and content of those flags that are there."""
        found: dict[str, tuple[int, bytes]] = {}
        for start in range(0, len(names), _AT_ONCE):
            asked = names[start : start + _AT_ONCE]
            values = self._ask(partial(_get, key=self._key, names=asked)) or []
            for name, value in zip(asked, values, strict=False):
                if value is not None and len(value) > _TIME.size:
                    found[name] = (_TIME.unpack_from(value)[0], value[_TIME.size :])
        return found

    def names(self) -> set[str] | None:
        """Return the names of all flags that are there; None if the server cannot be asked."""
        keys = self._ask(lambda client: client.hkeys(self._key))
        return None if keys is None else {key.decode("ascii", "replace") for key in keys}

    def _ask(self, question: Callable[[redis.Redis], Any]) -> Any:
        from redis.exceptions import RedisError

        if time.monotonic() < self._retry_at:
            return None
        try:
            return question(self._connected())
        except (RedisError, OvernightError, OSError) as error:
            self._retry_at = time.monotonic() + PAUSE_SECONDS
            self._client = None
            _logger.warning("The copies of flags in Redis cannot be used; the files go on alone: %s", error)
            return None

    def _connected(self) -> redis.Redis:
        if self._client is None:
            from overnight.store.connection import connect

            self._client = connect(self._url, settings=self._settings)
        return self._client


class TwoCopies:
    """A `FlagStore` of files and their copies in Redis."""

    def __init__(self, files: FlagStore, copies: RedisCopies, keyring: Keyring) -> None:
        self._files = files
        self._copies = copies
        self._keyring = keyring

    def place(self, name: str) -> str:
        """Return where a flag's file is."""
        return self._files.place(name)

    def open(self, name: str, task_id: str) -> tuple[Flag, int | None]:
        """Return a task's flag from its file, or else from Redis, which then writes the file again."""
        try:
            return self._files.open(name, task_id)
        except (FileNotFoundError, BadSeal):
            healed = self._heal(name, task_id, self._copies.get([name]).get(name))
            if healed is None:
                raise
            return healed

    def read_headers(
        self, wanted: Iterable[tuple[str, str]], *, with_bodies: bool = False
    ) -> Iterator[tuple[str, FoundFlag | BadSeal]]:
        """Yield the headers of all flags that either copy has, and heal each from the other."""
        by_id = dict(wanted)
        heads = dict(self._files.read_headers(by_id.items(), with_bodies=with_bodies))
        lacking = [name for task_id, name in by_id.items() if isinstance(heads.get(task_id), (BadSeal, type(None)))]
        copies = self._copies.get(lacking) if lacking else {}
        for task_id, name in by_id.items():
            head = heads.get(task_id)
            if name in copies:
                healed = self._heal(name, task_id, copies[name])
                head = head if healed is None else FoundFlag(healed[0].header, healed[1])
            if head is not None:
                yield task_id, head
        self._copy_missing(
            {
                name: head.mtime_ns
                for task_id, name in by_id.items()
                if isinstance(head := heads.get(task_id), FoundFlag)
            }
        )

    def write(self, name: str, data: bytes, *, unless_later: FlagHeader | None = None) -> Exception | None:
        """Write a flag to its file and to Redis; the error is that of the file where Redis could not help either."""
        error = self._files.write(name, data, unless_later=unless_later)
        if error is None and unless_later is not None and not self._is_in_place(name, unless_later):
            return None
        stored = self._copies.put([(name, time.time_ns() if error else self._mtime(name), data)])
        return None if stored else error

    def sync(self) -> Exception | None:
        """Make the files that were written so far survive a power cut."""
        return self._files.sync()

    def _is_in_place(self, name: str, header: FlagHeader) -> bool:
        try:
            return self._files.open(name, header.task_id)[0].header.run_id == header.run_id
        except (FileNotFoundError, BadSeal):
            return False

    def _heal(self, name: str, task_id: str, copy: tuple[int, bytes] | None) -> tuple[Flag, int] | None:
        if copy is None:
            return None
        mtime, data = copy
        try:
            flag = open_flag(data, task_id, self._keyring)
        except BadSeal:
            return None
        if self._files.write(name, data) is None:
            with contextlib.suppress(OSError):  # the time of a file on a remote store cannot be set
                os.utime(self.place(name), ns=(mtime, mtime), follow_symlinks=False)
        return flag, mtime

    def _copy_missing(self, present: dict[str, int | None]) -> None:
        """Put those files into Redis that it lacks."""
        known = self._copies.names()
        if known is None:
            return
        missing = [(name, mtime) for name, mtime in present.items() if name not in known]
        for start in range(0, len(missing), _AT_ONCE):
            self._copies.put(
                [copy for name, mtime in missing[start : start + _AT_ONCE] if (copy := self._read(name, mtime))]
            )

    def _read(self, name: str, mtime: int | None) -> tuple[str, int, bytes] | None:
        try:
            descriptor = os.open(self.place(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                data = file.read(LARGEST_COPY_BYTES + 1)
            decode_head(data, self._keyring)
        except (OSError, BadSeal):
            return None
        return name, mtime or time.time_ns(), data

    def _mtime(self, name: str) -> int:
        try:
            return os.lstat(self.place(name)).st_mtime_ns
        except OSError:
            return time.time_ns()


def _put(client: redis.Redis, key: str, fields: Mapping[str, bytes], seconds: int) -> bool:
    pipeline = client.pipeline(transaction=False)
    for name, value in fields.items():
        pipeline.hset(key, name, value)
    pipeline.expire(key, seconds)
    pipeline.execute()
    return True


def _get(client: redis.Redis, key: str, names: Sequence[str]) -> Any:
    return client.hmget(key, list(names))
