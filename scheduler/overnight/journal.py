"""What has finished in a run, and the one place where it becomes known (BEHAVIOUR B4, B7, B8, B15).

An outcome is remembered, recorded in the cache, and told to the graph, in this order; only then may it be yielded.
The journal holds every result of the run until the run ends, so that tasks which are added later find it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol, runtime_checkable

from overnight.cache import NoTaskCache, TaskCache
from overnight.errors import OvernightError
from overnight.flags import AttemptFacts, FlagHeader, record_of
from overnight.graph import Task, TaskDesc, TaskGraph
from overnight.inspection import FlagReader
from overnight.invoke import Outcome, StandIn
from overnight.lineage import DependencyRecord
from overnight.naming import shown
from overnight.preparation import Preparation
from overnight.summary import RunSummary

_logger = logging.getLogger(__name__)


@runtime_checkable
class OutcomeStore(Protocol):
    """A cache that takes the facts of an attempt with its outcome."""

    def store(self, desc: TaskDesc, *, is_error: bool, result: Any, facts: AttemptFacts) -> FlagHeader | None:
        """Record an outcome; return its header, or None if it could not be written."""


@runtime_checkable
class LaterDurable(Protocol):
    """A cache that does not wait with each outcome until it survives a power cut."""

    def sync(self) -> None:
        """Wait until all outcomes so far survive one."""


class Settled(NamedTuple):
    """The last attempt of a task: its desc as declared, with all `deps`, the number of the attempt, how it ended.

    `load` gets the result once more from where it lies: the journal then keeps no copy of it (B15).
    """

    desc: TaskDesc
    attempt: int
    outcome: Outcome
    load: Callable[[], Any] | None = None


class Journal:
    """The finished tasks of one run. A Task is `in` it once it has finished, failed or been skipped."""

    def __init__(self, graph: TaskGraph, cache: TaskCache, run_id: str) -> None:
        self.run_id = run_id
        #: Failed and skipped tasks, each with the failed task that is to blame.
        self.blame: dict[Task, Task] = {}
        self._graph = graph
        self._cache = cache
        # Asked once: looking a protocol's methods up costs more than recording a small outcome.
        self._store = cache if isinstance(cache, OutcomeStore) else None
        self._results: dict[Task, Any] = {}
        self._unloaded: dict[Task, TaskDesc] = {}
        self._elsewhere: dict[Task, Callable[[], Any]] = {}
        #: The tasks of the three above.
        self._done: set[Task] = set()
        self._records: dict[Task, DependencyRecord] = {}
        self._succeeded: list[Task] = []
        self._failed: list[Task] = []
        self._cached: list[Task] = []

    def __contains__(self, task: object) -> bool:
        return task in self._done or task in self.blame

    def is_done(self, task: Task) -> bool:
        """Tell whether a task has a result, of this run or stored."""
        return task in self._done

    def adopt(self, preparation: Preparation) -> None:
        """Take over what is completed, and remove it from the graph."""
        for task in preparation.completed:
            if task in preparation.results:
                self._results[task] = preparation.results[task]
            else:
                self._unloaded[task] = _identity_only(self._graph.get_declared(task)[0])
            header = preparation.decisions.header(task) if preparation.decisions else None
            if header is not None:
                self._records[task] = record_of(header)
        self._done.update(preparation.completed)
        self._cached.extend(preparation.completed)
        self._graph.mark_completed(preparation.completed)

    def settle(self, batch: Sequence[Settled]) -> list[tuple[Task, Any]]:
        """Take in tasks that ended together; return their pairs, ready to be yielded."""
        for settled in batch:
            self._remember(settled)
        if not isinstance(self._cache, NoTaskCache):
            for settled in batch:
                self._record(settled)
        for settled in batch:
            self._tell_graph(settled.desc.task)
        return [(settled.desc.task, settled.outcome.value) for settled in batch]

    def skip(self, task: Task, cause: Task) -> None:
        """Note that a task and all that depends on it will not run, because `cause` failed."""
        self.blame[task] = cause
        for dependant in self._graph.mark_failed(task):
            self.blame.setdefault(dependant, cause)

    def take_back(self, task: Task) -> None:
        """Count a task as failed whose success was yielded: the result was lost, and cannot be computed again (P11)."""
        if task in self.blame:
            return
        for ended in (self._succeeded, self._cached):
            if task in ended:
                ended.remove(task)
        self._failed.append(task)
        self.blame[task] = task

    def results_for(self, held: Mapping[Task, Any]) -> Mapping[Task, Any]:
        """Return all results as one mapping; `held` are those that the graph kept from before the run."""
        return _Results(self.result, self.is_done, held)

    def arguments_for(self, held: Mapping[Task, Any]) -> Mapping[Task, Any]:
        """Return what stands for each result among the arguments of a launch: the result, or its `StandIn`."""
        return _Results(self._argument, self.is_done, held)

    def result(self, task: Task) -> Any:
        """Return the result of a finished task; KeyError if there is none, BadSeal if it cannot be loaded."""
        if task in self._elsewhere:
            return self._elsewhere[task]()
        if task not in self._results and task in self._unloaded:
            self._results[task] = self._loaded(self._unloaded[task])
        return self._results[task]

    def _argument(self, task: Task) -> Any:
        load = self._elsewhere.get(task)
        return load if isinstance(load, StandIn) else self.result(task)

    def leave(self) -> RunSummary:
        """End the run: make its records durable, fill the results into what is left of the graph, sum it up."""
        self._make_durable()
        self._fill_in()
        return RunSummary(
            run_id=self.run_id,
            succeeded=_ids(self._succeeded),
            failed=_ids(self._failed),
            cached=_ids(self._cached),
            not_run=_ids(self._graph.tasks),
            skipped={task.task_id: cause.task_id for task, cause in self.blame.items() if task != cause},
        )

    def _fill_in(self) -> None:
        try:
            self._graph.fill_in(self.results_for({}))
        except (OvernightError, OSError) as error:  # lost with the cluster or file that held it, which ended the run
            _logger.warning("A result could not be put into the tasks that are left: %s", error)

    def _make_durable(self) -> None:
        try:
            if isinstance(self._cache, LaterDurable):
                self._cache.sync()
        except Exception:  # as in `_record`
            _logger.warning("The records of the run may not survive a power cut.", exc_info=True)

    def _remember(self, settled: Settled) -> None:
        task = settled.desc.task
        if not settled.outcome.ok:
            self.blame[task] = task
            self._failed.append(task)
            return
        self._succeeded.append(task)
        self._done.add(task)
        if settled.load is not None:
            self._elsewhere[task] = settled.load
        else:
            self._results[task] = settled.outcome.value

    def _tell_graph(self, task: Task) -> None:
        if self.is_done(task):
            self._graph.mark_completed((task,))
        else:
            self.skip(task, task)

    def _record(self, settled: Settled) -> None:
        is_error, result = not settled.outcome.ok, settled.outcome.value
        try:
            if self._store is not None:
                header = self._store.store(settled.desc, is_error=is_error, result=result, facts=self._facts(settled))
                if header is not None and not is_error:
                    self._records[settled.desc.task] = record_of(header)
            else:
                self._cache.cache(settled.desc.task, is_error=is_error, result=result)
        except Exception:  # a cache of another's making may raise anything; its loss costs one more run of the task
            task_id = shown(settled.desc.task.task_id)
            _logger.warning("The outcome of task %s could not be recorded.", task_id, exc_info=True)

    def _facts(self, settled: Settled) -> AttemptFacts:
        outcome = settled.outcome
        records = tuple([self._records[dep] for dep in settled.desc.deps if dep in self._records])
        return AttemptFacts(
            run_id=self.run_id,
            attempt=settled.attempt,
            started=_utc(outcome.started),
            finished=_utc(outcome.started + outcome.seconds),
            duration_seconds=outcome.seconds,
            dependency_records=records if len(records) == len(settled.desc.deps) else None,
        )

    def _loaded(self, desc: TaskDesc) -> Any:
        if isinstance(self._cache, FlagReader):
            return self._cache.load(desc)
        return self._cache.get_record(desc).result


class _Results(Mapping[Task, Any]):
    """The results of a run and those that a graph held before, by Task."""

    def __init__(
        self, result: Callable[[Task], Any], is_done: Callable[[Task], bool], held: Mapping[Task, Any]
    ) -> None:
        self._result = result
        self._is_done = is_done
        self._held = held

    def __getitem__(self, task: Task) -> Any:
        return self._held[task] if task in self._held else self._result(task)

    def __contains__(self, task: object) -> bool:
        return task in self._held or (isinstance(task, Task) and self._is_done(task))

    def __iter__(self) -> Iterator[Task]:
        raise TypeError("Results are asked for, never listed: some are still in the cache.")

    def __len__(self) -> int:
        raise TypeError("Results are asked for, never counted: some are still in the cache.")


def _identity_only(desc: TaskDesc) -> TaskDesc:
    """Return a desc that identifies a task's record and holds none of its arguments."""
    return TaskDesc(desc.task, desc.func, [], {}, desc.deps, [], [], [])


def _ids(tasks: Sequence[Task]) -> tuple[str, ...]:
    return tuple([task.task_id for task in tasks])


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
