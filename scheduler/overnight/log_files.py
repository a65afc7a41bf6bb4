"""Reading logs of tasks: what stands in a directory that tasks may write to is opened as data, links not followed."""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO


def open_log(path: str) -> BinaryIO:
    """Open a local log for reading. Raises OSError, also for what is no regular file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return os.fdopen(descriptor, "rb")


def end_of_log(path: str, most_bytes: int) -> tuple[str, float]:
    """Return at most the last so many bytes of a local log, and when it was changed last. Raises OSError."""
    with open_log(path) as file:
        facts = os.fstat(file.fileno())
        file.seek(max(0, facts.st_size - most_bytes))
        return file.read(most_bytes).decode("utf-8", "backslashreplace"), facts.st_mtime
