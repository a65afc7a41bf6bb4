"""Run a graph through scheduler, Redis and workers.

This process submits the graph and follows its run; the scheduler decides, the workers run tasks and record outcomes.
If this process dies the run goes on, and the same command attaches to it. If Redis loses the run, what flags prove is
kept and the rest is submitted again.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from overnight.audit import Audit
from overnight.base_executor import TaskGraphExecutorBase
from overnight.cache import NO_TASK_CACHE, FileTaskCache, NoTaskCache, TaskCache
from overnight.client import status_dir_of
from overnight.config import read_settings
from overnight.core.states import RunPhase, TaskState
from overnight.deployment import Deployment
from overnight.errors import BadSeal, RemoteTaskError, RunCancelled, UnknownRun, UsageError
from overnight.following import Follower
from overnight.graph import Task, TaskDesc, TaskGraph
from overnight.invoke import Outcome
from overnight.journal import Journal, Settled
from overnight.launch import Launched, RunOptions, launch
from overnight.messages import StoredError, StoredResult
from overnight.pickling import load_exception, loads
from overnight.preparation import Preparation
from overnight.results import Results
from overnight.store.records import Request
from overnight.worker_watch import WorkerWatch

_logger = logging.getLogger(__name__)

GRACE_SECONDS = 10.0
TEARDOWN_SECONDS = 30.0
PATIENCE_SECONDS = 0.5


class QueueExecutor(TaskGraphExecutorBase):
    """Executes graphs on workers that take tasks from queues in Redis.

    `redis_url` None means a private server in `state_dir`; `workers` is how many local workers run (None: one per
    usable CPU on the private server, 0 with a URL, where workers run elsewhere). Further keywords are those of
    `TaskGraphExecutorBase`.
    """

    def __init__(
        self,
        redis_url: str | None = None,
        task_cache: TaskCache = NO_TASK_CACHE,
        *,
        state_dir: str | Path | None = None,
        queue: str = "default",
        workers: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(task_cache, **kwargs)
        if workers is not None and workers < 0:
            raise UsageError(f"workers must be 0 or more, not {workers}.")
        self._settings = read_settings().with_values(redis_url=redis_url, state_dir=state_dir)
        if redis_url is None:
            self._settings = self._settings.embedded()
        self._queue = queue
        self._workers = workers
        self._deployment: Deployment | None = None

    def close(self) -> None:
        """Let go of the server; local workers and a private server that nobody else uses end. May be repeated."""
        if self._deployment is not None:
            self._deployment.close()
            self._deployment = None

    def _open_journal(self, graph: TaskGraph) -> Journal:
        return _QueueJournal(graph, self.task_cache)

    def _pairs(
        self, graph: TaskGraph, journal: Journal, preparation: Preparation
    ) -> Generator[tuple[Task, Any], None, None]:
        if graph.empty():
            _logger.info("Everything is computed: nothing runs.")
            return
        if not isinstance(journal, _QueueJournal):
            raise TypeError(f"A {type(journal).__name__} does not know the whole graph.")
        if self._deployment is None:
            self._deployment = Deployment(self._settings, workers=self._workers, queue=self._queue)
        run = _QueueRun(self._deployment, self.task_cache, journal, self._options())
        run.launch(journal.descs, preparation)
        try:
            yield from run.pairs()
        except KeyboardInterrupt:
            run.drain(GRACE_SECONDS)
            raise
        finally:
            run.leave()

    def _options(self) -> RunOptions:
        known = self.parameters
        return RunOptions(
            name=Path(sys.argv[0] or "python").name,
            command=" ".join(sys.argv),
            queue=self._queue,
            status_dir=status_dir_of(self.task_cache),
            log_dir=self._log_dir(),
            verbosity=known.verbose,
            fork_tasks=known.fork_tasks,
            resource_limits=known.resource_limits,
        )


class _QueueJournal(Journal):
    """A journal that knows the whole graph as it was handed over, and leaves flags to the workers."""

    def __init__(self, graph: TaskGraph, cache: TaskCache) -> None:
        super().__init__(graph, cache, "")
        self.graph = graph
        self.descs: list[TaskDesc] = [graph.get_task_desc(task) for task in graph.tasks]
        self._workers_record = isinstance(cache, (FileTaskCache, NoTaskCache))

    def _record(self, settled: Settled) -> None:
        if not self._workers_record:
            super()._record(settled)


class _QueueRun:
    """One run as its client sees it."""

    def __init__(self, deployment: Deployment, cache: TaskCache, journal: _QueueJournal, options: RunOptions) -> None:
        self._deployment = deployment
        self._store = deployment.store
        self._cache = cache
        self._journal = journal
        self._options = options
        self._launched: Launched | None = None
        self._over: RunPhase | None = None
        self._delivered: set[int] = set()
        self._watch = WorkerWatch(deployment.store, options.queue)

    def launch(self, descs: Sequence[TaskDesc], preparation: Preparation) -> None:
        """Put the run in place, or attach to it."""
        deployment = self._deployment
        self._launched = launched = launch(
            self._store,
            descs,
            preparation.decisions,
            self._cache,
            self._options,
            deployment.settings,
            deployment.keyring,
        )
        self._journal.run_id = launched.run.run_id
        self._descs = {desc.task: desc for desc in descs}
        self._rank = {task: rank for rank, task in enumerate(self._journal.graph.topological_order())}
        self._results = Results(self._store, launched.run.run_id, deployment.keyring)
        if launched.attached:
            _logger.info("attached to run %s, which this command started before", launched.run.run_id)

    @property
    def _run_id(self) -> str:
        return self._journal.run_id

    @property
    def _tasks(self) -> list[Task]:
        return self._launched.submission.tasks if self._launched else []

    def pairs(self) -> Iterator[tuple[Task, Any]]:
        """Yield each task that ended with its result, until the run is over and its results are proven."""
        follower = Follower(self._store, self._run_id)
        status_dir = self._options.status_dir
        audit = Audit(self._store, self._run_id, self._deployment.keyring, status_dir)
        while True:
            for changed in follower.changes(PATIENCE_SECONDS):
                self._deployment.check()
                self._watch.look()
                yield from self._deliver(changed.tasks)
                if changed.over is not None:
                    self._over = changed.over
            if self._over is RunPhase.CANCELLED:
                raise RunCancelled(self._run_id)
            findings = audit.run()
            if not findings.invalidated:
                return
            self._delivered.difference_update(findings.invalidated)

    def _deliver(self, changes: Sequence[tuple[int, TaskState]]) -> Iterator[tuple[Task, Any]]:
        # One look may tell that a task started and that it ended: what it came to last counts, once.
        latest = {number: state for number, state in changes if number not in self._delivered}
        ended = sorted(latest.items(), key=lambda change: self._rank.get(self._tasks[change[0]], 0))
        done = [number for number, state in ended if state is TaskState.DONE]
        failed = [number for number, state in ended if state is TaskState.FAILED]
        outcomes = {**self._successes(done), **self._failures(failed)}
        settled = [
            Settled(self._descs[self._tasks[number]], 0, outcomes[number]) for number, _ in ended if number in outcomes
        ]
        self._delivered.update(outcomes)
        yield from self._journal.settle(settled)

    def _successes(self, numbers: Sequence[int]) -> dict[int, Outcome]:
        if not numbers:
            return {}
        outcomes: dict[int, Outcome] = {}
        for number, stored in self._results.stored(numbers).items():
            task_id = self._tasks[number].task_id
            if not isinstance(stored, StoredResult):
                raise stored
            outcomes[number] = Outcome(ok=True, value=self._loaded(stored, task_id), started=0.0, seconds=0.0)
        return outcomes

    def _loaded(self, stored: StoredResult, task_id: str) -> Any:
        return loads(self._results.body(stored, task_id))

    def _failures(self, numbers: Sequence[int]) -> dict[int, Outcome]:
        if not numbers:
            return {}
        outcomes: dict[int, Outcome] = {}
        for view in self._store.tasks(self._run_id, numbers):
            error = self._exception(view.task, view.error)
            outcomes[view.task] = Outcome(ok=False, value=error, started=0.0, seconds=0.0)
        return outcomes

    def _exception(self, number: int, record: bytes | None) -> BaseException:
        if record is None:
            return RemoteTaskError("unknown error", "its record is missing")
        try:
            stored = StoredError.opened(record, self._run_id, number, self._deployment.keyring)
        except BadSeal as error:
            return RemoteTaskError("unknown error", f"its record cannot be believed: {error}")
        return load_exception(stored.body, RemoteTaskError(stored.type_name, stored.message, stored.traceback))

    def drain(self, seconds: float) -> None:
        """Let nothing new start, and wait for running tasks, at most so long; a second interrupt ends the waiting."""
        if self._over is not None:
            return
        self._store.request(self._run_id, Request.PAUSE)
        deadline = time.monotonic() + seconds
        follower = Follower(self._store, self._run_id)
        for _ in follower.changes(0.1):
            counts = follower.counts()
            if time.monotonic() >= deadline or not counts.get(TaskState.RUNNING):
                return

    def leave(self) -> None:
        """Cancel the run unless it is over, and wait until nothing of it runs."""
        if self._over is not None:
            return
        try:
            self._store.request(self._run_id, Request.CANCEL)
            deadline = time.monotonic() + TEARDOWN_SECONDS
            for changed in Follower(self._store, self._run_id).changes(0.1):
                self._take_in_unyielded(changed.tasks)
                if changed.over is not None or time.monotonic() >= deadline:
                    return
        except UnknownRun:
            _logger.info("run %s is gone from Redis", self._run_id)

    def _take_in_unyielded(self, changes: Sequence[tuple[int, TaskState]]) -> None:
        """Outcomes that finished before the teardown are recorded though nobody sees them (B7)."""
        for _ in self._deliver(changes):
            pass
