"""Where a socket can lie: a path short enough for the kernel, in a directory that is open to its user alone."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from overnight.errors import Unreachable

#: The kernel's limit is 104 (macOS) or 108 (Linux) bytes with the final NUL.
LONGEST_SOCKET_PATH = 100
SOCKET_NAME = "redis.sock"


def fits_a_socket(path: Path) -> bool:
    """Tell whether the path is short enough for the kernel, and text that a URL can carry."""
    raw = os.fsencode(path)
    return len(raw) <= LONGEST_SOCKET_PATH and raw.decode("utf-8", "replace").encode() == raw


def is_private(directory: Path) -> bool:
    """Tell whether there is a directory of this user's that nobody else may enter."""
    try:
        status = directory.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def is_made(directory: Path) -> bool:
    """Make a directory that is open to this user alone; False if it cannot be made, or is there."""
    try:
        directory.mkdir(mode=0o700)
    except OSError:
        return False
    return True


def make_short_directory() -> Path:
    """Make a private directory whose path is short; Unreachable if there is no place for one."""
    for parent in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):  # noqa: S108 - mkdtemp is private
        if parent and os.access(parent, os.W_OK) and fits_a_socket(Path(parent) / "overnight-12345678" / SOCKET_NAME):
            return Path(tempfile.mkdtemp(prefix="overnight-", dir=parent))
    raise Unreachable("No directory with a path short enough for the server's socket was found; set TMPDIR to one.")
