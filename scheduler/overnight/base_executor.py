"""What all executors share, and the port behind which they differ (BEHAVIOUR B, X4 to X6, Y).

One run goes through these steps, on every executor in the driver:

    prepare    check the graph, find what is completed                        (`preparation`)
    adopt      remove it from the graph, remember it                          (`journal`)
    drive      room -> launches -> backend -> outcomes -> pairs, until over   (`graph_run`, here)
    tear down  stop the backend, take in what finished, summarise             (here, on every path)

`GraphRun` holds the core (retries, limits, priorities) and the tasks' indices, `Journal` the outcomes, cache and
graph. A subclass gives `_open_backend`, which is called when the first task is to run and returns a `Backend`: it
starts attempts, waits for outcomes and gives up. The queue executor, whose scheduler drives the core elsewhere,
overrides `_open_journal` and `_pairs`, and uses `prepare` and `Journal` alone.

A backend never decides. It reports an attempt that failed as an `Outcome`, one that was lost with its worker as
None, and it raises only if the run cannot go on.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import Any, Protocol

from overnight.cache import NO_TASK_CACHE, TaskCache
from overnight.errors import RunInProgress, Unreachable, UnusableDirectory
from overnight.executor import TaskGraphExecutor
from overnight.forked import AttemptOrder
from overnight.graph import Task, TaskGraph
from overnight.graph_run import Finished, GraphRun, Launch
from overnight.invoke import Outcome
from overnight.journal import Journal
from overnight.logging import ensure_log_dir
from overnight.naming import shown
from overnight.parameters import read_parameters
from overnight.preparation import Preparation, check_is_graph, prepare
from overnight.summary import RunSummary

#: Seconds between two looks for added tasks while nothing runs and a backoff is waited out.
IDLE_SECONDS = 0.05

_logger = logging.getLogger(__name__)


class Backend(Protocol):
    """Where attempts run. One backend serves one run; all calls but `wake` come from the driver's thread."""

    def room(self) -> int:
        """Return how many more attempts may be started now."""

    def start(self, launch: Launch) -> None:
        """Start one attempt. An exception is the failure of this attempt alone."""

    def wait(self, seconds: float | None) -> Sequence[Finished]:
        """Wait until some started attempt has ended, at most so long (None: no limit); return all that have."""

    def wake(self) -> None:
        """End a `wait` that is under way, or the next one: tasks were added. Called from any thread."""

    def abandon(self) -> Sequence[Finished]:
        """Stop what runs, leave nothing behind, and return what finished before. Also called after the last task."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a backend knows of its run. `log_dir` None means that tasks run without log files."""

    run_id: str
    log_dir: str | None
    verbosity: int
    fork_tasks: bool
    max_workers: int | None

    def order(self, launch: Launch) -> AttemptOrder:
        """Return the attempt as `forked.run_in_child` takes it."""
        return AttemptOrder(
            launch.task.task_id,
            launch.desc.func,
            launch.args,
            launch.kwargs,
            launch.desc.options.timeout,
            self.log_dir,
            self.verbosity,
            self.run_id,
            launch.attempt,
        )


class TaskGraphExecutorBase(TaskGraphExecutor):
    """Executes a graph in an order that satisfies its dependencies.

    Keywords: `verbose`, `task_log_dir`, `task_status_dir`, `fork_tasks`, `max_workers`, `resource_limits`,
    `keep_going`; others are ignored. Construction touches nothing outside of this process (B2).
    """

    def __init__(self, task_cache: TaskCache = NO_TASK_CACHE, *, force: bool = False, **kwargs: Any) -> None:
        if isinstance(task_cache, str | PathLike):
            raise TypeError(
                f"task_cache must be a cache, such as FileTaskCache({str(task_cache)!r}), not {task_cache!r}."
            )
        self.task_cache = task_cache
        self.force = force
        self.parameters = read_parameters(kwargs)
        #: What became of the last run (B9); None before the first.
        self.summary: RunSummary | None = None
        self._running = threading.Lock()

    def execute(self, graph: TaskGraph, *, include_cached: bool = False) -> Generator[tuple[Task, Any], None, None]:
        """Yield each task that ran with its result, or its exception, after it was recorded (X4, B4).

        `include_cached` yields the completed tasks first, in graph order. Raises, before anything runs: CyclicGraph,
        MissingDependency, InvalidTask (more of a resource than there is), RunInProgress; BlockedTasks if the run
        cannot go on because tasks wait for one that was never added.
        """
        check_is_graph(graph)
        if not self._running.acquire(blocking=False):
            raise RunInProgress("A run of this executor is active. Exhaust or close it before the next one.")
        try:
            journal = self._open_journal(graph)
            preparation = prepare(graph, self.task_cache, force=self.force, load_all=include_cached)
            with self._summarised(graph, journal):
                journal.adopt(preparation)
                if include_cached:
                    yield from [(task, preparation.results[task]) for task in preparation.completed]
                yield from self._pairs(graph, journal, preparation)
        finally:
            self._running.release()

    def get_completed_tasks(self, graph: TaskGraph) -> Generator[tuple[Task, Any], None, None]:
        """Yield the completed tasks with their results, in graph order; the graph stays as it is (B11)."""
        check_is_graph(graph)
        preparation = prepare(graph, self.task_cache, force=self.force, load_all=True)
        for task in preparation.completed:
            yield task, preparation.results[task]

    def _open_journal(self, graph: TaskGraph) -> Journal:
        """Return the journal of a run that is about to begin; the graph is still whole."""
        return Journal(graph, self.task_cache, new_run_id())

    @contextmanager
    def _summarised(self, graph: TaskGraph, journal: Journal) -> Iterator[None]:
        """Keep finished ids from being added again, and sum the run up however it ends."""
        graph.refuse_ids_of(journal)
        try:
            yield
        finally:
            graph.refuse_ids_of(())
            self.summary = journal.leave()
            self.summary.log()

    def _pairs(
        self, graph: TaskGraph, journal: Journal, preparation: Preparation
    ) -> Generator[tuple[Task, Any], None, None]:
        """Run what is left of the graph; yield each pair after the journal has it."""
        run = GraphRun(graph, journal, self.parameters.resource_limits)
        run.take_additions()
        if run.is_over:
            _say_that_nothing_runs(preparation)
            return
        yield from self._driven(graph, run, self._open_backend(self._run_facts(journal.run_id)))

    def _driven(self, graph: TaskGraph, run: GraphRun, backend: Backend) -> Generator[tuple[Task, Any], None, None]:
        graph.tell_additions_to(backend.wake)
        try:
            while not run.is_over:
                finished: Sequence[Finished] = start_launches(run, backend)
                if not finished and run.in_flight:
                    finished = backend.wait(run.seconds_to_wait())
                yield from run.record(finished)
                if not finished:
                    _idle(run)
                run.take_additions()
        finally:
            graph.tell_additions_to(None)
            run.record(backend.abandon())

    def _open_backend(self, facts: RunFacts) -> Backend:
        """Return the backend of a run whose first task is about to start."""
        raise NotImplementedError(f"{type(self).__name__} does not implement _open_backend().")

    def _run_facts(self, run_id: str) -> RunFacts:
        known = self.parameters
        return RunFacts(run_id, self._log_dir(), known.verbose, known.fork_tasks, known.max_workers)

    def _log_dir(self) -> str | None:
        """Make and return the log directory; without a given one, no directory is a warning and no logs (B2)."""
        given = self.parameters.task_log_dir
        try:
            return ensure_log_dir(task_log_dir=given)
        except OSError as error:
            if isinstance(error, Unreachable):
                raise
            if given is not None:
                raise UnusableDirectory(
                    f"The task log directory {shown(given)} cannot be used: {error.strerror or error}. Give one that "
                    "can be written."
                ) from error
            _logger.warning("The default task log directory cannot be used, tasks run without log files: %s", error)
            return None

    def close(self) -> None:
        """Release nothing: what a run needs ends with it. May be called again."""


def new_run_id() -> str:
    """Return a fresh run id: 128 random bits in hex."""
    return secrets.token_hex(16)


def start_launches(run: GraphRun, backend: Backend) -> list[Finished]:
    """Fill the backend's room; return those attempts that ended without having been started."""
    finished: list[Finished] = []
    for launch in run.launches(backend.room()):
        if not isinstance(launch, Launch):
            finished.append(launch)
            continue
        try:
            backend.start(launch)
        except Exception as error:  # whatever a backend cannot start is that task's failure (R4)
            finished.append((launch, Outcome(ok=False, value=error, started=time.time(), seconds=0.0)))
    return finished


def _idle(run: GraphRun) -> None:
    """Let time pass while nothing runs and a backoff is waited out; raise BlockedTasks if nothing ever will."""
    if run.in_flight:
        return
    run.take_additions()
    run.refuse_if_blocked()
    seconds = run.seconds_to_wait()
    if seconds is not None:
        time.sleep(min(seconds, IDLE_SECONDS))


def _say_that_nothing_runs(preparation: Preparation) -> None:
    if preparation.completed:
        _logger.info("All %d tasks are computed; nothing runs.", len(preparation.completed))
