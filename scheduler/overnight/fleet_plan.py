"""What a fleet consists of: how many of which processes are wanted, and with which commands they start."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from overnight.naming import file_name

SCHEDULER = "scheduler"


@dataclass(frozen=True)
class Demand:
    """What is to run: the number of workers by queue, and whether a scheduler."""

    workers: Mapping[str, int] = field(default_factory=dict)
    scheduler: bool = False

    @property
    def is_empty(self) -> bool:
        """Tell whether no process is wanted."""
        return not self.scheduler and not any(self.workers.values())

    def to_json(self) -> str:
        """Return the text that `demand_from_json` reads."""
        return json.dumps({"workers": dict(self.workers), "scheduler": self.scheduler})


def demand_from_json(text: str) -> Demand:
    """Return the demand that a client wrote."""
    content = json.loads(text)
    return Demand({str(queue): int(number) for queue, number in content["workers"].items()}, bool(content["scheduler"]))


def largest(demands: Iterable[Demand]) -> Demand:
    """Return the least demand that satisfies each of them: clients share workers."""
    workers: dict[str, int] = {}
    scheduler = False
    for demand in demands:
        scheduler = scheduler or demand.scheduler
        for queue, number in demand.workers.items():
            workers[queue] = max(number, workers.get(queue, 0))
    return Demand(workers, scheduler)


@dataclass(frozen=True)
class FleetPlan:
    """The commands of the slots; ``--queue QUEUE`` is added to the worker's.

    With ``-P``, a module in the directory that they start in, named like one of the library, does not take its place
    there. The paths on which tasks find modules travel with their run.
    """

    scheduler: tuple[str, ...] = (sys.executable, "-P", "-m", "overnight.service")
    worker: tuple[str, ...] = (sys.executable, "-P", "-m", "overnight_worker")

    def commands(self, demand: Demand) -> dict[str, tuple[str, ...]]:
        """Return the command of each slot that a demand asks for, by the slot's name."""
        commands = {SCHEDULER: self.scheduler} if demand.scheduler else {}
        for queue, number in demand.workers.items():
            for position in range(1, number + 1):
                commands[f"{_worker_slot(queue)}{position}"] = (*self.worker, "--queue", queue)
        return commands

    def to_json(self) -> str:
        """Return the text that `plan_from_json` reads."""
        return json.dumps({"scheduler": self.scheduler, "worker": self.worker})


def worker_slots(queue: str, slots: Iterable[str]) -> list[str]:
    """Return which of these slots are of workers that serve a queue."""
    beginning = _worker_slot(queue)
    return [slot for slot in slots if slot.startswith(beginning) and slot.removeprefix(beginning).isdecimal()]


def _worker_slot(queue: str) -> str:
    return f"worker-{file_name(queue)}-"


def plan_from_json(text: str) -> FleetPlan:
    """Return the plan that another process wrote."""
    content = json.loads(text)
    return FleetPlan(tuple(content["scheduler"]), tuple(content["worker"]))
