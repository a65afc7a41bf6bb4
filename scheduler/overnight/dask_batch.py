"""What runs on a Dask worker: one batch of attempts, one after the other (BEHAVIOUR B15 to B21, N4, O4).

A batch is one Dask task. Its value is a list with one entry for each task of the batch: the packed outcome, or None
for a task that is given back because it was not started. It is given back when an earlier task of the batch that it
takes a result from has none, when the batch holds enough bytes, and when the batch is late: a task turned out to be
much longer than expected, so that what is finished must be told and what has not started must run elsewhere. The
report of a late batch is an event; an event may be lost, so the value of the batch says everything once more.

Tasks are pickled one by one and opened here, so that one which cannot be rebuilt fails alone. Results are found in
the order itself, among the values of other batches (`Held`), or among the outcomes before it in this batch
(`Earlier`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import ReferenceType, ref

from overnight.dask_surroundings import Surroundings, applied
from overnight.errors import OvernightError, ResultNotPicklable
from overnight.forked import AttemptOrder, run_in_child
from overnight.graph import Task, resolve_arguments
from overnight.invoke import Outcome, attempt
from overnight.outcome_message import pack_outcome, unpack_outcome
from overnight.pickling import loads
from overnight.results import ResultLost

#: A batch that is not finished after so many seconds reports, and gives back what has not started.
LATE_SECONDS = 1.0
#: A batch whose outcomes hold so many bytes ends: whoever needs one of them fetches them all.
MOST_BYTES = 1024 * 1024
#: Outcomes above this are told by the value of the batch alone: events stay in the scheduler's memory.
MOST_EVENT_BYTES = 64 * 1024

#: The value of a batch: an outcome as `outcome_message` packs it, None for a task that was not started.
Report = list[bytes | None]


@dataclass(frozen=True, slots=True)
class Settings:
    """What all batches of a run have in common. `topic` is where a late batch reports."""

    run_id: str
    topic: str
    log_dir: str | None
    verbosity: int
    fork_tasks: bool
    surroundings: Surroundings


@dataclass(frozen=True, slots=True)
class Held:
    """A result that is the outcome `position` of another batch, whose value is the input of that number."""

    number: int
    position: int


@dataclass(frozen=True, slots=True)
class Earlier:
    """A result that is the outcome `position` of this batch."""

    position: int


@dataclass(frozen=True, slots=True)
class Unloadable:
    """A result that the driver has on record and cannot load, with the reason."""

    reason: OvernightError


@dataclass(frozen=True, slots=True)
class TaskOrder:
    """One attempt: `results` says for each Task that is to be replaced where its result is.

    `function` is the number of its function. `after` are the positions of the tasks of this batch that must have
    succeeded.
    """

    task_id: str
    attempt: int
    timeout: float | None
    function: int
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    results: Mapping[Task, Any]
    after: tuple[int, ...]


def run_batch(
    name: str, settings: bytes, orders: bytes, inputs: Sequence[Report], functions: Sequence[bytes]
) -> Report:
    """Run the batch of the packed orders and return its value (theory: top of the module)."""
    opened = _settings(settings)
    with applied(opened.surroundings):
        return _Batch(name, opened, loads(orders), inputs, functions).run()


@lru_cache(maxsize=4)
def _settings(packed: bytes) -> Settings:
    settings: Settings = loads(packed)
    return settings


class _Batch:
    def __init__(
        self,
        name: str,
        settings: Settings,
        orders: Sequence[bytes | None],
        inputs: Sequence[Report],
        functions: Sequence[bytes],
    ) -> None:
        self._name = name
        self.topic = settings.topic
        self._settings = settings
        self._orders = orders
        self._inputs = inputs
        self._functions = functions
        self._loaded: dict[int, Callable[..., Any]] = {}
        self._report: Report = [None] * len(orders)
        self._guard = threading.Lock()
        self._current = 0
        self._cut = False

    def run(self) -> Report:
        if len(self._orders) == 1:
            self._report[0] = self._outcome_of(0)
            return self._report
        from distributed import get_worker  # whoever only makes an executor needs no Dask

        worker: Any = get_worker()
        worker.loop.add_callback(worker.loop.call_later, LATE_SECONDS, _tell_if_late, ref(self), worker)
        self._run_all()
        return self._report

    def _run_all(self) -> None:
        size = 0
        for position in range(len(self._orders)):
            with self._guard:
                if self._cut:
                    return
                self._current = position
            packed = self._outcome_of(position)
            self._report[position] = packed
            size += len(packed or b"")
            if size > MOST_BYTES:
                return

    def cut(self) -> dict[str, Any]:
        """Start nothing more; return what is to be told of this batch now. Called while a task of it runs."""
        with self._guard:
            self._cut = True
            done = [(position, packed) for position, packed in enumerate(self._report[: self._current]) if packed]
            small = sum(len(packed) for _, packed in done) <= MOST_EVENT_BYTES
            unstarted = list(range(self._current + 1, len(self._orders)))
            return {"batch": self._name, "outcomes": done if small else [], "given_back": unstarted}

    def _outcome_of(self, position: int) -> bytes | None:
        started = time.time()
        task_id = ""
        packed = self._orders[position]
        if packed is None:
            return None
        try:
            order: TaskOrder = loads(packed)
            task_id = order.task_id
            if not all(self._has_succeeded(earlier) for earlier in order.after):
                return None
            outcome = self._attempt(order)
        except BaseException as error:  # what cannot be rebuilt here fails its task; no signal arrives here
            outcome = Outcome(ok=False, value=error, started=started, seconds=0.0)
        return _packed(outcome, task_id)

    def _has_succeeded(self, position: int) -> bool:
        packed = self._report[position]
        return packed is not None and unpack_outcome(packed).ok

    def _attempt(self, order: TaskOrder) -> Outcome:
        results = {task: self._result(place) for task, place in order.results.items()}
        args, kwargs = resolve_arguments((Task(order.task_id), order.args, order.kwargs), results)
        return _run(self._settings, order, self._function(order.function), args, kwargs)

    def _function(self, number: int) -> Callable[..., Any]:
        if number not in self._loaded:
            self._loaded[number] = loads(self._functions[number])
        return self._loaded[number]

    def _result(self, place: Any) -> Any:
        """Return a result of the task's own: one that another task has changed is never seen."""
        if type(place) is Earlier:
            packed = self._report[place.position]
        elif type(place) is Held:
            packed = self._inputs[place.number][place.position]
        elif type(place) is Unloadable:
            raise place.reason
        else:
            return place
        if packed is None:
            raise ResultLost("A result was lost with its worker, and computing it again did not bring it back.")
        outcome = unpack_outcome(packed)
        if not outcome.ok:
            raise outcome.value
        return outcome.value


def _packed(outcome: Outcome, task_id: str) -> bytes:
    """Return the outcome packed, or what kept it from being packed: a user's class may raise anything (DK3)."""
    try:
        return pack_outcome(outcome, task_id)
    except BaseException as error:  # SystemExit, in a thread of Dask's, would end the worker
        message = f"What task {task_id!r} ended with cannot be sent: packing it raised {type(error).__name__}."
        told = ResultNotPicklable(message)
        return pack_outcome(Outcome(False, told, outcome.started, outcome.seconds), task_id)  # noqa: FBT003


def _tell_if_late(reference: ReferenceType[_Batch], worker: Any) -> None:
    """Report for a batch that has not ended; on the worker's event loop, so that no thread is needed to wait."""
    batch = reference()
    if batch is not None:
        worker.log_event(batch.topic, batch.cut())


def _run(
    settings: Settings, order: TaskOrder, func: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]
) -> Outcome:
    """Run an attempt: in a child if it has a time limit, which no timer could keep in a thread of Dask's."""
    if settings.fork_tasks or order.timeout is not None:
        return run_in_child(
            AttemptOrder(
                order.task_id, func, args, kwargs, order.timeout,
                settings.log_dir, settings.verbosity, settings.run_id, order.attempt,
            )
        )  # fmt: skip
    return attempt(
        order.task_id,
        func,
        args,
        kwargs,
        log_dir=settings.log_dir,
        verbosity=settings.verbosity,
        run_id=settings.run_id,
        attempt=order.attempt,
    )
