"""What a report is made from: plain values of one run, read once. Headers and facts alone; nothing is unpickled."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import isfinite, nan
from typing import Any

from overnight.certificates import DeathCertificate
from overnight.client import Client
from overnight.commands.causes import Cause, certificates_of
from overnight.commands.ending import causes_of
from overnight.core.states import TaskState
from overnight.json_text import decoded
from overnight.store.ports import ReadingStore
from overnight.store.records import RunRecord

_AT_ONCE = 5000
#: Of how many tasks with several attempts the failed ones are read.
MOST_REPEATED = 2000


@dataclass(frozen=True, slots=True)
class Execution:
    """One attempt on a worker: when it began, how long it took, whether it failed. Times are seconds."""

    task: int
    worker: str
    started: float
    seconds: float
    failed: bool


@dataclass(slots=True)
class RunFacts:
    """One run. Lists have one entry a task, by index; a duration or size that is not known is NaN.

    `peak` is the most memory that the process of the attempt had held by its end, `size` that of the result in bytes.
    `deaths` are certificates of failed attempts with their tasks.
    """

    run: RunRecord
    now: float
    task_ids: Sequence[str]
    rows: Sequence[tuple[str, Sequence[int]]]
    codes: bytes
    causes: Sequence[Cause]
    workers: list[str | None]
    started: array[float]
    seconds: array[float]
    peak: array[float]
    size: array[float]
    learned: dict[str, tuple[float, int]] = field(default_factory=dict)
    deaths: list[tuple[int, DeathCertificate]] = field(default_factory=list)

    @property
    def counts(self) -> dict[TaskState, int]:
        """How many tasks are in each state; states without tasks are left out."""
        return {state: self.codes.count(state) for state in TaskState if state in self.codes}

    @property
    def ended_at(self) -> float:
        """When the run ended; now, if it goes on."""
        return self.run.ended_at or self.now

    def executed(self) -> list[int]:
        """Return the tasks of which an attempt on a worker is on record, successful or not."""
        return [task for task, seconds in enumerate(self.seconds) if isfinite(seconds)]

    def executions(self) -> Iterator[Execution]:
        """Yield all attempts of which worker, start and duration are known."""
        told = set()
        for task, certificate in self.deaths:
            if certificate.started is not None and certificate.seconds is not None and certificate.worker:
                told.add((task, round(certificate.started, 3)))
                yield Execution(task, certificate.worker, certificate.started, certificate.seconds, failed=True)
        for task in self.executed():
            worker, started = self.workers[task], self.started[task]
            if worker is not None and isfinite(started) and (task, round(started, 3)) not in told:
                failed = self.codes[task] == TaskState.FAILED
                yield Execution(task, worker, started, self.seconds[task], failed=failed)


def read_facts(client: Client, run_id: str) -> RunFacts:
    """Read a run. Raises UnknownRun, Unreachable, UnreadableRun."""
    deployment = client.deployment
    store, structure = deployment.store, client.structure(run_id)
    run, states = store.run(run_id), store.states(run_id)
    number = min(len(structure), len(states) // 2)
    codes = states[::2][:number]
    unknown = array("d", [nan]) * number
    facts = RunFacts(
        run=run,
        now=store.now(),
        task_ids=list(structure.ids())[:number],
        rows=list(structure.rows())[:number],
        codes=codes,
        causes=causes_of(deployment, run_id, states),
        workers=[None] * number,
        started=unknown[:],
        seconds=unknown[:],
        peak=unknown[:],
        size=unknown,
        learned=store.read_durations(),
    )
    _fill(facts, store)
    repeated = [task for task in range(number) if states[2 * task + 1] > 1 or codes[task] == TaskState.FAILED]
    for task in repeated[:MOST_REPEATED]:
        facts.deaths += [(task, certificate) for certificate in certificates_of(deployment, run_id, task)]
    return facts


def _fill(facts: RunFacts, store: ReadingStore) -> None:
    names: dict[str, str] = {}
    ran = [task for task, code in enumerate(facts.codes) if code in _MAY_HAVE_RUN]
    for start in range(0, len(ran), _AT_ONCE):
        for task, text in store.read_facts(facts.run.run_id, ran[start : start + _AT_ONCE]).items():
            told = _told(text)
            worker = None if told.get("found") else told.get("worker")
            facts.workers[task] = names.setdefault(worker, worker) if isinstance(worker, str) else None
            facts.started[task] = _number(told.get("started"))
            facts.seconds[task] = _number(told.get("seconds"))
            facts.peak[task] = _number(told.get("peak_memory"))
            facts.size[task] = _number(told.get("bytes")) if facts.codes[task] == TaskState.DONE else nan


_MAY_HAVE_RUN = frozenset(
    int(state) for state in (TaskState.DONE, TaskState.FAILED, TaskState.PENDING, TaskState.TRIED, TaskState.CANCELLED)
)


def _told(text: bytes) -> dict[str, Any]:
    """Return the facts of a report, whatever may stand there in their place."""
    try:
        told = decoded(text)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _number(value: object) -> float:
    """Return a number that may be shown, else NaN."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < 1e15 else nan  # type: ignore[operator, arg-type]
