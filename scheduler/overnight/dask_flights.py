"""The batches that are on a Dask cluster, and what their ends mean for their tasks (BEHAVIOUR DK3, O7, B15).

A batch whose worker dies is run again by Dask itself as often as the cluster's `allowed-failures` says. Then it ends
as KilledWorker, and so does all else that was assigned to that worker, whether it ran or waited there. Which of the
tasks is to blame shows when each goes alone: what was lost together is given back and becomes suspect, and of the
suspects one at a time is on the cluster. A task that is lost alone is charged with as many losses as workers died, a
suspect that is lost with others with one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from distributed import Future, KilledWorker

from overnight.base_executor import RunFacts
from overnight.core.retry import MOST_LOSSES
from overnight.dask_collecting import BatchEnded, BatchLate
from overnight.dask_packing import PackedBatch, ValueOnCluster
from overnight.dask_run import GIVEN_BACK, BatchedLaunch, RemoteOutcome
from overnight.errors import TaskDied
from overnight.graph_run import Finished
from overnight.invoke import Outcome
from overnight.naming import shown
from overnight.outcome_message import unpack_outcome
from overnight.task_log import TaskLog

#: Results above this stay on the cluster; others are remembered by the driver and travel with the orders.
MOST_REMEMBERED_BYTES = 16 * 1024

_logger = logging.getLogger("task_executor")


@dataclass(eq=False)
class Flight:
    """A batch on its way; `future` None while it is not on the cluster.

    `waiting` are the attempts that have not ended, by their position in the batch.
    """

    name: str
    priority: int
    suspect: bool = False
    packed: PackedBatch = field(default_factory=PackedBatch)
    waiting: dict[int, BatchedLaunch] = field(default_factory=dict)
    future: Future[Any] | None = None


class Flights:
    """All batches of one run that have not ended, and the futures of those whose results stay on the cluster."""

    def __init__(self, facts: RunFacts) -> None:
        self._facts = facts
        self._by_name: dict[str, Flight] = {}
        self._losses: dict[int, int] = {}
        self.suspects: set[int] = set()
        self.kept: list[Future[Any]] = []

    def add(self, flight: Flight) -> None:
        """Follow a batch from now on."""
        self._by_name[flight.name] = flight

    def futures(self) -> dict[str, Future[Any]]:
        """Return the futures of the batches on the cluster, by name."""
        return {name: flight.future for name, flight in self._by_name.items() if flight.future is not None}

    @property
    def has_suspect(self) -> bool:
        """Tell whether a suspect is on the cluster."""
        return bool(self.suspects) and any(flight.suspect and flight.future for flight in self._by_name.values())

    def judged(self, messages: Iterable[BatchEnded | BatchLate]) -> Iterator[Finished]:
        """Yield how attempts ended, given what became of batches; what is known already is passed over."""
        killed: dict[str, list[tuple[Flight, KilledWorker]]] = {}
        for message in messages:
            flight = self._by_name.get(message.name)
            if flight is None:
                continue
            if isinstance(message, BatchLate):
                yield from self._reported(flight, message)
            elif isinstance(message.error, KilledWorker):
                killed.setdefault(message.error.last_worker.address, []).append((flight, message.error))
            elif message.report is not None:
                yield from self._fetched(flight, message.report)
            else:
                yield from self.all_ended(flight, None if message.error is None else failure(message.error))
        for worker, together in killed.items():
            yield from self._killed(worker, together)

    def all_ended(self, flight: Flight, outcome: Outcome | None) -> list[Finished]:
        """End all attempts of a batch alike."""
        finished = [self._one_ended(flight, position, outcome) for position in list(flight.waiting)]
        self._forget(flight)
        return finished

    def _reported(self, flight: Flight, late: BatchLate) -> Iterator[Finished]:
        outcomes = [(position, unpack_outcome(packed)) for position, packed in late.outcomes]
        for position, outcome in [*outcomes, *[(position, GIVEN_BACK) for position in late.given_back]]:
            if position in flight.waiting:
                yield self._one_ended(flight, position, outcome)

    def _fetched(self, flight: Flight, report: Sequence[bytes | None]) -> list[Finished]:
        finished = [
            self._one_ended(flight, position, _outcome(flight.future, position, report[position]))
            for position in list(flight.waiting)
        ]
        self._forget(flight, keep=any(isinstance(outcome, RemoteOutcome) for _, outcome in finished))
        return finished

    def _one_ended(self, flight: Flight, position: int, outcome: Outcome | None) -> Finished:
        launch = flight.waiting.pop(position)
        if outcome is not None and outcome is not GIVEN_BACK:
            self.suspects.discard(launch.index)
            self._losses.pop(launch.index, None)
        return launch, outcome

    def _forget(self, flight: Flight, *, keep: bool = False) -> None:
        self._by_name.pop(flight.name, None)
        if flight.future is None:
            return
        if keep:
            self.kept.append(flight.future)
        else:
            flight.future.release()

    # Workers that died.

    def _killed(self, worker: str, together: Sequence[tuple[Flight, KilledWorker]]) -> Iterator[Finished]:
        alone = sum(len(flight.waiting) for flight, _ in together) == 1
        for flight, error in together:
            for position, launch in list(flight.waiting.items()):
                outcome: Outcome | None = GIVEN_BACK
                if alone or launch.index in self.suspects:
                    outcome = self._charged(launch, worker, error.allowed_failures + 1 if alone else 1)
                self.suspects.add(launch.index)
                yield self._one_ended(flight, position, outcome)
            self._forget(flight)

    def _charged(self, launch: BatchedLaunch, worker: str, losses: int) -> Outcome | None:
        """Charge a task with so many losses; return its TaskDied if these are too many in a row."""
        losses += self._losses.get(launch.index, 0)
        self._losses[launch.index] = losses
        if losses < MOST_LOSSES:
            return None
        facts, task_id = self._facts, launch.task.task_id
        reason = f"Task {task_id!r} died: {losses} workers in a row ended while it ran, the last one {worker}."
        with TaskLog(task_id, facts.log_dir, facts.verbosity, run_id=facts.run_id, attempt=launch.attempt):
            _logger.error("task <%s> ended: %s", shown(task_id), reason)
        return failure(TaskDied(reason, worker=worker))


def failure(error: BaseException) -> Outcome:
    """Return the outcome of an attempt that this error kept from running."""
    return Outcome(ok=False, value=error, started=time.time(), seconds=0.0)


def _outcome(future: Future[Any] | None, position: int, packed: bytes | None) -> Outcome:
    if packed is None:
        return GIVEN_BACK
    outcome = unpack_outcome(packed)
    if not outcome.ok or future is None or len(packed) <= MOST_REMEMBERED_BYTES:
        return outcome
    facts = (outcome.ok, outcome.value, outcome.started, outcome.seconds, outcome.peak_memory)
    return RemoteOutcome(*facts, remote=ValueOnCluster(future, position))
