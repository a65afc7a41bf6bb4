"""What a scheduler lets somebody see of its work. This observer looks at nothing; `metrics` has one that counts.

An observer never raises and never waits: what it is told of goes on without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from overnight.core.states import RunPhase
from overnight.service.active_run import ActiveRun
from overnight.store.records import Batch, Epoch, RunEvent, WorkerRecord


class Observer:
    """Is told of dispatches, events and ends; one that `looks` is asked now and then how everything stands."""

    looks: ClassVar[bool] = False

    def dispatched(self, batches: Sequence[Batch]) -> None:
        """These batches were put on their queues."""

    def heard(self, run: ActiveRun, entry: RunEvent, now: float) -> None:
        """An entry of a run's stream was read; the run does not know of it yet."""

    def ended(self, phase: RunPhase) -> None:
        """A run ended."""

    def look(
        self,
        epoch: Epoch,
        runs: Mapping[str, ActiveRun],
        workers: Sequence[WorkerRecord],
        depth: Callable[[str], int],
        server_now: Callable[[], float],
    ) -> None:
        """Look at how everything stands. `depth` asks the transport, `server_now` the store."""
