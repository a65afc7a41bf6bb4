"""What the core is told. Tasks are indices; times are seconds of a clock that the performer reads.

Random values (batch ids, jitter) and times are drawn outside and enter here, so that the core is a pure function of
its events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class TaskRules:
    """The options of a task that the core obeys (BEHAVIOUR O1). `resources` holds (name, amount) pairs."""

    retries: int = 0
    retry_delay: float = 0.0
    priority: int = 0
    queue: str | None = None
    resources: tuple[tuple[str, float], ...] = ()


DEFAULT_RULES = TaskRules()


class NewTask(NamedTuple):
    """One task to add: indices of its dependencies, its rules, and a number that stands for its function."""

    dependencies: Sequence[int]
    rules: TaskRules = DEFAULT_RULES
    function: int = 0


@dataclass(frozen=True, slots=True)
class TasksAdded:
    """Tasks `first`, `first + 1`, ... joined the run. A dependency may have any index below or among them."""

    first: int
    tasks: Sequence[NewTask]


@dataclass(frozen=True, slots=True)
class TasksAdopted:
    """The tasks are finished already: valid flags of an earlier run stand for them."""

    tasks: Sequence[int]


class Offer(NamedTuple):
    """Room for one batch: its id (fresh, random), the queue it would go to and how much it may hold.

    `queue` None takes tasks of every queue (in-process executors). `seconds` is the expected work that the batch may
    hold; tasks of unknown duration go alone. `most_ready` limits only tasks that are ready when the batch is made
    (None: a fair share among the offers of the event); those that follow from them in the batch take nothing from
    other workers. Below `least_seconds` of expected work no share is kept to. A batch may go on for `chain_seconds`
    along a path that decides when the run ends on so many `workers`.
    """

    batch: str
    queue: str | None = None
    most_tasks: int = 1
    seconds: float = 0.0
    most_ready: int | None = None
    least_seconds: float = 0.0
    chain_seconds: float = 0.0
    workers: int = 1


class SlotsOffered(NamedTuple):
    """There is room for batches; the core fills as many offers as it has ready tasks for.

    `ceilings` are what the run may hold at most, with these, of resources that it shares with other runs.
    """

    now: float
    offers: Sequence[Offer]
    ceilings: Mapping[str, float] | None = None


class BatchClaimed(NamedTuple):
    """A worker holds the batch under a lease."""

    batch: str


class TaskSucceeded(NamedTuple):
    """A success was accepted, from whatever attempt; `seconds` is how long the function ran, None if unknown."""

    task: int
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """A failure of the current attempt, that of `batch`, was accepted.

    `hopeless`: repeating cannot help (BEHAVIOUR O2). `jitter` is a random factor of 0.5 to 1.5 (O3). `lost` are the
    dependencies whose results its worker did not find whole: the function was not called.
    """

    task: int
    batch: str
    now: float
    hopeless: bool = False
    jitter: float = 1.0
    lost: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class BatchLost:
    """The worker of the batch vanished. Its first unfinished task is charged with a loss, and only that one (O7).

    `begun`: that task is known to have begun.
    """

    batch: str
    now: float
    begun: bool = True


@dataclass(frozen=True, slots=True)
class BatchReturned:
    """A worker gives tasks of the batch back that it has not started, or the batch was withdrawn: nothing is charged.

    A worker also returns the tasks of a batch whose dependency failed earlier in the same batch; until it does, they
    count as in flight.
    """

    batch: str
    tasks: Sequence[int]


@dataclass(frozen=True, slots=True)
class Woken:
    """The time that a `WakeAt` action asked for has come."""

    now: float


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Nothing new starts, queued tasks leave; running ones are stopped."""


@dataclass(frozen=True, slots=True)
class PauseRequested:
    """Nothing new is dispatched until `ResumeRequested`."""


@dataclass(frozen=True, slots=True)
class ResumeRequested:
    """Dispatching goes on."""


@dataclass(frozen=True, slots=True)
class RetryRequested:
    """Failed or cancelled tasks run again, with all that was skipped for them. Empty: all of them."""

    tasks: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class TasksInvalidated:
    """The results of these finished tasks are gone: they and all their finished descendants run again."""

    tasks: Sequence[int]


@dataclass(frozen=True, slots=True)
class Charge:
    """What a task has used up: failed attempts, worker losses in a row, and the time before which it must not start.

    `begun` counts those losses of the row before which the task was known to have begun.
    """

    failures: int = 0
    losses: int = 0
    not_before: float = 0.0
    begun: int = 0


@dataclass(frozen=True, slots=True)
class Flight:
    """A batch that was in flight when the state was read: its tasks in batch order, and whether a worker holds it."""

    batch: str
    queue: str
    tasks: Sequence[int]
    claimed: bool


@dataclass(frozen=True, slots=True)
class StateRead:
    """The stored truth of the whole run, after `TasksAdded` for all its tasks: recovery, or repair of a divergence.

    `states` holds two bytes a task: the code of its state and its attempt. The core takes this over entirely and
    returns the actions that are due (verdicts, skips, the end). A charge is that of the task's last `Again`: the
    failure of a task that is TRIED is not in it yet. `lacking` holds the TRIED tasks that lacked inputs, with those
    that are lost: none, if they have been invalidated since. `repairs` says how often a result was lost and computed
    again. The read must be newer than every event handled before it.
    """

    now: float
    states: bytes
    flights: Sequence[Flight] = ()
    charges: Mapping[int, Charge] = field(default_factory=dict)
    cancelling: bool = False
    paused: bool = False
    lacking: Mapping[int, Sequence[int]] = field(default_factory=dict)
    repairs: Mapping[int, int] = field(default_factory=dict)


Event = (
    TasksAdded
    | TasksAdopted
    | SlotsOffered
    | BatchClaimed
    | TaskSucceeded
    | TaskFailed
    | BatchLost
    | BatchReturned
    | Woken
    | CancelRequested
    | PauseRequested
    | ResumeRequested
    | RetryRequested
    | TasksInvalidated
    | StateRead
)
