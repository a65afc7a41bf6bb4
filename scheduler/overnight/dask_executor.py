"""Executes graphs on a Dask cluster (BEHAVIOUR DK1 to DK5).

The executor is what all share (`base_executor`) over a run in batches (`dask_run`) and the cluster (`dask_backend`).
Dask itself is imported with the first run: whoever has a client has it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from overnight.base_executor import RunFacts, TaskGraphExecutorBase
from overnight.cache import NO_TASK_CACHE, TaskCache
from overnight.dask_run import BatchedRun
from overnight.errors import OvernightError, RunCancelled, Unreachable, UsageError
from overnight.graph import Task, TaskGraph
from overnight.journal import Journal
from overnight.preparation import Preparation

if TYPE_CHECKING:
    from distributed import Client

    from overnight.dask_backend import DaskBackend

#: What a closing cluster talks through. Loggers below these that are made while it closes are as quiet.
_TALKATIVE = ("distributed", "dask", "dask_jobqueue", "dask_kubernetes", "tornado", "asyncio", "bokeh", "aiohttp")
_SILENT = logging.CRITICAL + 1


class DaskExecutor(TaskGraphExecutorBase):
    """Executes tasks on the cluster of a `distributed.Client`; keywords as for TaskGraphExecutorBase.

    overnight must be installed on the workers, in the driver's version. `close` shuts the client's cluster down, so
    whoever shares a cluster does not close the executor.

    Tasks run in the processes of the Dask workers and share their descriptors. One that closes these dies with its
    worker, after the cluster's repeats; one that writes into them can stop the cluster's scheduler and so the run,
    which nothing here notices.
    """

    #: How many tasks may be unfinished on the cluster.
    MAX_RUNNING_TASKS = 700

    def __init__(
        self, dask_client: Client, task_cache: TaskCache = NO_TASK_CACHE, *, force: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(task_cache, force=force, **kwargs)
        self._client = dask_client
        self._backend: DaskBackend | None = None
        self._closed = threading.Event()

    def close(self) -> None:
        """Shut the cluster down and close the client; a run that is still active ends with RunCancelled.

        A second call does nothing.
        """
        if self._closed.is_set():
            return
        self._closed.set()
        backend = self._backend
        if backend is not None:
            backend.end(_cancelled(backend.run_id))
        with _quiet(enabled=self.parameters.verbose <= 0):
            try:
                self._client.shutdown()
            finally:
                self._client.close()

    def _pairs(
        self, graph: TaskGraph, journal: Journal, preparation: Preparation
    ) -> Generator[tuple[Task, Any], None, None]:
        run = BatchedRun(graph, journal, self.parameters.resource_limits)
        run.take_additions()
        if run.is_over:
            yield from super()._pairs(graph, journal, preparation)
            return
        run.share = backend = self._open_backend(self._run_facts(journal.run_id))
        yield from self._driven(graph, run, backend)

    def _open_backend(self, facts: RunFacts) -> DaskBackend:
        from overnight.dask_backend import DaskBackend, address_of

        if self._closed.is_set():
            raise UsageError("The executor was closed, and its Dask cluster shut down: make a new one to run tasks.")
        try:
            backend = DaskBackend(self._client, facts, lambda: self.MAX_RUNNING_TASKS)
        except Exception as error:  # a client that is being closed fails in many ways
            if self._closed.is_set():
                raise _cancelled(facts.run_id) from error
            if self._client.status == "running":
                raise
            address = address_of(self._client)
            raise Unreachable(f"The Dask client of the cluster at {address} is {self._client.status}.") from error
        self._backend = backend
        if self._closed.is_set():
            backend.end(_cancelled(facts.run_id))
        return backend

    @contextmanager
    def _summarised(self, graph: TaskGraph, journal: Journal) -> Iterator[None]:
        """Let the cluster forget the run once the summary has taken from it what the graph still needs."""
        ended_by: OvernightError | None = None
        try:
            with super()._summarised(graph, journal):
                try:
                    yield
                except (RunCancelled, Unreachable) as error:
                    ended_by = error
                    raise
        except Unreachable as error:
            if ended_by not in (None, error):  # without its cluster, what the run left there cannot be had either
                raise ended_by from error
            raise
        finally:
            backend, self._backend = self._backend, None
            if backend is not None:
                backend.release()


def _cancelled(run_id: str) -> RunCancelled:
    return RunCancelled(run_id, "its executor was closed")


@contextmanager
def _quiet(*, enabled: bool) -> Iterator[None]:
    """Keep the libraries of a cluster from logging in the body; their levels are put back."""
    if not enabled:
        yield
        return
    known = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in _TALKATIVE]
    loggers = [logging.getLogger(name) for name in {*known, *_TALKATIVE}]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(_SILENT)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
