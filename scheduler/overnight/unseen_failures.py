"""Record what failed in runs that no client followed, before a private server ends that alone knows of it.

A verdict is the scheduler's, and it is a client that records it (`run_flags`). If the client has left before, nothing
in the status directory tells that a task has failed, and once the server has ended nobody could say so. A record that
is there is left alone, whatever it says: somebody has seen to that task since.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from overnight.config import Settings
from overnight.core.states import TaskState
from overnight.errors import BadSeal, DamagedRun, UnknownRun
from overnight.files import is_directory, is_url
from overnight.keyring import Keyring, read_keyring
from overnight.naming import flag_name
from overnight.run_flags import RunFlags
from overnight.store.ports import ReadingStore
from overnight.store.records import RunRecord
from overnight.store.redis import RedisStore
from overnight.store.server_check import reach
from overnight.structure import Structure


def record_unseen_failures(redis_url: str, settings: Settings) -> None:
    """Write the missing records of tasks that failed in the runs of a server that are over.

    Raises Unreachable, and OSError where a status directory cannot be looked at.
    """
    client, _ = reach(redis_url, settings)
    try:
        store, keyring = RedisStore(client, settings.prefix), read_keyring()
        for run in store.runs():
            if run.phase.is_over:
                with suppress(UnknownRun, BadSeal, DamagedRun):  # it can tell nothing
                    write_missing(store, run, keyring)
    finally:
        client.close()


def write_missing(store: ReadingStore, run: RunRecord, keyring: Keyring) -> list[str]:
    """Write the records of a run's failed tasks that have none; return the ids of these tasks."""
    if run.status_dir is None or is_url(run.status_dir):
        return []
    directory = Path(run.status_dir)
    codes = store.states(run.run_id)[::2]
    failed = [task for task, code in enumerate(codes) if code == TaskState.FAILED]
    if not failed or not is_directory(directory):
        return []
    structure = Structure(run.run_id, store.specs(run.run_id), keyring)
    ids = {task: structure.task_id(task) for task in failed}
    missing = [task for task in failed if not os.path.lexists(directory / flag_name(ids[task]))]
    RunFlags(store, run.run_id, structure, keyring, directory).write_failures(missing)
    return [ids[task] for task in missing]
