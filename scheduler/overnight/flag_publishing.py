"""What of the flags that stand in a status directory each writer leaves alone.

A worker's flag never takes the place of a success of the same run and lineage, nor of a later attempt's or run's: if
its result counts, it is in Redis. A worker of a run that is over, or that the server has lost, takes no success away
that ended, or came there, after its run began: a later run may have adopted it. The record of a failure, which clients
write, never takes the place of a later run's; nor does a result that they write again, if what stands there was
computed from what stands of its dependencies: after a clock was put back, ids of runs do not tell which came later,
but then it was not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from overnight.errors import BadSeal
from overnight.flag_files import (
    began_later,
    came_since,
    is_later_than,
    open_flag,
    read_header,
    standing_flag,
    stands_for,
)
from overnight.flag_writing import Before, Keep, Written, write_flags
from overnight.flags import DONE, FlagHeader, lineage_of_header
from overnight.keyring import Keyring
from overnight.lineage import lineage_digest
from overnight.naming import flag_name


def publish_flags(
    directory: Path | str,
    flags: Sequence[tuple[FlagHeader, str, bytes]],
    keyring: Keyring,
    before: Before = (),
    *,
    is_active: Callable[[], bool] = lambda: True,
) -> list[Written]:
    """Write a worker's flags, given as (header, file name, content). `is_active` asks whether its run goes on."""
    headers = {name: header for header, name, _ in flags}

    def keep(descriptor: int, name: str) -> Written | None:
        header = headers[name]
        task_id, run_id, lineage = header.task_id, header.run_id, lineage_of_header(header)
        standing = standing_flag(name, task_id, keyring, directory=descriptor)
        if run_id is None or lineage is None or standing is None:
            return None
        if stands_for(standing.header, run_id, lineage):
            return Written(kept=True)
        if is_later_than(standing.header, run_id, header.attempt):
            return Written(error=BadSeal("the flag of a later attempt or run stands there"))
        try:
            placed = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mtime
        except FileNotFoundError:  # somebody has removed it just now
            return None
        if came_since(standing.header, placed, run_id) and not is_active():
            return Written(error=BadSeal(f"run {run_id} is over, and another run's flag came there meanwhile"))
        return None

    return write_flags(directory, [(name, data) for _, name, data in flags], keep=keep, before=before)


def later_ones(headers: Sequence[FlagHeader], keyring: Keyring, names: Sequence[str]) -> Keep:
    """Return a rule for failures, whose `headers` go to files of these `names`: what is later stays."""
    by_name = dict(zip(names, headers, strict=True))

    def keep(descriptor: int, name: str) -> Written | None:
        header = by_name[name]
        standing = standing_flag(name, header.task_id, keyring, directory=descriptor)
        if standing is None or not is_later_than(standing.header, header.run_id, header.attempt):
            return None
        return Written(kept=True)

    return keep


def superseding_run(
    directory: Path, task_id: str, dependencies: Sequence[str], run_id: str, keyring: Keyring
) -> str | None:
    """Return the later run of which the success stands for a task, computed from what stands of its `dependencies`."""
    try:
        own = open_flag(directory / flag_name(task_id), task_id, keyring).header
        others = [read_header(directory / flag_name(name), name, keyring).header for name in dependencies]
    except (OSError, BadSeal):
        return None
    if any(header.state != DONE for header in (own, *others)) or not began_later(own.run_id, run_id):
        return None
    is_whole = lineage_of_header(own) == lineage_digest([bytes.fromhex(header.body_sha256) for header in others])
    return own.run_id if is_whole else None
