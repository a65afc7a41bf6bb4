"""Attempts as bytes for a Dask worker: orders one by one, each function once (BEHAVIOUR B19, QX8).

Bytes of a function that are few travel with every batch that calls it. Where they are many (a method of a large
object) they become a Dask task of their own, whose value the workers hand to each other; Dask makes it again if its
worker dies.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from overnight.dask_batch import Held, TaskOrder
from overnight.dask_run import BatchedLaunch
from overnight.errors import Unreachable
from overnight.naming import shown
from overnight.outcome_message import unpack_outcome
from overnight.pickling import dump_input

if TYPE_CHECKING:
    from distributed import Client, Future

#: Functions whose pickles are larger than this go to the cluster once.
MOST_BYTES_WITH_BATCH = 64 * 1024
#: So many functions of a run are remembered; a graph may have a closure for each of its tasks.
MOST_FUNCTIONS = 1000
#: Seconds that bringing one result from the cluster may take.
FETCH_SECONDS = 600.0
_SIZE_WITHOUT_WARNING = 1024 * 1024


class ValueOnCluster:
    """The result of a task that is entry `position` of the value of a batch; calling it brings it here."""

    def __init__(self, future: Future[Any], position: int) -> None:
        self.future = future
        self.position = position

    def __call__(self) -> Any:
        """Return the value; Unreachable if it is gone."""
        try:
            packed = self.future.result(timeout=FETCH_SECONDS)[self.position]
        except Exception as error:  # whatever the cluster says, the value is not to be had
            raise Unreachable(f"A result cannot be fetched from the Dask cluster, where it was: {error}") from error
        if packed is None:
            raise Unreachable("A result was lost with its Dask worker, and computing it again did not bring it back.")
        return unpack_outcome(packed).value


@dataclass
class PackedBatch:
    """The content of a batch while it is filled. Inputs and functions are numbered in the order of insertion.

    An order is None for an attempt that could not be packed: its place in the batch stays.
    """

    orders: list[bytes | None] = field(default_factory=list)
    inputs: dict[Any, tuple[int, Future[Any]]] = field(default_factory=dict)
    functions: dict[Any, tuple[int, bytes | Future[Any]]] = field(default_factory=dict)

    def arguments(self) -> tuple[bytes, list[Future[Any]], list[bytes | Future[Any]]]:
        """Return orders, inputs and functions as `dask_batch.run_batch` takes them.

        The orders are one value: Dask looks into lists, and this one is long.
        """
        inputs = [future for _, future in self.inputs.values()]
        return pickle.dumps(self.orders), inputs, [function for _, function in self.functions.values()]

    def place(self, result: Any) -> Any:
        """Return what stands for the result in an order; a value on the cluster becomes an input."""
        if not isinstance(result, ValueOnCluster):
            return result
        number, _ = self.inputs.setdefault(result.future.key, (len(self.inputs), result.future))
        return Held(number, result.position)


class Packing:
    """Packs the attempts of one run. `prefix` begins the keys of what it puts on the cluster."""

    def __init__(self, client: Client, prefix: str) -> None:
        self._client = client
        self._prefix = prefix
        self._functions: dict[Any, tuple[Callable[..., Any], bytes | Future[Any]]] = {}
        self.on_cluster: list[Future[Any]] = []

    def add(self, launch: BatchedLaunch, batch: PackedBatch) -> None:
        """Append the attempt to the batch; if it cannot be packed, its place, and raise TaskNotPicklable."""
        batch.orders.append(None)
        name = shown(launch.task.task_id)
        order = TaskOrder(
            launch.task.task_id,
            launch.attempt,
            launch.desc.options.timeout,
            self._function(launch.desc.func, batch, f"The function of task {name!r}"),
            launch.args,
            launch.kwargs,
            {task: batch.place(result) for task, result in launch.results.items()},
            launch.after,
        )
        batch.orders[-1] = dump_input(order, f"An argument of task {name!r}")

    def _function(self, function: Callable[..., Any], batch: PackedBatch, what: str) -> int:
        """Return the number of the function in the batch, to which it is added if it is new there."""
        key = _identity(function)
        if key not in batch.functions:
            if len(self._functions) >= MOST_FUNCTIONS:
                self._functions.clear()
            if key not in self._functions:
                self._functions[key] = (function, self._placed(dump_input(function, what)))
            batch.functions[key] = (len(batch.functions), self._functions[key][1])
        return batch.functions[key][0]

    def _placed(self, packed: bytes) -> bytes | Future[Any]:
        if len(packed) <= MOST_BYTES_WITH_BATCH:
            return packed
        key = f"{self._prefix}-function-{len(self.on_cluster)}"
        with no_size_warning(len(packed)):
            self.on_cluster.append(self._client.submit(bytes, packed, key=key, pure=False))
        return self.on_cluster[-1]


@contextmanager
def no_size_warning(size: int) -> Iterator[None]:
    """Keep Dask from warning of a message of so many bytes: they are a task's own arguments, which must travel."""
    if size < _SIZE_WITHOUT_WARNING:
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sending large graph", category=UserWarning)
        yield


def _identity(function: Callable[..., Any]) -> Any:
    """Return what is the same for the same function: of a method, made anew by each access, its two parts."""
    bound_to = getattr(function, "__self__", None)
    return id(function) if bound_to is None else (id(bound_to), id(getattr(function, "__func__", function)))
