"""The state directory: private to one user, and the home of every lock between the local processes.

All locks are flock(2) locks on files that are never removed, so that two processes that lock one name lock one
file. A lock belongs to an open file, not to a process: it is handed to a child by inheriting the descriptor and
lives until the last copy of that is closed, which the kernel does however a process ends. Nothing here trusts a
process id found in a file unless the lock that guards it is held.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from overnight.errors import UsageError
from overnight.naming import shell_word

POLL_SECONDS = 0.01
_logger = logging.getLogger(__name__)
_LOCKS_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


def prepare_state_dir(path: str | os.PathLike[str]) -> Path:
    """Make the directory if it is missing, see that it is private (0700), return its absolute path.

    An empty directory is made private, and that is said; one that holds files and is open to others is refused with
    UsageError, because it may serve another purpose.
    """
    directory = Path(path).expanduser().resolve()
    try:
        make_private(directory)
        _see_private(directory)
        see_out_of_reach(directory)
    except OSError as error:
        raise UsageError(f"The state directory {directory} cannot be used: {error.strerror or error}.") from error
    return directory


def make_private(directory: Path) -> None:
    """Make a directory that is missing, open to its user alone, and its parents, whatever the umask. Raises OSError."""
    missing = [place for place in directory.parents if not place.exists()]
    for place in reversed(missing):
        place.mkdir(mode=0o755, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)


def see_out_of_reach(directory: Path) -> None:
    """Raise UsageError if everyone may rename or replace a directory, or what leads to it."""
    for place in (directory, *directory.parents):
        mode = place.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise UsageError(
                f"Every user of this host may replace what is in {place} (mode {stat.S_IMODE(mode):04o}), and so "
                f"{directory}: run `chmod o-w {shell_word(str(place))}` or choose another directory."
            )


def _see_private(directory: Path) -> None:
    status = directory.stat()
    if status.st_uid != os.geteuid():
        raise UsageError(f"The state directory {directory} belongs to another user; choose another --state-dir.")
    if not stat.S_IMODE(status.st_mode) & 0o077:
        return
    if next(directory.iterdir(), None) is not None:
        raise UsageError(
            f"The state directory {directory} is open to other users (mode {stat.S_IMODE(status.st_mode):04o}); "
            f"run `chmod 700 {shell_word(str(directory))}` or choose another --state-dir."
        )
    directory.chmod(0o700)
    _logger.warning(
        "The state directory %s was open to other users (mode %04o) and is private to you from now on (0700).",
        directory,
        stat.S_IMODE(status.st_mode),
    )


def try_lock(path: Path, *, shared: bool = False, create: bool = True) -> int | None:
    """Lock the file; return the descriptor that holds the lock, or None if another open file holds it.

    A missing file is made, unless `create` forbids it. Programs that this process starts do not inherit the
    descriptor, unless it is passed on by name.
    """
    descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        os.close(descriptor)
        if error.errno in _LOCKS_UNSUPPORTED:
            raise UsageError(
                f"The file system of {path.parent} has no file locks; choose a --state-dir on a local disk."
            ) from error
        raise
    return descriptor


def is_locked(path: Path) -> bool:
    """Tell whether another open file holds the lock. A file that is missing, or whose directory is, is not locked."""
    try:
        descriptor = try_lock(path, shared=True, create=False)
    except FileNotFoundError:
        return False
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def unlock(descriptor: int) -> None:
    """Release the lock, also for copies of the descriptor that a fork has made, and close it."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Ask `condition` every 10 ms for at most so long; tell whether it became true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def last_line(path: Path, offset: int = 0) -> str:
    """Return the last line with text that a log holds behind `offset` bytes, or an empty text."""
    try:
        with path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(offset, size - 4096))
            lines = log.read().decode("utf-8", "replace").split("\n")
    except FileNotFoundError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def open_log(path: Path, largest_bytes: int = 10_000_000) -> int:
    """Open a log for appending and return its descriptor; a log that has grown large becomes ``<name>.1`` first."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if path.exists() and path.stat().st_size > largest_bytes:
        path.replace(path.with_name(path.name + ".1"))
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
