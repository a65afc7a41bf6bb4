"""What a process of the pool has begun, in a page of memory that it shares with its driver.

Channels and pipes can be read by a task that reads whatever it finds open; what is written here stays. It outlives
the process, so the driver knows of each process that has died which task it ran. What a task writes into whatever it
finds open does not reach the page: the mapping keeps a descriptor, which stands behind the end, and is sealed.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import sys
import tempfile

_F_SEAL_FUTURE_WRITE = 0x10


def new_page() -> int:
    """Return a new descriptor of an empty page that cannot shrink, where the system can forbid it."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("overnight-board", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, mmap.PAGESIZE)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, mmap.PAGESIZE)
    os.lseek(descriptor, 0, os.SEEK_END)
    return descriptor


def seal_page(descriptor: int) -> None:
    """Let the page be written through the mappings that there are, and in no other way, where the system can do it."""
    if sys.platform == "linux":
        try:
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _F_SEAL_FUTURE_WRITE)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a kernel before 5.1
                raise


class Board:
    """The page as one side sees it: the driver reads, the process writes. The descriptor may be closed then."""

    def __init__(self, descriptor: int) -> None:
        self._page = mmap.mmap(descriptor, mmap.PAGESIZE)

    @property
    def begun(self) -> int:
        """The ticket of what the process began last; 0 before its first task."""
        return self._page[0]

    @begun.setter
    def begun(self, ticket: int) -> None:
        self._page[0] = ticket

    def close(self) -> None:
        """Give the page back."""
        self._page.close()
