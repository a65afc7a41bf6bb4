"""The functions of simulated graphs. A result names the attempt that made it and those that it was computed from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: The attempts that are being called now; the last one calls.
NOW: list[Attempt] = []


@dataclass(slots=True)
class Attempt:
    """One execution of a task; `used` are the results that it was given."""

    number: int
    task_id: str
    used: list[dict[str, Any]] = field(default_factory=list)

    @property
    def nonce(self) -> str:
        """What no other execution's result holds."""
        return f"{self.number:016x}"


class SimulatedFailure(Exception):
    """The failure of a task that is to fail."""


#: How often each task still fails, by id; None: always.
FAILING: dict[str, int | None] = {}


def work(task_id: str, *results: dict[str, Any]) -> dict[str, Any]:
    """Return a result that tells of its lineage."""
    attempt = NOW[-1]
    attempt.used = list(results)
    if task_id in FAILING:
        left = FAILING[task_id]
        if left is None:
            raise SimulatedFailure(task_id)
        if left > 0:
            FAILING[task_id] = left - 1
            raise SimulatedFailure(task_id)
    return {"task": task_id, "nonce": attempt.nonce, "of": {result["task"]: result["nonce"] for result in results}}
