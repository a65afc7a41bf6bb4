"""The graphs of the nemesis, and the tasks in them.

A task writes a line of JSON to the ledger when it starts and one when it ends. Its value carries a fresh nonce and the
hashes of the values it was computed from, so that each execution has a value of its own and shows its lineage.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overnight.graph import Task, TaskGraph
from tests.support.ledgers import write_line

ALWAYS, ONCE, GIL, STEADY = "always", "once", "gil", "steady"
MEGABYTE = 1_000_000
RETRIES = 100
#: Seconds for which some tasks hold the interpreter: three leases.
GIL_SECONDS = 4.5


@dataclass(frozen=True)
class Value:
    """The value of one execution; `hash` covers all else."""

    task_id: str
    nonce: str
    inputs: tuple[str, ...]
    hash: str
    padding: bytes = b""

    def is_sound(self) -> bool:
        """Whether the hash is that of the rest."""
        return self.hash == value_hash(self.task_id, self.nonce, self.inputs, self.padding)


def value_hash(task_id: str, nonce: str, inputs: tuple[str, ...], padding: bytes) -> str:
    content = json.dumps([task_id, nonce, inputs]).encode() + padding
    return hashlib.sha256(content).hexdigest()[:32]


@dataclass(frozen=True)
class Plan:
    """What one task is to do."""

    task_id: str
    deps: tuple[str, ...] = ()
    seconds: float = 0.0
    kind: str = STEADY
    size: int = 0


def execute(ledger: str, plan: Plan, values: list[Value]) -> Value:
    """Carry a plan out, between a start line and an end line."""
    nonce = os.urandom(8).hex()
    inputs = tuple(value.hash for value in values)
    line: dict[str, Any] = {"id": plan.task_id, "nonce": nonce, "inputs": inputs, "worker": os.getppid()}
    write_line(ledger, json.dumps({"event": "start", "at": time.monotonic(), **line}))
    if plan.kind == ALWAYS:
        raise ValueError(f"task {plan.task_id} always fails")
    if plan.kind == ONCE and _is_first(ledger, plan.task_id):
        raise RuntimeError(f"task {plan.task_id} fails once")
    if plan.kind == GIL:
        ctypes.PyDLL(None).usleep(int(plan.seconds * 1e6))
    elif plan.seconds:
        time.sleep(plan.seconds)
    padding = random.Random(nonce).randbytes(plan.size)
    value = Value(plan.task_id, nonce, inputs, value_hash(plan.task_id, nonce, inputs, padding), padding)
    write_line(ledger, json.dumps({"event": "end", "at": time.monotonic(), "hash": value.hash, **line}))
    return value


def _is_first(ledger: str, task_id: str) -> bool:
    mark = hashlib.sha256(task_id.encode()).hexdigest()[:16]
    try:
        Path(f"{ledger}.{mark}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def plans(*, seed: int, hours: float, longest: float = 5.0, failing: bool = True) -> list[Plan]:
    """The tasks of a graph, dependencies first; an hour's has 3,900, and at least 60 are in each."""
    return _Drawing(seed, hours, longest, failing=failing).all()


class _Drawing:
    def __init__(self, seed: int, hours: float, longest: float, *, failing: bool) -> None:
        self._chance = random.Random(f"load {seed}")
        self._hours = hours
        self._longest = longest
        self._failing = failing
        self._plans: list[Plan] = []

    def all(self) -> list[Plan]:
        self._chain(self._many(200, 5))
        self._fan_out(self._many(2000, 16))
        self._diamonds(self._many(200, 12), 4)
        self._random(self._many(500, 12))
        self._no_ops(self._many(1000, 30))
        return self._plans

    def _many(self, an_hour: int, least: int) -> int:
        return max(least, round(an_hour * self._hours))

    def _add(self, task_id: str, *deps: str, may_fail: bool = False, works: bool = True) -> str:
        drawn = self._chance.random()
        kind = STEADY
        if works and drawn < 0.05:
            kind = ONCE
        elif works and drawn < 0.07:
            kind = GIL
        elif works and may_fail and self._failing and drawn < 0.08:
            kind = ALWAYS
        sized = self._chance.random()
        size = 60 * MEGABYTE if sized < 0.002 and self._hours > 0.1 else 5 * MEGABYTE if sized < 0.012 else 0
        seconds = math.exp(self._chance.uniform(math.log(0.05), math.log(self._longest)))
        seconds = GIL_SECONDS if kind == GIL else seconds if works else 0.0
        self._plans.append(Plan(task_id, deps, seconds, kind, size if works else 0))
        return task_id

    def _chain(self, count: int) -> None:
        before: tuple[str, ...] = ()
        for number in range(count):
            before = (self._add(f"chain {number}", *before),)

    def _fan_out(self, count: int) -> None:
        source = self._add("source")
        for number in range(count - 1):
            self._add(f"fan {number}", source, may_fail=True)
        if self._failing:
            self._plans.append(Plan("fan failing", (source,), 0.05, ALWAYS))

    def _diamonds(self, count: int, width: int) -> None:
        row = [self._add(f"mesh 0/{at}") for at in range(width)]
        for level in range(1, max(2, count // width)):
            pairs = [(row[at], row[(at + 1) % width]) for at in range(width)]
            row = [self._add(f"mesh {level}/{at}", *pair) for at, pair in enumerate(pairs)]

    def _random(self, count: int) -> None:
        made: list[str] = []
        for number in range(count):
            deps = self._chance.sample(made, min(len(made), self._chance.randint(0, 3)))
            made.append(self._add(f"random {number}", *deps, may_fail=True))

    def _no_ops(self, count: int) -> None:
        for number in range(count):
            self._add(f"no-op {number}", works=False)


def build(*, ledger: str, seed: int, hours: float, longest: float = 5.0, failing: bool = True) -> TaskGraph:
    """The graph of `plans`."""
    graph = TaskGraph()
    tasks: dict[str, Task] = {}
    for plan in plans(seed=seed, hours=hours, longest=longest, failing=failing):
        args = [ledger, plan, [tasks[dep] for dep in plan.deps]]
        retries = 1 if plan.kind == ALWAYS else RETRIES
        tasks[plan.task_id] = graph.create_task(plan.task_id, execute, args=args, retries=retries)
    return graph
