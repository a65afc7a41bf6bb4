"""What failed in runs whose clients did not see their end, as the server tells it.

The record of a failure in the status directory is written by a client that follows the run: the verdict is the
scheduler's, which may have no access to that directory. What no client has recorded the server still knows.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from overnight.client import Client
from overnight.commands.causes import errors_of, short_type
from overnight.core.states import SUCCEEDED, TaskState
from overnight.deployment import Deployment
from overnight.errors import UnknownRun, UnreadableRun
from overnight.store.records import RunRecord

#: So many runs of a status directory are looked through, the newest first.
_MOST_RUNS = 20
_SUCCEEDED = frozenset(int(state) for state in SUCCEEDED)


def read_failures(deployment: Deployment, place: str | None, task_ids: Collection[str]) -> dict[str, str]:
    """Return of those tasks that failed when they ran last, in the runs of a status directory, a reason to run them."""
    runs = [run for run in deployment.store.runs() if place is not None and run.place == place]
    unknown, found = set(task_ids), dict[str, str]()
    for run in runs[:_MOST_RUNS]:
        if not unknown:
            break
        with suppress(UnknownRun, UnreadableRun):
            _look_into(deployment, run, unknown, found)
    return found


def _look_into(deployment: Deployment, run: RunRecord, unknown: set[str], found: dict[str, str]) -> None:
    """Move from `unknown` to `found` what failed in a run; what succeeded there is only taken out."""
    codes = deployment.store.states(run.run_id)[::2]
    if not (_SUCCEEDED | {int(TaskState.FAILED)}).intersection(codes):
        return
    ids = dict(zip(range(len(codes)), Client.of(deployment).task_ids(run.run_id), strict=False))
    asked = {number: task_id for number, task_id in ids.items() if task_id in unknown}
    failed = [number for number in asked if codes[number] == TaskState.FAILED]
    for number, error in errors_of(deployment, run.run_id, failed):
        found[asked[number]] = f"failed with {short_type(error)} in run {run.run_id}"
    unknown -= {task_id for number, task_id in asked.items() if number in failed or codes[number] in _SUCCEEDED}
