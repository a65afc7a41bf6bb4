"""The programming interface to runs: submit, watch and steer them from any process that reaches the server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from overnight.cache import NO_TASK_CACHE, FileTaskCache, NoTaskCache, TaskCache
from overnight.config import read_settings
from overnight.core.states import RunPhase, TaskState
from overnight.deployment import Deployment
from overnight.errors import BadSeal, Refused, UnknownRun, UnknownRunName, UnreadableRun, nearest, remedy
from overnight.following import Changed, Follower
from overnight.graph import TaskGraph, missing_dependencies
from overnight.hints import hint
from overnight.inspection import decide
from overnight.launch import launch
from overnight.naming import shown
from overnight.preparation import all_descs, check_is_graph
from overnight.probe import is_probe
from overnight.run_key import RunOptions
from overnight.store.connection import hidden
from overnight.store.records import Request, RunRecord
from overnight.structure import Structure

LAST = "last"
_TRIED_AGAIN = frozenset({TaskState.FAILED, TaskState.SKIPPED, TaskState.CANCELLED})


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run and how many of its tasks are in each state (states without tasks are left out)."""

    run: RunRecord
    counts: dict[TaskState, int]

    @property
    def is_over(self) -> bool:
        """True once nothing more happens to the run by itself."""
        return self.run.phase.is_over


class Client:
    """Submits, watches and steers runs, on the server of `redis_url` or the embedded one of `state_dir`.

    Without a URL the environment's (`OVERNIGHT_REDIS_URL`) is taken, else the embedded server. A run is named by its
    id, a unique beginning of it, or ``last``, which is never one by which `doctor` has tried a directory. Every method
    raises Unreachable if the server cannot be used, UnknownRun if there is no such run.
    """

    def __init__(self, redis_url: str | None = None, *, state_dir: str | Path | None = None, workers: int = 0) -> None:
        settings = read_settings().with_values(redis_url=redis_url, state_dir=state_dir)
        self.deployment = Deployment(settings, workers=workers)
        self._store = self.deployment.store

    @classmethod
    def of(cls, deployment: Deployment) -> Client:
        """Return a client of a deployment that is open already."""
        client = cls.__new__(cls)
        client.deployment = deployment
        client._store = deployment.store  # noqa: SLF001  # its own attribute, before it is handed out
        return client

    def submit(
        self,
        graph: TaskGraph,
        name: str = "",
        *,
        task_cache: TaskCache = NO_TASK_CACHE,
        task_status_dir: str | None = None,
        **options: Any,
    ) -> str:
        """Put a run of the graph in place and return its id; from then on it ends whether or not this process lives.

        `options` are the fields of `launch.RunOptions`. If the same graph is active already under the same command,
        that run's id is returned. The graph is not changed. Raises GraphError for a graph that cannot be run, Refused
        if the status directory is in use.
        """
        if task_status_dir is not None:
            task_cache = FileTaskCache(task_status_dir)
        check_is_graph(graph)
        graph.check()
        missing_dependencies(graph, ())
        decisions = None if isinstance(task_cache, NoTaskCache) else decide(graph, task_cache)
        descs = all_descs(graph)
        chosen = replace(RunOptions(name=name, status_dir=status_dir_of(task_cache)), **options)
        deployment = self.deployment
        launched = launch(self._store, descs, decisions, task_cache, chosen, deployment.settings, deployment.keyring)
        return launched.run.run_id

    def runs(self) -> list[RunRecord]:
        """Return all runs that are kept, newest first."""
        return self._store.runs()

    def resolve(self, name: str) -> str:
        """Return the full id of a run named by id, unique beginning, or ``last``. An empty name names none: it is what
        is left of a variable that is not set. Raises UnknownRunName."""
        if not name.strip():
            raise UnknownRunName(f"A run is named by its id, a beginning of it, or {LAST!r}; an empty name was given.")
        runs = self._store.runs()
        known = [run.run_id for run in runs]
        settings, where = self.deployment.settings, f"the server {hidden(self.deployment.url)}"
        if name == LAST:
            of_people = [run.run_id for run in runs if not is_probe(run)]
            if not of_people:
                raise UnknownRun(f"There is no run yet on {where}. Start one: {hint(settings, 'run', 'TARGET')}")
            return of_people[0]
        found = [run_id for run_id in known if run_id == name] or [run for run in known if run.startswith(name)]
        if not found:
            about = f"There is no run {name!r} on {where}{nearest(name, known)}"
            raise UnknownRunName(f"{about} This lists them: {hint(settings, 'runs')}")
        if len(found) > 1:
            raise UnknownRunName(
                f"{name!r} fits {len(found)} runs, such as {found[0]} and {found[1]}: give more of the id."
            )
        return found[0]

    def status(self, run: str = LAST) -> RunStatus:
        """Return a run's record and the number of its tasks by state."""
        run_id = self.resolve(run)
        codes = self._store.states(run_id)[::2]
        counts = {state: codes.count(state) for state in TaskState if state in codes}
        return RunStatus(self._store.run(run_id), counts)

    def task_ids(self, run: str = LAST) -> list[str]:
        """Return the ids of a run's tasks, by index."""
        return list(self.structure(run).ids())

    def structure(self, run: str = LAST) -> Structure:
        """Return ids, functions and dependencies of a run's tasks. Raises UnreadableRun if they cannot be believed."""
        run_id = self.resolve(run)
        try:
            return Structure(run_id, self._store.specs(run_id), self.deployment.keyring)
        except BadSeal as error:
            raise UnreadableRun(f"Run {run_id} cannot be read here: {error} {remedy(error)}") from error

    def follow(self, run: str = LAST) -> Iterator[Changed]:
        """Yield what changes in a run from its beginning until it is over, at least about every second."""
        yield from Follower(self._store, self.resolve(run)).changes()

    def wait(self, run: str = LAST) -> RunPhase:
        """Wait until a run is over and return how it ended."""
        for changed in self.follow(run):
            self.deployment.check()
            if changed.over is not None:
                return changed.over
        return self._store.run(self.resolve(run)).phase

    def cancel(self, run: str = LAST) -> None:
        """Stop a run: nothing new starts, queued tasks leave, running ones are stopped."""
        self._store.request(self.resolve(run), Request.CANCEL)

    def pause(self, run: str = LAST) -> None:
        """Start nothing more of a run until it is resumed."""
        self._store.request(self.resolve(run), Request.PAUSE)

    def resume(self, run: str = LAST) -> None:
        """Let a paused run go on."""
        self._store.request(self.resolve(run), Request.RESUME)

    def retry(self, run: str = LAST, task_ids: tuple[str, ...] = ()) -> None:
        """Run failed or cancelled tasks again (all of them if none is named), with what was skipped for them and with
        what they need that failed, was skipped or cancelled itself."""
        run_id = self.resolve(run)
        self._store.request(run_id, Request.RETRY, self._with_needs(run_id, self._numbers(run_id, task_ids)))

    def _with_needs(self, run_id: str, tasks: list[int]) -> list[int]:
        """A scheduler that meets the run anew sees states alone: each of these must be able to run (decision 0010)."""
        if not tasks:
            return tasks
        codes = self._store.states(run_id)[::2]
        again = {task for task, code in enumerate(codes) if code in _TRIED_AGAIN}
        return self.structure(run_id).with_ancestors(tasks, again.__contains__)

    def check_retry(self, run: str = LAST, task_ids: tuple[str, ...] = ()) -> None:
        """Raise Refused if `retry` would run nothing, because nothing failed, was skipped or cancelled."""
        run_id = self.resolve(run)
        codes = self._store.states(run_id)[::2]
        asked = self._numbers(run_id, task_ids) or range(len(codes))
        if not any(codes[number] in _TRIED_AGAIN for number in asked):
            named = f" of {', '.join(repr(shown(task_id)) for task_id in task_ids)}" if task_ids else ""
            raise Refused(
                f"There is nothing to retry: nothing{named} in run {run_id} failed, was skipped or cancelled."
            )

    def _numbers(self, run_id: str, task_ids: tuple[str, ...]) -> list[int]:
        structure = self.structure(run_id) if task_ids else None
        return [structure.index(task_id) for task_id in task_ids] if structure else []

    def close(self) -> None:
        """Let go of the server; runs go on."""
        self.deployment.close(stop=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()


def status_dir_of(cache: TaskCache) -> str | None:
    """Return the directory or URL in which workers record outcomes themselves, if the cache is one of flags."""
    if not isinstance(cache, FileTaskCache):
        return None
    directory = cache.directory
    return directory if "://" in directory else os.path.realpath(directory)
