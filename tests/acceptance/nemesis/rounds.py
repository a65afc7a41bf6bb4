"""One graph of the nemesis: its parameters, its places, and its tasks as the oracle knows them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.acceptance.nemesis.load import ALWAYS, Plan, plans


@dataclass(frozen=True)
class Round:
    """A graph that is run until it is done. The ledger lies on a disk that is never full."""

    number: int
    seed: int
    hours: float
    longest: float
    disk: Path
    plain: Path

    @property
    def failing(self) -> bool:
        """Whether some of its tasks always fail."""
        return self.number % 2 == 0

    @property
    def flags(self) -> Path:
        return self.disk / f"round{self.number}" / "flags"

    @property
    def task_logs(self) -> Path:
        return self.disk / f"round{self.number}" / "logs"

    @property
    def ledger(self) -> Path:
        return self.plain / f"ledger{self.number}" / "ledger"

    def prepare(self) -> None:
        """Make its directories."""
        for place in (self.flags, self.task_logs, self.ledger.parent):
            place.mkdir(parents=True, mode=0o700)

    @property
    def words(self) -> list[str]:
        """The command that runs it."""
        given = {"ledger": self.ledger, "seed": self.graph_seed, "hours": self.hours, "longest": self.longest}
        given["failing"] = str(self.failing).lower()
        parameters = [word for name, value in given.items() for word in ("-p", f"{name}={value}")]
        places = ["-d", str(self.flags), "--task-log-dir", str(self.task_logs)]
        return ["run", "tests.acceptance.nemesis.load:build", *parameters, *places, "-k", "-j", "0", "--json"]

    @property
    def graph_seed(self) -> int:
        return self.seed * 1000 + self.number

    @cached_property
    def plans(self) -> dict[str, Plan]:
        """Its tasks by id, dependencies first."""
        drawn = plans(seed=self.graph_seed, hours=self.hours, longest=self.longest, failing=self.failing)
        return {plan.task_id: plan for plan in drawn}

    @cached_property
    def unreachable(self) -> frozenset[str]:
        """The tasks that always fail, and those below them."""
        found: set[str] = set()
        for plan in self.plans.values():
            if plan.kind == ALWAYS or found.intersection(plan.deps):
                found.add(plan.task_id)
        return frozenset(found)
