"""What is kept of a run that Redis has forgotten: the results that are adopted by the run that takes its place.

Flags decide where there are any. Otherwise the driver's own journal does: a result counts if it can still be had and
the results that it was computed from count too, so that attempts never mix.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from overnight.adoption import adopted_results, stored_inline
from overnight.cache import FileTaskCache, TaskCache
from overnight.errors import OvernightError, TaskNotPicklable
from overnight.graph import Task, TaskDesc, TaskGraph
from overnight.inspection import decide
from overnight.journal import Journal
from overnight.messages import StoredResult


def recovered_results(
    descs: Sequence[TaskDesc], journal: Journal, cache: TaskCache, only_of: Collection[str] | None
) -> dict[Task, StoredResult]:
    """Return where the results of finished tasks lie. `only_of`: flags count if one of these runs wrote them (-f)."""
    graph = TaskGraph()
    graph.add_tasks(descs)
    if not isinstance(cache, FileTaskCache):
        return _of_journal(graph, journal)
    decisions = decide(graph, cache)
    for task in decisions.completed if only_of is not None else ():
        header = decisions.header(task)
        if not decisions.runs(task) and (header is None or header.run_id not in (only_of or ())):
            decisions.also_run(task, "everything was to run again")
    return adopted_results(decisions, cache)


def _of_journal(graph: TaskGraph, journal: Journal) -> dict[Task, StoredResult]:
    adopted: dict[Task, StoredResult] = {}
    for task in graph.topological_order():
        deps = graph.get_task_deps(task)
        if journal.is_done(task) and all(dep in adopted or not graph.has_task(dep) for dep in deps):
            try:
                adopted[task] = stored_inline(journal.result(task))
            except (OvernightError, OSError, TaskNotPicklable):
                continue  # it was kept where it is lost now
    return adopted
