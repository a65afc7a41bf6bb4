"""Which added tasks may join a run, on every executor (BEHAVIOUR Y2, Y3).

A task joins once each of its dependencies is in the run, has a result, or joins with it. Until then it waits outside,
and may be what blocks the run in the end. A task that depends on a failed or skipped one never joins: it is skipped at
once.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from overnight.errors import BlockedTasks
from overnight.graph import Task, TaskGraph, TaskNode
from overnight.journal import Journal
from overnight.naming import shown

_MOST_NAMED = 20


class Joining:
    """Follows the additions to the graph of one run, from `additions` on (0: all tasks are additions)."""

    def __init__(self, graph: TaskGraph, journal: Journal, additions: int = 0) -> None:
        self._graph = graph
        self._journal = journal
        self._additions = additions
        self._outside: list[Task] = []

    @property
    def outside(self) -> list[Task]:
        """The tasks that wait for one that was never added, and were not skipped meanwhile."""
        return [task for task in self._outside if task not in self._journal.blame]

    def take(self, in_run: Container[Task]) -> list[Task]:
        """Return the tasks that join now, given those that have joined, in the order of their addition.

        Raises CyclicGraph.
        """
        if self._additions == self._graph.additions:
            return []
        with self._graph as nodes:
            self._graph.check()
            added = self._graph.added_after(self._additions)
            self._additions = self._graph.additions
            waiting = self._without_doomed([*self._outside, *added])
            joining = self._joinable(waiting, nodes, in_run)
            self._outside = [task for task in waiting if task not in joining]
            return [task for task in waiting if task in joining]

    def blocked(self) -> BlockedTasks:
        """Return the error that names the tasks that are left and what each waits for (Y3)."""
        with self._graph as nodes:
            left = self.outside or list(nodes)
            sentences = [_blocked(nodes[task]) for task in left[:_MOST_NAMED] if task in nodes]
        more = len(left) - _MOST_NAMED
        rest = f"; and {more} more" if more > 0 else ""
        return BlockedTasks(f"The run is blocked: {'; '.join(sentences)}{rest}. Add what is missing.")

    def _without_doomed(self, tasks: Sequence[Task]) -> list[Task]:
        """Skip the tasks that depend on a failed or skipped one; return the others."""
        blame = self._journal.blame
        if blame:
            for task in tasks:
                if task not in blame:
                    deps = self._graph.get_task_deps(task)
                    cause = next((blame[dep] for dep in deps if dep in blame), None)
                    if cause is not None:
                        self._journal.skip(task, cause)
        return [task for task in tasks if task not in blame]

    def _joinable(self, tasks: Sequence[Task], nodes: Mapping[Task, TaskNode], in_run: Container[Task]) -> set[Task]:
        """Return the largest subset whose dependencies are all in the run, have a result, or are in the subset."""
        joining = set(tasks)
        waiting_for: dict[Task, list[Task]] = {}
        leaving: list[Task] = []
        for task in tasks:
            for dep in nodes[task].remaining:
                if dep in in_run or dep in self._journal:
                    continue
                if dep in joining:
                    waiting_for.setdefault(dep, []).append(task)
                else:
                    leaving.append(task)
        while leaving:
            task = leaving.pop()
            if task in joining:
                joining.remove(task)
                leaving.extend(waiting_for.get(task, ()))
        return joining


def _blocked(node: TaskNode) -> str:
    waits = ", ".join(repr(shown(dep.task_id)) for dep in list(node.remaining)[:_MOST_NAMED])
    return f"{node.task.task_id!r} waits for {waits}"
