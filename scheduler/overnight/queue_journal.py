"""The journal of a run whose tasks run on the workers of a queue (BEHAVIOUR B4, B15)."""

from __future__ import annotations

from overnight.base_executor import new_run_id
from overnight.cache import FileTaskCache, NoTaskCache, TaskCache
from overnight.graph import TaskDesc, TaskGraph
from overnight.journal import Journal, Settled
from overnight.preparation import all_descs


class QueueJournal(Journal):
    """A journal that knows the whole graph as it was handed over, and leaves the flags of successes to the workers.

    `descs` are all of its tasks as they stood then, completed ones included: together they identify the run.
    `additions` is what the graph's count of additions was.
    """

    def __init__(self, graph: TaskGraph, cache: TaskCache) -> None:
        super().__init__(graph, cache, new_run_id())
        self.graph = graph
        with graph:
            self.additions = graph.additions
            self.descs: list[TaskDesc] = all_descs(graph)
        self._workers_record = isinstance(cache, (FileTaskCache, NoTaskCache))

    def _record(self, settled: Settled) -> None:
        if not (self._workers_record and settled.outcome.ok):
            super()._record(settled)
