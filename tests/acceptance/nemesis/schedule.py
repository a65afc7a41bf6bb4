"""Which faults come when: drawn from one seed, written as lines of JSON, and read back to be played again."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

LEASE_SECONDS = 1.5


@dataclass(frozen=True)
class Kind:
    """A kind of fault: mean seconds between two, and the shortest and longest time that one lasts.

    What is measured `in_leases` lasts as long in a hurried run, as leases do.
    """

    name: str
    every: float
    shortest: float = 0.0
    longest: float = 0.0
    in_leases: bool = False


TABLE = (
    Kind("child killed", 3),
    Kind("worker killed", 6, 0, 5),
    Kind("host killed", 60, 0, 5),
    Kind("host off the network", 60, 0.5 * LEASE_SECONDS, 4 * LEASE_SECONDS, in_leases=True),
    Kind("worker frozen", 10, 0.5 * LEASE_SECONDS, 4 * LEASE_SECONDS, in_leases=True),
    Kind("supervisor frozen", 6, 1.5 * LEASE_SECONDS, 4 * LEASE_SECONDS, in_leases=True),
    Kind("scheduler killed", 20, 0, 10),
    Kind("scheduler frozen", 40, 0.5 * LEASE_SECONDS, 10),
    Kind("server killed", 45, 0, 8),
    Kind("server frozen", 60, 2, 20),
    Kind("slow fsync", 120, 2, 20),
    Kind("data flushed", 600),
    Kind("old data restored", 900),
    Kind("reply dropped", 4),
    Kind("connections reset", 8),
    Kind("black hole", 20, 0.1, 20),
    Kind("narrow link", 30, 0.1, 20),
    Kind("server memory full", 180, 5, 20),
    Kind("disk full", 180, 5, 20),
    Kind("flags tampered with", 10),
    Kind("client disturbed", 30, 0, 5),
    Kind("key changed", 300),
    Kind("worker with a wrong key", 300, 5, 20),
    Kind("worker with another Python", 300, 5, 20),
)


@dataclass(frozen=True)
class Fault:
    """One fault: the second of the run at which it strikes, how long it lasts, and a draw that chooses its victim."""

    at: float
    kind: str
    length: float
    draw: int

    def chance(self) -> random.Random:
        """The source of what else is random about it."""
        return random.Random(self.draw)


class Missed(Exception):
    """A fault found no victim; the text says which."""


def drawn(seed: int, seconds: float, *, speed: float = 1.0, kinds: Iterable[Kind] = TABLE) -> list[Fault]:
    """The faults of a run, in order; `speed` shortens intervals and lengths."""
    chance = random.Random(seed)
    faults = []
    for kind in kinds:
        at = chance.expovariate(speed / kind.every)
        while at < seconds:
            length = chance.uniform(kind.shortest, kind.longest) / (1.0 if kind.in_leases else speed)
            faults.append(Fault(round(at, 3), kind.name, round(length, 3), chance.getrandbits(32)))
            at += chance.expovariate(speed / kind.every)
    return sorted(faults, key=lambda fault: fault.at)


def write(path: Path, faults: Iterable[Fault]) -> None:
    """Write a schedule, one fault a line."""
    path.write_text("".join(json.dumps(asdict(fault)) + "\n" for fault in faults), "utf-8")


def read(path: Path) -> list[Fault]:
    """Read what `write` wrote."""
    return [Fault(**json.loads(line)) for line in path.read_text("utf-8").splitlines() if line.strip()]
