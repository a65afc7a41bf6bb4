"""Runs a graph of Python tasks to its end, whatever dies on the way.

Every public name is imported by its first use, so that importing the package costs next to nothing and needs none of
dask, distributed, redis, rq or networkx (BEHAVIOUR P1 to P3).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from overnight import cli_tools
    from overnight.cli_tools import TaskGraphCli
    from overnight.client import Client
    from overnight.errors import OvernightError
    from overnight.graph import Task, TaskDesc, TaskGraph, chain_tasks, sync_tasks
    from overnight.queue_executor import QueueExecutor
    from overnight.sequential_executor import SequentialExecutor

__all__ = [
    "Client",
    "OvernightError",
    "QueueExecutor",
    "SequentialExecutor",
    "Task",
    "TaskDesc",
    "TaskGraph",
    "TaskGraphCli",
    "chain_tasks",
    "cli_tools",
    "sync_tasks",
]

_MODULE_OF = {
    "Client": "client",
    "OvernightError": "errors",
    "QueueExecutor": "queue_executor",
    "SequentialExecutor": "sequential_executor",
    "Task": "graph",
    "TaskDesc": "graph",
    "TaskGraph": "graph",
    "TaskGraphCli": "cli_tools",
    "chain_tasks": "graph",
    "sync_tasks": "graph",
}


def __getattr__(name: str) -> Any:
    if name == "cli_tools":
        return importlib.import_module("overnight.cli_tools")
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'overnight' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"overnight.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
