"""What an executor is told by keyword: known parameters are checked, unknown ones ignored (BEHAVIOUR B1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from overnight.errors import UsageError


@dataclass(frozen=True, slots=True)
class ExecutorParameters:
    """The known parameters. `task_log_dir` None means the default directory, `max_workers` None the executor's own."""

    verbose: int = 0
    task_log_dir: str | None = None
    task_status_dir: str | None = None
    fork_tasks: bool = False
    max_workers: int | None = None
    resource_limits: Mapping[str, float] = field(default_factory=dict)
    keep_going: bool = False


def read_parameters(given: Mapping[str, Any]) -> ExecutorParameters:
    """Return the known ones of the given parameters, None standing for the default; UsageError names what is wrong."""
    max_workers = given.get("max_workers")
    if max_workers is not None and max_workers < 1:
        raise UsageError(f"max_workers must be 1 or more, not {max_workers!r}.")
    return ExecutorParameters(
        verbose=int(given.get("verbose") or 0),
        task_log_dir=_text(given.get("task_log_dir")),
        task_status_dir=_text(given.get("task_status_dir")),
        fork_tasks=bool(given.get("fork_tasks")),
        max_workers=max_workers,
        resource_limits=_limits(given.get("resource_limits") or {}),
        keep_going=bool(given.get("keep_going")),
    )


def _text(path: Any) -> str | None:
    return None if path is None else str(path)


def _limits(limits: Mapping[str, float]) -> dict[str, float]:
    for name, amount in limits.items():
        if not amount > 0:
            raise UsageError(f"resource_limits[{name!r}] must be more than 0, not {amount!r}.")
    return dict(limits)
