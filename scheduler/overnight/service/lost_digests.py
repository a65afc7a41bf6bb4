"""The digests of finished tasks that the server has lost, and where they are found again.

A worker compares the digests of what a task depends on with the lineage that its dispatch names, and gives the task
back where one is missing. A finished task without a digest would so keep all that depends on it from ever running. Its
sealed result tells the digest; where that is gone too, the result is computed again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress

from overnight.core.states import SUCCEEDED
from overnight.errors import BadSeal
from overnight.keyring import Keyring
from overnight.messages import StoredResult
from overnight.service.active_run import DIGEST_BYTES, ActiveRun
from overnight.store.codec import NO_DIGEST
from overnight.store.ports import SchedulingStore
from overnight.store.records import Epoch, RunSnapshot
from overnight.structure import Structure

_logger = logging.getLogger("overnight.scheduler")


class LostDigests:
    """Looks for them in one store. Methods raise UnknownRun, Unreachable, Fenced and what a damaged run raises."""

    def __init__(self, store: SchedulingStore, keyring: Keyring) -> None:
        self._store = store
        self._keyring = keyring

    def keep_back(self, run: ActiveRun, tasks: Iterable[int]) -> bool:
        """Tell whether tasks that came back cannot run for want of a digest that this scheduler knows."""
        inputs = [task for task in run.inputs(tasks) if run.digest(task) != NO_DIGEST]
        return bool(inputs) and NO_DIGEST in self._store.read_digests(run.run_id, inputs)

    def mended(self, epoch: Epoch, snapshot: RunSnapshot) -> RunSnapshot:
        """Return the snapshot of a run, read again if digests of its results were lost: they have been found, or are to
        be computed, by then."""
        run_id, lost = snapshot.run.run_id, _lost(snapshot)
        if not lost:
            return snapshot
        found = self._recorded(run_id, lost)
        self._store.restore_digests(run_id, found)
        gone = [task for task in lost if task not in found]
        if gone:
            below = Structure(run_id, snapshot.specs, self._keyring).with_descendants(gone)
            self._store.repair(epoch, run_id, gone, below[::-1], snapshot.invalidations)
        _logger.warning(
            "run %s: the server had lost the digests of %d results; %d are restored, %d are computed again",
            run_id, len(lost), len(found), len(gone),
        )  # fmt: skip
        return self._store.load_run(run_id)

    def _recorded(self, run_id: str, tasks: Sequence[int]) -> dict[int, bytes]:
        """Return the digests that the sealed results of these tasks tell."""
        found: dict[int, bytes] = {}
        for task, record in self._store.read_results(run_id, tasks).items():
            with suppress(BadSeal):
                found[task] = StoredResult.opened(record, run_id, task, self._keyring).digest
        return found


def _lost(snapshot: RunSnapshot) -> list[int]:
    """Return the finished tasks that have no digest."""
    digests = snapshot.digests
    if len(digests) >= DIGEST_BYTES * snapshot.run.added and NO_DIGEST not in digests:
        return []
    return [
        task
        for task, code in enumerate(snapshot.states[::2])
        if code in SUCCEEDED and digests[DIGEST_BYTES * task : DIGEST_BYTES * (task + 1)] in (b"", NO_DIGEST)
    ]
