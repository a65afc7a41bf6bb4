"""The executors under test: one entry each, so that a new executor joins the conformance suite by one line here."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from overnight.base_executor import TaskGraphExecutorBase
from overnight.local_fleet import ensure_fleet
from overnight.queue_executor import QueueExecutor
from overnight.sequential_executor import SequentialExecutor

Executor = AbstractContextManager[TaskGraphExecutorBase]


@dataclass(frozen=True)
class ExecutorKind:
    """How to make one kind of executor, and what the suite must know of it.

    `crosses_process`: results are pickled even without fork_tasks. `one_at_a_time`: tasks start strictly in order.
    `make(directory, **keywords)` returns a context whose value is the executor; its files go below `directory`.
    """

    name: str
    make: Callable[..., Executor]
    crosses_process: bool = False
    one_at_a_time: bool = False


def make_sequential(directory: Path, **keywords: Any) -> Executor:
    """Return a SequentialExecutor that logs below the directory."""
    return SequentialExecutor(**{"task_log_dir": str(directory / "logs"), **keywords})


def make_forking(directory: Path, **keywords: Any) -> Executor:
    """Return a SequentialExecutor that runs each attempt in a child."""
    return make_sequential(directory, **{"fork_tasks": True, **keywords})


def make_queue(directory: Path, **keywords: Any) -> Executor:
    """Return a QueueExecutor on two workers that all of these share."""
    return QueueExecutor(
        **{"task_log_dir": str(directory / "logs"), "state_dir": shared_state_dir(), "workers": 2, **keywords}
    )


@cache
def shared_state_dir() -> Path:
    """Return a state directory whose processes run until this process ends."""
    directory = tempfile.TemporaryDirectory(prefix="ov-shared-", ignore_cleanup_errors=True)
    atexit.register(directory.cleanup)
    lease = ensure_fleet(directory.name, workers=2)
    atexit.register(lease.close, stop=True)
    return Path(directory.name)


EXECUTORS = [
    ExecutorKind("sequential", make_sequential, one_at_a_time=True),
    ExecutorKind("sequential-forked", make_forking, crosses_process=True, one_at_a_time=True),
    ExecutorKind("queue", make_queue, crosses_process=True),
]
