"""Runs, batches and reports for tests of the store, and one way to take a run through its life."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from overnight.core.states import RunPhase, TaskState
from overnight.store.memory import MemoryStore
from overnight.store.records import (
    Acceptance,
    Addition,
    Adopted,
    Batch,
    Claim,
    CommitReply,
    Epoch,
    Opening,
    Report,
    RunRecord,
    WorkerRecord,
)
from overnight.store.redis import RedisStore

Store = MemoryStore | RedisStore
LEASE = 60.0
#: A lease that has run out when anything looks at it.
NO_TIME = 0.0
ACCEPTED, SUPERSEDED = Acceptance.ACCEPTED, Acceptance.SUPERSEDED


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def __call__(self) -> float:
        self.time += 1e-6
        return self.time


def digest_of(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def run_record(
    run_id: str = "r1", *, key: str = "key", place: str = "/place", total: int = 4, **more: object
) -> RunRecord:
    return RunRecord(run_id, "a run", key, place, "me", "host", "3.11", 1, total, "default", "make it", **more)  # type: ignore[arg-type]


def addition(first: int, count: int, adopted: Sequence[int] = ()) -> Addition:
    indices = range(first, first + count)
    return Addition(
        first,
        count,
        b"spec %d" % first,
        {task: b"message %d" % task for task in indices if task not in adopted},
        {task: Adopted(digest_of(f"flag {task}"), b"located %d" % task) for task in adopted},
    )


def lineage(task: int) -> bytes:
    return digest_of(f"lineage {task}")


def batch_of(name: str, tasks: Sequence[int], attempt: int = 1, lineages: Sequence[bytes] | None = None) -> Batch:
    expected = [lineage(task) for task in tasks] if lineages is None else lineages
    return Batch(name, "default", tuple(tasks), (attempt,) * len(tasks), tuple(expected))


def success(task: int, *, of: str = "value", used: bytes | None = None) -> Report:
    digest = digest_of(f"{of} {task}")
    used = lineage(task) if used is None else used
    return Report(task, True, f"{of} {task}".encode(), digest, used, b'{"worker":"w"}', 0.25)


def failure(task: int, *, hopeless: bool = False, certificate: bytes = b"") -> Report:
    facts = b'{"worker":"w"}'
    error = b"error %d" % task
    return Report(task, False, error, b"", lineage(task), facts, None, hopeless, certificate=certificate)


def lacking(task: int, *lost: int) -> Report:
    """The report of a task that was not run, as the results of these could not be found."""
    return failure(task)._replace(lost=lost)


def worker_record(instance: str = "w1") -> WorkerRecord:
    return WorkerRecord(instance, "host", 42, ("default", "big"), "3.11", 1, 5.0, task=3, memory=7)


@dataclass
class Night:
    """One active run in a store, with the epoch held."""

    store: Store
    epoch: Epoch
    run_id: str

    def dispatch(self, *batches: Batch) -> list[bool]:
        return self.store.dispatch(self.epoch, self.run_id, batches)

    def claim(self, batch: str, worker: str = "w1", seconds: float = LEASE) -> Claim:
        claim = self.store.claim(self.run_id, batch, worker, 1, seconds)
        assert isinstance(claim, Claim), claim
        return claim

    def start(self, name: str, tasks: Sequence[int], attempt: int = 1, **more: object) -> Claim:
        """Dispatch a batch and let worker w1 claim it."""
        lineages = more.pop("lineages", None)
        assert self.dispatch(batch_of(name, tasks, attempt, lineages)) == [True]  # type: ignore[arg-type]
        return self.claim(name, **more)  # type: ignore[arg-type]

    def commit(self, batch: str, *reports: Report, worker: str = "w1", seconds: float = LEASE) -> CommitReply:
        return self.store.commit(self.run_id, batch, worker, reports, seconds)

    def states(self) -> str:
        return self.store.states(self.run_id)[::2].decode()

    def attempts(self) -> list[int]:
        return list(self.store.states(self.run_id)[1::2])

    def settle(self, *verdicts: object) -> None:
        self.store.settle(self.epoch, self.run_id, verdicts)  # type: ignore[arg-type]

    def end(self, phase: RunPhase = RunPhase.FAILED) -> bool:
        return self.store.finish(self.epoch, self.run_id, phase)

    def cursor(self) -> str:
        return self.store.load_run(self.run_id).cursor


def begin(store: Store, tasks: int = 4, run_id: str = "r1", adopted: Sequence[int] = (), **more: object) -> Night:
    """Submit a run of `tasks` tasks, activate it and take the epoch."""
    opened = store.open_run(run_record(run_id, total=tasks, **more), b"context")  # type: ignore[arg-type]
    assert opened.opening is Opening.CREATED
    store.add_tasks(run_id, addition(0, tasks, adopted))
    store.activate(run_id)
    return Night(store, epoch_of(store), run_id)


def epoch_of(store: Store) -> Epoch:
    """Take the epoch, which is free."""
    epoch = store.take_epoch("scheduler 1", "host:1", LEASE)
    assert isinstance(epoch, Epoch)
    return epoch


__all__ = ["ACCEPTED", "LEASE", "NO_TIME", "SUPERSEDED", "Night", "TaskState", "begin"]
