"""The same random steps on a server and in memory lead to the same run, step by step (ADVERSITY 4, differential mode).

Steps are mostly sensible and sometimes not: repeats, stale batches, wrong workers, foreign lineages, late commits.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from overnight.core.events import Charge
from overnight.core.states import RunPhase, TaskState
from overnight.errors import Refused
from overnight.store.memory import MemoryStore
from overnight.store.records import Adopted, Claim, RunEvent, Verdict
from overnight.store.records import Request as Asked
from overnight.store.redis import RedisStore
from tests.support.stores import (
    LEASE,
    NO_TIME,
    Clock,
    Night,
    Store,
    addition,
    batch_of,
    begin,
    digest_of,
    failure,
    lacking,
    lineage,
    success,
    worker_record,
)

SEQUENCES = 50
STEPS = 60
Step = Callable[[Night], Any]


class Walk:
    """Draws the next step from what both stores showed so far."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.size = 12
        self.names: list[str] = []
        self.members: dict[str, tuple[int, ...]] = {}
        self.attempts: list[int] = [0] * self.size
        self.pending: list[int] = list(range(self.size))
        self.in_flight: list[str] = []
        self.invalidations = 0

    def next(self) -> Step:
        draws = [
            *[self.dispatch] * 5,
            *[self.claim] * 5,
            *[self.commit] * 6,
            self.give_back,
            self.heartbeat,
            self.withdraw,
            self.reap,
            *[self.settle] * 2,
            self.adopt,
            self.invalidate,
            *[self.repair] * 2,
            self.request,
            self.add,
            self.end,
        ]
        return self.rng.choice(draws)()

    def saw(self, night: Night) -> None:
        """Take notice of where a store stands."""
        self.attempts = [*night.attempts(), 0, 0]
        self.pending = [task for task, code in enumerate(night.states()) if code == "p"]
        snapshot = night.store.load_run("r1")
        self.in_flight = [flight.batch for flight in snapshot.flights]
        self.invalidations = snapshot.invalidations

    def to_dispatch(self) -> list[int]:
        if len(self.pending) < 2 or self.rng.random() < 0.1:
            return self.some()
        return self.rng.sample(self.pending, self.rng.randint(1, min(4, len(self.pending))))

    def some(self, most: int = 4) -> list[int]:
        return self.rng.sample(range(self.size), self.rng.randint(1, most))

    def name(self) -> str:
        if self.in_flight and self.rng.random() < 0.8:
            return self.rng.choice(self.in_flight)
        return self.rng.choice(self.names) if self.names else "none"

    def worker(self) -> str:
        return self.rng.choice(("w1", "w1", "w1", "w1", "w1", "w2"))

    def seconds(self) -> float:
        return self.rng.choice((LEASE, LEASE, NO_TIME))

    def dispatch(self) -> Step:
        if self.names and self.rng.random() < 0.15:
            name = self.name()
            tasks: list[int] = list(self.members[name])
        else:
            name, tasks = f"b{len(self.names)}", self.to_dispatch()
            self.names.append(name)
            self.members[name] = tuple(tasks)
        chain = self.rng.random() < 0.3
        expected = [
            b"" if chain and place else lineage(task + self.rng.choice((0, 0, 0, 50)))
            for place, task in enumerate(tasks)
        ]
        attempts = tuple(min(self.attempts[task] + 1, 255) for task in tasks)
        return lambda night: night.dispatch(replace(batch_of(name, tasks, 1, expected), attempts=attempts))

    def claim(self) -> Step:
        name, worker, seconds = self.name(), self.worker(), self.seconds()
        sequence = self.rng.choice((1, 1, 1, 2))

        def step(night: Night) -> Any:
            claim = night.store.claim("r1", name, worker, sequence, seconds)
            return replace(claim, run=replace(claim.run, created_at=0, rested=0)) if isinstance(claim, Claim) else claim

        return step

    def commit(self) -> Step:
        name, worker, seconds, rng = self.name(), self.worker(), self.seconds(), self.rng
        tasks = list(self.members.get(name, (0,)))
        reports = []
        for task in tasks[: rng.randint(1, 4)] + ([rng.randrange(self.size)] if rng.random() < 0.1 else []):
            if rng.random() < 0.1:
                reports.append(lacking(task, *rng.sample(range(self.size), rng.randint(1, 3))))
            elif rng.random() < 0.25:
                reports.append(failure(task, hopeless=rng.random() < 0.2))
            else:
                used = lineage(task + rng.choice((0, 0, 0, 50)))
                reports.append(success(task, of=rng.choice(("value", "value", name)), used=used))
        return lambda night: night.commit(name, *reports, worker=worker, seconds=seconds)

    def give_back(self) -> Step:
        name, worker, tasks = self.name(), self.worker(), self.some(6)
        return lambda night: night.store.give_back("r1", name, worker, tasks)

    def heartbeat(self) -> Step:
        worker, asked, seconds = self.worker(), [("r1", self.name()), ("r1", self.name())], self.seconds()
        return lambda night: night.store.heartbeat(worker_record(worker), seconds, asked)

    def withdraw(self) -> Step:
        names = [self.name(), self.name()]
        return lambda night: night.store.withdraw(night.epoch, "r1", names)

    def reap(self) -> Step:
        return lambda night: sorted((one.batch, one.tasks) for one in night.store.reap(night.epoch))

    def settle(self) -> Step:
        states = (TaskState.PENDING, TaskState.FAILED, TaskState.SKIPPED, TaskState.CANCELLED)
        verdicts = []
        for task in self.some(3):
            state = self.rng.choice(states)
            charge = Charge(self.rng.randrange(3), 0, 1.5) if self.rng.random() < 0.5 else None
            cause = self.rng.randrange(self.size) if state is TaskState.SKIPPED else None
            verdicts.append(Verdict(task, state, charge, cause))
        return lambda night: night.settle(*verdicts)

    def adopt(self) -> Step:
        flags = {task: Adopted(digest_of(f"flag {task}"), b"f%d" % task) for task in self.some(2)}
        return lambda night: sorted(night.store.adopt("r1", flags))

    def invalidate(self) -> Step:
        tasks = self.some(3)
        return lambda night: night.store.invalidate("r1", tasks)

    def repair(self) -> Step:
        lost, heard = self.some(3), self.invalidations + self.rng.choice((0, 0, 0, 1))
        tasks = [*lost, *(task for task in self.some(3) if task not in lost)]
        return lambda night: night.store.repair(night.epoch, "r1", lost, tasks, heard)

    def request(self) -> Step:
        asked = self.rng.choice(
            (Asked.PAUSE, Asked.RESUME, Asked.RESUME, Asked.RETRY, Asked.RETRY, Asked.RETRY, Asked.CANCEL)
        )
        tasks = self.some(3) if asked is Asked.RETRY and self.rng.random() < 0.5 else []
        return lambda night: night.store.request("r1", asked, tasks)

    def add(self) -> Step:
        first = self.rng.choice((self.size, self.size, 0, self.size + 1))
        if first == self.size and self.size < 18:
            self.size += 2
            self.attempts += [0, 0]
        elif first == self.size:
            first = 0
        return lambda night: night.store.add_tasks("r1", addition(first, 2, [first + 1]))

    def end(self) -> Step:
        """Try to end the run; sometimes after giving up whatever is open."""
        forced = self.rng.random() < 0.3
        phase = self.rng.choice((RunPhase.FAILED, RunPhase.CANCELLED))

        def step(night: Night) -> Any:
            if forced:
                night.settle(*(Verdict(task, TaskState.CANCELLED) for task in range(self.size)))
            return night.end(phase)

        return step


def taken(step: Step, night: Night) -> Any:
    try:
        return step(night)
    except Refused as refused:
        return type(refused)


def shown(store: Store) -> Any:
    snapshot = store.load_run("r1")
    ended_at = None if snapshot.run.ended_at is None else 1.0
    run = replace(snapshot.run, created_at=0.0, ended_at=ended_at, rested=float(snapshot.run.rested > 0))
    flights = sorted(snapshot.flights, key=lambda flight: flight.batch)
    tasks = store.tasks("r1", range(snapshot.run.added))
    results = store.read_results("r1", range(snapshot.run.added))
    state = (
        run,
        snapshot.specs,
        snapshot.states,
        snapshot.digests,
        flights,
        dict(snapshot.charges),
        dict(snapshot.repairs),
    )
    lacked = {task: tuple(lost) for task, lost in snapshot.lacking.items()}
    return (
        state,
        (snapshot.invalidations, lacked),
        tasks,
        results,
        store.active_runs(),
        [told_without_place(event) for event in store.follow("r1", "0", 0)],
    )


def told_without_place(event: RunEvent) -> RunEvent:
    """An event without its cursor, and with its tasks in one order."""
    return replace(event, cursor="", tasks=tuple(sorted(event.tasks)), verdicts=tuple(sorted(event.verdicts, key=str)))


@pytest.mark.parametrize("seed", range(SEQUENCES))
def test_server_and_memory_come_to_the_same(server_store: RedisStore, seed: int) -> None:
    walk = Walk(seed)
    real, model = begin(server_store, walk.size), begin(MemoryStore(now=Clock()), walk.size)
    done: list[str] = []
    for number in range(STEPS):
        step = walk.next()
        done.append(step.__qualname__)
        assert taken(step, real) == taken(step, model), f"seed {seed}, step {number}: {done[-5:]}"
        assert shown(server_store) == shown(model.store), f"seed {seed}, step {number}: {done[-5:]}"
        walk.saw(model)
