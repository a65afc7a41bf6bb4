"""What an executor is told by keyword: known parameters are checked, unknown ones ignored (BEHAVIOUR B1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import index
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
    return ExecutorParameters(
        verbose=_verbosity(given.get("verbose") or 0),
        task_log_dir=_text(given.get("task_log_dir")),
        task_status_dir=_text(given.get("task_status_dir")),
        fork_tasks=bool(given.get("fork_tasks")),
        max_workers=whole_number("max_workers", given.get("max_workers"), least=1),
        resource_limits=_limits(given.get("resource_limits") or {}),
        keep_going=bool(given.get("keep_going")),
    )


def _text(path: Any) -> str | None:
    return None if path is None else str(path)


def whole_number(name: str, value: Any, *, least: int) -> int | None:
    """Return a number that was given by a name, None if none was; UsageError if it is no integer, or below `least`."""
    if value is None:
        return None
    try:
        number = index(value)
    except TypeError:
        raise UsageError(f"{name} must be an integer, not {value!r}.") from None
    if number < least:
        raise UsageError(f"{name} must be {least} or more, not {value!r}.")
    return number


def _verbosity(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"verbose must be an integer, such as 0 or 2, not {value!r}.") from None


def _limits(limits: Any) -> dict[str, float]:
    if not isinstance(limits, Mapping):
        raise UsageError(f"resource_limits must map names to amounts, such as {{'db': 2}}, not {limits!r}.")
    for name, amount in limits.items():
        if not isinstance(name, str):
            raise UsageError(f"resource_limits must have names as keys, not {name!r}.")
        if not _is_amount(amount):
            raise UsageError(f"resource_limits[{name!r}] must be a number of more than 0, not {amount!r}.")
    return dict(limits)


def _is_amount(value: Any) -> bool:
    try:
        return bool(value > 0)
    except TypeError:
        return False
