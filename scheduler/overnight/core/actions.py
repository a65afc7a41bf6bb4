"""What the core wants done. The performer carries the actions out in order; each may be repeated safely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from overnight.core.events import Charge
from overnight.core.states import RunPhase, TaskState


class Dispatch(NamedTuple):
    """Send a batch: tasks in dependency order, each with the number of its attempt (1, 2, ..., and then 255 for ever).

    A task may depend on others before it in the batch. If one of those fails, the task is not run but given back
    (`BatchReturned`). An urgent one is to start before what waits on the queue.
    """

    batch: str
    queue: str | None
    tasks: Sequence[int]
    attempts: Sequence[int]
    urgent: bool = False


class Ended(NamedTuple):
    """A task became terminal. For SKIPPED `cause` is the failed ancestor; for FAILED `lost` says that its worker
    was lost too often, so that the performer records a `TaskDied`, and `lacked` is the dependency whose result was lost
    again after it had been computed again as often as it may be (`InputLost`)."""

    task: int
    state: TaskState
    cause: int | None = None
    lost: bool = False
    lacked: int | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """A task goes back to PENDING with this charge on record: a retry, a loss, a task to run again."""

    task: int
    charge: Charge


@dataclass(frozen=True, slots=True)
class Repair:
    """The results of `lost` are gone: what is recorded of `tasks`, which are these and all that may have been computed
    from them, is forgotten. Each stands after those that depend on it, so that one may stop anywhere in between."""

    lost: Sequence[int]
    tasks: Sequence[int]


@dataclass(frozen=True, slots=True)
class StopBatch:
    """The run is being cancelled: withdraw the batch if it is queued, stop it if it runs."""

    batch: str


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send `Woken` at this time or soon after: a backoff ends then."""

    time: float


@dataclass(frozen=True, slots=True)
class RunEnded:
    """Every task is terminal. An addition, a retry or an invalidation makes the run active again."""

    phase: RunPhase


Action = Dispatch | Ended | Again | Repair | StopBatch | WakeAt | RunEnded
