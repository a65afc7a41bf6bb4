"""Who belongs to a supervisor: all processes that its tasks have started, wherever those went, and what they hold.

A supervisor adopts what leaves its parent (`kinship.adopt_orphans`), so the tree below it is the whole of it. The tree
is read from the kernel's lists of children, which cost the same however many other processes the machine runs. Where
there are none, as elsewhere than on Linux, nothing is found.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def descendants(process: int, spared: Collection[int] = ()) -> list[int]:
    """Return the process ids of all descendants of a process but for `spared` and theirs."""
    found: list[int] = []
    pending = [process]
    while pending:
        children = [child for parent in pending for child in _children(parent) if child not in spared]
        found += children
        pending = children
    return found


def resident_memory(processes: Iterable[int]) -> int:
    """Return the resident memory of these processes in bytes; what several share counts for each of them."""
    return sum(_pages(process) for process in processes) * _PAGE_BYTES


def proportional_memory(processes: Iterable[int]) -> int:
    """Return the memory of these processes in bytes, where what n of them share counts once; slow for large ones."""
    return sum(_proportional(process) for process in processes)


def _children(process: int) -> Iterator[int]:
    directory = f"/proc/{process}/task"
    try:
        threads = os.listdir(directory)  # noqa: PTH208 - text in, text out, several times a second
    except OSError:
        return
    for thread in threads:
        yield from map(int, _read(f"{directory}/{thread}/children").split())


def _pages(process: int) -> int:
    fields = _read(f"/proc/{process}/statm").split()
    return int(fields[1]) if fields else 0


def _proportional(process: int) -> int:
    lines = _read(f"/proc/{process}/smaps_rollup").splitlines()
    shares = [line.split() for line in lines if line.startswith(b"Pss:")]
    return int(shares[0][1]) * 1024 if shares else _pages(process) * _PAGE_BYTES


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - several times a second
            return file.read()
    except OSError:  # it has ended
        return b""
