"""The run of a graph whose attempts go to a Dask cluster in batches (BEHAVIOUR DK, B15, O7).

It differs from `GraphRun` in three ways. Short tasks are offered many to a batch, with followers whose dependencies
are in the batch; the core learns how long a function's tasks take. A launch says for each result that it takes where
that is: here, on the cluster, or earlier in its batch; no argument is put in on this side. And a task may be given back
unstarted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from overnight.arguments import value_dependencies
from overnight.core.actions import Dispatch
from overnight.core.events import BatchClaimed, BatchReturned, NewTask, Offer, SlotsOffered
from overnight.dask_batch import Earlier, Unloadable
from overnight.errors import OvernightError
from overnight.graph import Task, TaskDesc, TaskGraph, TaskNode
from overnight.graph_run import Finished, GraphRun, Launch
from overnight.invoke import Outcome
from overnight.journal import Journal, Settled

#: Expected work in one batch, in seconds: long beside the cost of a Dask task.
BATCH_SECONDS = 0.25
#: Less expected work than this is not spread over several batches.
LITTLE_SECONDS = 0.005

#: How a launch ended that was not started.
GIVEN_BACK = Outcome(ok=False, value=None, started=0.0, seconds=0.0)


class RemoteResult(Protocol):
    """A result that stays on the cluster; calling it brings the value here."""

    def __call__(self) -> Any:
        """Return the value. Raises Unreachable if it cannot be had any more."""


@dataclass(frozen=True, slots=True)
class RemoteOutcome(Outcome):
    """A success whose value stays on the cluster as well: the driver forgets it when it was yielded (B15)."""

    remote: RemoteResult | None = None


@dataclass(slots=True, eq=False)
class BatchedLaunch(Launch):
    """One attempt of a batch: where the results are that it takes, and after which positions of the batch it comes."""

    results: Mapping[Task, Any] = field(default_factory=dict)
    after: tuple[int, ...] = ()


class Share(Protocol):
    """Says how large batches may be; the backend knows the cluster."""

    def most_tasks(self) -> int:
        """Return how many tasks a batch may hold now."""

    def most_ready(self, ready: int) -> int:
        """Return how many of the ready tasks a batch may take now."""


class BatchedRun(GraphRun):
    """The run of a graph from its first task to its last, in batches."""

    #: Set by whoever opens the backend, before the first launch.
    share: Share

    def __init__(self, graph: TaskGraph, journal: Journal, resource_limits: Mapping[str, float] | None) -> None:
        super().__init__(graph, journal, resource_limits)
        self._functions: dict[Any, int] = {}
        self._remote: dict[Task, RemoteResult] = {}

    def _new_task(self, node: TaskNode) -> NewTask:
        new = super()._new_task(node)
        number = self._functions.setdefault(_code_of(node.func), len(self._functions))
        return new._replace(function=number)

    def launches(self, room: int) -> Iterator[Launch | Finished]:
        """Yield up to `room` attempts to be started now, those of a batch one after the other."""
        now = self._wake()
        while room > 0:
            most = min(room, self.share.most_tasks())
            fair = self.share.most_ready(self._core.ready_count())
            offer = Offer(str(next(self._batches)), None, most, BATCH_SECONDS, min(most, fair), LITTLE_SECONDS)
            dispatches = self._perform(self._core.handle(SlotsOffered(now, [offer])))
            if not dispatches:
                return
            for dispatch in dispatches:
                self._core.handle(BatchClaimed(dispatch.batch))
                yield from self._batch(dispatch)
                room -= len(dispatch.tasks)

    def _batch(self, dispatch: Dispatch) -> list[Launch]:
        positions = {self._tasks[index]: position for position, index in enumerate(dispatch.tasks)}
        launches = [
            self._batched(dispatch, position, positions if len(dispatch.tasks) > 1 else {})
            for position in range(len(dispatch.tasks))
        ]
        self._flying.update((launch.index, launch) for launch in launches)
        return launches

    def _batched(self, dispatch: Dispatch, position: int, positions: Mapping[Task, int]) -> Launch:
        index = dispatch.tasks[position]
        desc, held = self._graph.get_declared(self._tasks[index])
        after = tuple([positions[dep] for dep in desc.deps if dep in positions])
        results = self._places(desc, held, positions)
        attempt = dispatch.attempts[position]
        return BatchedLaunch(index, dispatch.batch, attempt, desc, desc.args, desc.kwargs, results, after)

    def _places(self, desc: TaskDesc, held: Mapping[Task, Any], positions: Mapping[Task, int]) -> dict[Task, Any]:
        """Say where the results are that the task takes; one that has no result is left out."""
        if not desc.deps:
            return {}
        known = self._journal.results_for(held)
        places: dict[Task, Any] = {}
        for dep in value_dependencies(desc.args, desc.kwargs):
            if dep in positions:
                places[dep] = Earlier(positions[dep])
            elif dep in self._remote and dep not in held:
                places[dep] = self._remote[dep]
            elif dep in known:
                places[dep] = _loaded(known, dep)
        return places

    def _judged(self, launch: Launch, outcome: Outcome | None) -> Settled | None:
        if outcome is GIVEN_BACK:
            del self._flying[launch.index]
            self._perform(self._core.handle(BatchReturned(launch.batch, [launch.index])))
            return None
        settled = super()._judged(launch, outcome)
        if settled is None or not isinstance(outcome, RemoteOutcome) or outcome.remote is None:
            return settled
        self._remote[launch.task] = outcome.remote
        return settled._replace(load=outcome.remote)


def _loaded(known: Mapping[Task, Any], task: Task) -> Any:
    try:
        return known[task]
    except OvernightError as error:
        return Unloadable(error)


def _code_of(function: Callable[..., Any]) -> Any:
    """Return what tells functions apart whose tasks take as long: their code, not what they are bound to."""
    while isinstance(function, partial):
        function = function.func
    function = getattr(function, "__func__", function)
    return getattr(function, "__code__", None) or type(function)
