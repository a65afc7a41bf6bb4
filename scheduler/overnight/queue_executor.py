"""Run a graph through scheduler, Redis and workers.

This process submits the graph and follows its run; the scheduler decides, the workers run tasks and record outcomes.
If this process dies the run goes on, and the same command attaches to it. If Redis loses the run, what flags prove is
kept and the rest is submitted again.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from overnight.base_executor import TaskGraphExecutorBase
from overnight.cache import NO_TASK_CACHE, TaskCache
from overnight.client import status_dir_of
from overnight.config import read_settings
from overnight.deployment import Deployment
from overnight.graph import Task, TaskGraph
from overnight.journal import Journal
from overnight.launch import check_resources
from overnight.parameters import whole_number
from overnight.preparation import Preparation
from overnight.queue_journal import QueueJournal
from overnight.queue_run import QueueRun
from overnight.queue_stopping import say_what_continues
from overnight.run_key import RunOptions
from overnight.store.connection import hidden

_logger = logging.getLogger(__name__)


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
        self._settings = read_settings().with_values(redis_url=redis_url, state_dir=state_dir)
        if redis_url is None:
            self._settings = self._settings.embedded()
        self._queue = queue
        self._workers = whole_number("workers", workers, least=0)
        self._deployment: Deployment | None = None

    def close(self) -> None:
        """Let go of the server; local workers and a private server that nobody else uses end. May be repeated."""
        if self._deployment is not None:
            self._deployment.close()
            self._deployment = None

    def _open_journal(self, graph: TaskGraph) -> Journal:
        return QueueJournal(graph, self.task_cache)

    @contextmanager
    def _summarised(self, graph: TaskGraph, journal: Journal) -> Iterator[None]:
        """Sum the run up; after an interrupt the last line says what continues it."""
        try:
            with super()._summarised(graph, journal):
                yield
        except KeyboardInterrupt:
            say_what_continues(is_recorded=status_dir_of(self.task_cache) is not None)
            raise

    def _pairs(
        self, graph: TaskGraph, journal: Journal, preparation: Preparation
    ) -> Generator[tuple[Task, Any], None, None]:
        if graph.empty():
            _logger.info("Everything is computed: nothing runs.")
            return
        if not isinstance(journal, QueueJournal):
            raise TypeError(f"A {type(journal).__name__} does not know the whole graph.")
        check_resources(journal.descs, RunOptions(resource_limits=self.parameters.resource_limits))
        options = self._options()
        if self._deployment is None:
            self._deployment = Deployment(self._settings, workers=self._workers, queue=self._queue)
        run = QueueRun(self._deployment, self.task_cache, journal, options, force=self.force)
        run.launch(preparation)
        try:
            yield from run.pairs()
        except KeyboardInterrupt:
            run.drain()
            raise
        finally:
            run.leave()

    def _options(self) -> RunOptions:
        known = self.parameters
        return RunOptions(
            name=Path(sys.argv[0] or "python").name,
            command=" ".join(hidden(word) for word in sys.argv),
            queue=self._queue,
            status_dir=status_dir_of(self.task_cache),
            log_dir=self._log_dir(),
            verbosity=known.verbose,
            fork_tasks=known.fork_tasks,
            resource_limits=known.resource_limits,
            force=self.force,
        )
