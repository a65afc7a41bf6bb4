"""Runs a graph in this process by the graph's own methods alone, without any executor."""

from __future__ import annotations

from typing import Any

from overnight.graph import TaskGraph


def drain(graph: TaskGraph) -> dict[str, Any]:
    """Run all tasks, in the order in which they become ready; return the results by task id.

    An exception of a task ends the drain.
    """
    results: dict[str, Any] = {}
    while not graph.empty():
        for desc in graph.extract_tasks(graph.ready_tasks()):
            result = desc.func(*desc.args, **desc.kwargs)
            results[desc.task.task_id] = result
            graph.process_completed_tasks([(desc.task, result)])
    return results
