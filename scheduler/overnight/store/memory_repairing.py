"""What is lost is forgotten, or put back where it is known, in memory: INVALIDATE and RESTORE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from overnight.core.states import SUCCEEDED, RunPhase, TaskState
from overnight.store.codec import NO_DIGEST
from overnight.store.memory_data import OPEN, Dispatched, MemoryRun
from overnight.store.memory_reading import MemoryReading
from overnight.store.records import Epoch, Happening


class MemoryRepairing(MemoryReading):
    """The part of the ports that mends what was lost."""

    def restore_digests(self, run_id: str, digests: Mapping[int, bytes]) -> None:
        """RESTORE: put lost digests of finished tasks back."""
        with self._step() as now:
            run = self._touched(run_id, now)
            for task, digest in digests.items():
                if run.code(task) in SUCCEEDED and run.digest(task) == NO_DIGEST:
                    run.put_digest(task, digest)

    def invalidate(self, run_id: str, tasks: Sequence[int]) -> list[int]:
        """INVALIDATE: finished tasks become PENDING; no success of an attempt in flight is accepted any more."""
        with self._step() as now:
            run = self._touched(run_id, now)
            return [] if run.phase is RunPhase.CANCELLED else self._forget(run, tasks, now)

    def repair(
        self, epoch: Epoch, run_id: str, lost: Sequence[int], tasks: Sequence[int], invalidations: int
    ) -> int | None:
        """INVALIDATE by a scheduler: see the port."""
        with self._step() as now:
            self._fence(epoch)
            run = self._touched(run_id, now)
            is_stopped = run.phase is RunPhase.CANCELLING or run.phase.is_over
            if is_stopped or run.invalidations != invalidations:
                return None
            for task in set(lost).intersection(self._forget(run, tasks, now)):
                run.repairs[task] = run.repairs.get(task, 0) + 1
            return run.invalidations

    def _forget(self, run: MemoryRun, tasks: Sequence[int], now: float) -> list[int]:
        asked = list(dict.fromkeys(tasks))
        gone = [task for task in asked if run.code(task) in SUCCEEDED]
        if gone:
            self._check_way(run)
        for task in asked:
            entry = run.inflight.get(task)
            if run.code(task) in OPEN and entry is not None:
                run.inflight[task] = Dispatched(entry.batch, None)
        for task in gone:
            self._undo(run, task)
        if gone:
            run.invalidations += 1
            self._reopen(run, now)
            run.tell(Happening.INVALIDATED, tasks=tuple(gone), invalidations=run.invalidations)
        return gone

    def _undo(self, run: MemoryRun, task: int) -> None:
        run.put(task, TaskState.PENDING)
        run.put_digest(task, NO_DIGEST)
        run.results.pop(task, None)
        run.accepted.pop(task, None)
        run.charges.pop(task, None)
        run.inflight.pop(task, None)
