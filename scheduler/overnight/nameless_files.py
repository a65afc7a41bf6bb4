"""Files without a name: written once, passed on by descriptor, mapped by whoever needs what they hold.

Where the system has it, such a file is memory (`memfd_create`) and is sealed once it is written: nobody can change or
cut what others have mapped, not even a task that writes into whatever it finds open. Elsewhere it is an unnamed file in
the directory for temporary files, open for reading alone from then on where the system can open a file once more.
Nothing is left of either when the last descriptor and the last mapping of it are gone, however their holders end.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
import tempfile
import weakref
from contextlib import suppress

_SEALS = 0 if sys.platform != "linux" else fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK


class OwnedFile:
    """A descriptor that is closed when nobody refers to this object any more."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)


def new_file() -> int:
    """Return a descriptor of a new file, in memory where the system can do it. Raises OSError."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("overnight-value", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    return new_file_on_disk()


def new_file_on_disk() -> int:
    """Return a descriptor of a new file in the directory for temporary files. Raises OSError."""
    with tempfile.TemporaryFile(buffering=0) as file:
        return os.dup(file.fileno())


def write_whole(descriptor: int, data: bytes | memoryview, position: int) -> int:
    """Write all of the data at a position, and return the position behind it. Raises OSError."""
    left = memoryview(data).cast("B")
    while left:
        written = os.pwrite(descriptor, left, position)
        position += written
        left = left[written:]
    return position


def finished(descriptor: int) -> int:
    """Return a descriptor, in place of this one, through which the file can be read and no longer changed."""
    if _SEALS:
        with suppress(OSError):  # no file in memory
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS | fcntl.F_SEAL_SEAL)
            return descriptor
    try:
        return for_reading(descriptor)
    finally:
        os.close(descriptor)


def for_reading(descriptor: int) -> int:
    """Return one more descriptor of the file, that cannot be written through where the system can open it again."""
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return os.dup(descriptor)


def content(descriptor: int, begin: int, size: int) -> memoryview:
    """Return a part of a file, mapped: what is written into it stays with this process. Raises OSError, EOFError.

    `begin` is a multiple of the page size. Where it cannot be mapped it is read. The descriptor may be closed then.
    """
    if os.fstat(descriptor).st_size < begin + size:
        raise EOFError(f"A file that should hold {begin + size} bytes has {os.fstat(descriptor).st_size}.")
    try:
        return memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY, offset=begin))
    except OSError:
        return memoryview(_read(descriptor, begin, size))


def _read(descriptor: int, begin: int, size: int) -> bytearray:
    data = bytearray(size)
    view, position = memoryview(data), 0
    while position < size and (count := os.preadv(descriptor, [view[position:]], begin + position)):
        position += count
    return data
