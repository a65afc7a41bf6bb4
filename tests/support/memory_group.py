"""A memory cgroup for a test: made below this process's own, or beside it where that is the only place."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from overnight.state_dir import wait_until
from overnight_worker.memory_kills import MemoryKills

#: Per version: what a group may hold, and what bounds swap besides.
_LIMITS = (("memory.max", "memory.swap.max"), ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"))
_SECONDS = 20.0


@dataclass(frozen=True)
class MemoryGroup:
    """A cgroup whose processes may hold so many bytes together."""

    directory: Path
    limit: int

    def enter(self) -> None:
        """Move this process in; what it starts stays in. Fit for a process that is about to become a program."""
        (self.directory / "cgroup.procs").write_text("0", encoding="ascii")

    def processes(self) -> list[psutil.Process]:
        """The processes in it."""
        text = (self.directory / "cgroup.procs").read_text(encoding="ascii")
        return [psutil.Process(int(pid)) for pid in text.split()]


def own_groups() -> tuple[Path, ...]:
    """Return the directory of this process's memory cgroup, then of those around it as far as they can be seen."""
    return MemoryKills().groups


def why_none() -> str | None:
    """Say what this machine lacks for a memory cgroup; None if one can be made."""
    try:
        with memory_group(64_000_000) as group:
            _enter_and_leave(group)
    except OSError as error:
        return (
            "A kill by the kernel needs a machine where tests may make a memory cgroup (root, or a delegated one, with "
            f"/sys/fs/cgroup writable): {error}."
        )
    return None


@contextmanager
def memory_group(limit: int) -> Iterator[MemoryGroup]:
    """Make a group of so many bytes; remove it in the end, with what still runs in it. Raises OSError."""
    group = MemoryGroup(_made(), limit)
    try:
        _set_limit(group)
        yield group
    finally:
        assert wait_until(lambda: _removed(group), _SECONDS), f"{group.directory} cannot be removed"


def _made() -> Path:
    """Make the directory. A group of version 2 that holds processes has none below it with a limit."""
    errors = ["this process is in no memory cgroup that can be seen"]
    for around in own_groups():
        directory = around / f"overnight-test-{os.getpid()}"
        try:
            directory.mkdir()
        except OSError as error:
            errors.append(str(error))
            continue
        if any((directory / name).exists() for name, _ in _LIMITS):
            return directory
        directory.rmdir()
        errors.append(f"{around} does not have its memory controller enabled for groups below it")
    raise OSError(errors[-1])


def _set_limit(group: MemoryGroup) -> None:
    for limit, swap in _LIMITS:
        if not (group.directory / limit).exists():
            continue
        (group.directory / limit).write_text(str(group.limit), encoding="ascii")
        # A kernel without swap accounting has no such file.
        if (group.directory / swap).exists():
            (group.directory / swap).write_text("0" if swap == "memory.swap.max" else str(group.limit))


def _enter_and_leave(group: MemoryGroup) -> None:
    process = os.posix_spawn("/bin/sh", ["sh", "-c", 'echo $$ > "$1"', "sh", f"{group.directory}/cgroup.procs"], {})
    _, status = os.waitpid(process, 0)
    if status:
        raise PermissionError(f"no process can be moved to {group.directory}")


def _removed(group: MemoryGroup) -> bool:
    for process in group.processes():
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    with suppress(OSError):
        group.directory.rmdir()
    return not group.directory.exists()
