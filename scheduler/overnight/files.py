"""Looking at declared files: whether they exist, when they changed, whether they are directories.

One port with two implementations: local paths by the system's own calls, URLs by fsspec. `look_up` examines each
path once, with one listing where several paths lie in one directory.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
import tempfile
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from overnight.errors import Unreachable

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:://|::.*://)")
_LOCAL_URL = re.compile(r"(?:file|local)://")
_TIME_KEYS = ("mtime", "LastModified", "last_modified", "modified", "updated", "modifyTime")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FileFacts:
    """An existing file or directory; `mtime_ns` is None where its store keeps no modification times."""

    mtime_ns: int | None
    is_directory: bool = False
    size: int | None = None


class Files(Protocol):
    """Where declared files are. What does not exist has no facts; Unreachable is raised if that cannot be told."""

    listing_pays_from: int

    def look(self, path: str) -> FileFacts | None:
        """Return the facts of one path, links followed."""

    def listing(self, directory: str, names: Collection[str]) -> dict[str, FileFacts] | None:
        """Return the facts of those of `names` that exist in a directory; None if it cannot be listed."""


def is_url(path: str) -> bool:
    """Tell whether a path is fsspec's to open. URLs of local files are not: see `local_path`."""
    return _URL.match(path) is not None and _LOCAL_URL.match(path) is None


def is_directory(path: str | Path) -> bool:
    """Tell whether a directory is there, as far as this process may look."""
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises where it may not look


def may_write_into(directory: str | Path) -> bool:
    """Tell whether this process may make files in a local directory, or the directory itself where it is missing."""
    place = Path(directory).absolute()
    nearest = next(path for path in (place, *place.parents) if os.path.lexists(path))
    return os.access(nearest, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def local_path(path: str) -> str:
    """Return a local path without the scheme that it may have."""
    return _LOCAL_URL.sub("", path, count=1)


def see_writable(directory: str) -> float:
    """Return by how many seconds the clock that dates a local directory's files is ahead of this host's.

    Raise OSError if no file can be made there: what its mode promises may not hold for it.
    """
    with tempfile.TemporaryFile(dir=directory) as file:
        return os.fstat(file.fileno()).st_mtime - time.time()


def look_up(paths: Iterable[str]) -> dict[str, FileFacts]:
    """Return the facts of those paths and URLs that exist. Raise Unreachable if a store cannot be asked."""
    directories: dict[tuple[bool, str], dict[str, str]] = defaultdict(dict)
    found: dict[str, FileFacts] = {}
    alone: list[str] = []
    for path in dict.fromkeys(paths):
        directory, name = _split(path)
        if name in ("", ".", "..") or name in directories[is_url(path), directory]:
            alone.append(path)
        else:
            directories[is_url(path), directory][name] = path
    for (remote, directory), names in directories.items():
        _look_in(REMOTE_FILES if remote else LOCAL_FILES, directory, names, found)
    _look_alone(alone, found)
    return found


def _split(path: str) -> tuple[str, str]:
    if not is_url(path):
        return os.path.split(local_path(path))
    directory, _, name = path.rpartition("/")
    return ("", "") if "::" in path or directory.endswith(("/", ":")) else (directory, name)


def _look_in(files: Files, directory: str, names: Mapping[str, str], found: dict[str, FileFacts]) -> None:
    listed = files.listing(directory, names.keys()) if len(names) >= files.listing_pays_from else None
    if listed is None:
        _look_alone(names.values(), found)
    else:
        found.update((names[name], facts) for name, facts in listed.items())


def _look_alone(paths: Iterable[str], found: dict[str, FileFacts]) -> None:
    for path in paths:
        facts = (REMOTE_FILES if is_url(path) else LOCAL_FILES).look(path)
        if facts is not None:
            found[path] = facts


class LocalFiles:
    """Files of this machine. What may not be seen counts as missing."""

    listing_pays_from = 4

    def look(self, path: str) -> FileFacts | None:
        """Return the facts of one path, links followed."""
        try:
            return _local_facts(os.stat(local_path(path)))  # noqa: PTH116 - a Path costs more than the call
        except (OSError, ValueError):
            return None

    def listing(self, directory: str, names: Collection[str]) -> dict[str, FileFacts] | None:
        """Return the facts of those of `names` that exist; only these are examined."""
        found: dict[str, FileFacts] = {}
        try:
            with os.scandir(directory or ".") as entries:
                for entry in entries:
                    if entry.name in names:
                        with contextlib.suppress(OSError):  # a dangling link, or removed meanwhile: missing
                            found[entry.name] = _local_facts(entry.stat())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError:
            return None
        return found


def _local_facts(facts: os.stat_result) -> FileFacts:
    return FileFacts(facts.st_mtime_ns, stat.S_ISDIR(facts.st_mode), facts.st_size)


class RemoteFiles:
    """Files that fsspec reaches by URL."""

    listing_pays_from = 2

    def look(self, path: str) -> FileFacts | None:
        """Return the facts of one URL."""
        try:
            system, place = file_system(path)
            system.invalidate_cache()
            return _remote_facts(system, system.info(place))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreachable(path, error) from error

    def listing(self, directory: str, names: Collection[str]) -> dict[str, FileFacts] | None:
        """Return the facts of those of `names` that exist below a URL."""
        try:
            system, place = file_system(directory)
            system.invalidate_cache()
            entries = system.ls(place, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise _unreachable(directory, error) from error
        named = ((entry["name"].rstrip("/").rpartition("/")[2], entry) for entry in entries)
        return {name: _remote_facts(system, entry) for name, entry in named if name in names}


LOCAL_FILES = LocalFiles()
REMOTE_FILES = RemoteFiles()


def file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system for a URL and the path in it. Raise Unreachable if there is none."""
    from fsspec.core import url_to_fs  # needed for URLs alone

    try:
        system, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise Unreachable(f"{url_shown(url)} cannot be opened: {error}") from error
    return system, path


def url_shown(url: str) -> str:
    """Return a URL without the user and password it may hold."""
    return re.sub(r"(?<=://)[^/@]*@", "", url)


def _unreachable(url: str, error: OSError) -> Unreachable:
    return Unreachable(f"{url_shown(url)} cannot be looked up: {error}")


def _remote_facts(system: Any, info: Mapping[str, Any]) -> FileFacts:
    is_directory = info.get("type") == "directory"
    mtime = None if is_directory else _mtime_ns(system, info)
    return FileFacts(mtime, is_directory, info.get("size"))


def _mtime_ns(system: Any, info: Mapping[str, Any]) -> int | None:
    known = next((info[key] for key in _TIME_KEYS if info.get(key) is not None), None)
    if known is None:
        try:
            known = system.modified(info["name"])
        except (NotImplementedError, OSError, AttributeError, KeyError):
            _warn_of_missing_times(type(system).__name__)
            return None
    return _nanoseconds(known)


def _nanoseconds(time: Any) -> int | None:
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    if isinstance(time, datetime):
        aware = time if time.tzinfo else time.replace(tzinfo=UTC)
        elapsed = aware - datetime(1970, 1, 1, tzinfo=UTC)
        return ((elapsed.days * 86400 + elapsed.seconds) * 1_000_000 + elapsed.microseconds) * 1000
    return int(time * 1_000_000_000) if isinstance(time, (int, float)) else None


@cache
def _warn_of_missing_times(system: str) -> None:
    _logger.warning("%s keeps no modification times: its files count by existence alone.", system)
