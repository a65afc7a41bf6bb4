"""The values that pass through the store's ports. Tasks are indices in their run; digests are 32 bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from overnight.core.events import Charge, Flight
from overnight.core.states import RunPhase, TaskState


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run is, as all may read it. Times are seconds of the server's clock.

    `key` identifies the graph (the same command makes the same key), `place` the status directory or other resource
    that only one active run may use (empty: none). Of runs that share workers, one of twice the `weight` is given twice
    the time. `retried` differs after each RETRY: what runs again finds the code as it is then. `rested` are the seconds
    for which it was over until something reopened it, all such times together. `made` names the tasks that it holds, in
    their order: those of the same name have the same numbers (empty: a version that gave no such names made it).
    """

    run_id: str
    name: str
    key: str
    place: str
    owner: str
    host: str
    python: str
    protocol: int
    total: int
    queue: str
    command: str
    status_dir: str | None = None
    log_dir: str | None = None
    fail_fast: bool = False
    keep_seconds: float = 604800.0
    resource_limits: Mapping[str, float] = field(default_factory=dict)
    weight: float = 1.0
    phase: RunPhase = RunPhase.SUBMITTING
    paused: bool = False
    added: int = 0
    created_at: float = 0.0
    ended_at: float | None = None
    retried: int = 0
    rested: float = 0.0
    made: str = ""
    note: str = ""
    """What a scheduler has to say of the run to people: why it leaves it alone."""

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ValueError(self.weight)

    def seconds(self, now: float) -> float:
        """Return how long the run took, or has taken so far: without the time in which it was over."""
        return max(0.0, (self.ended_at or now) - self.created_at - self.rested)


class Opening(Enum):
    """How SUBMIT answered: a new run; the same graph is active already; the place is in use by another graph."""

    CREATED = "created"
    ATTACHED = "attached"
    BUSY = "busy"


@dataclass(frozen=True, slots=True)
class Opened:
    """The answer to SUBMIT. `run` is the new run, the one to attach to, or the one that is in the way."""

    opening: Opening
    run: RunRecord


@dataclass(frozen=True, slots=True)
class Adopted:
    """A finished task whose flag is valid: its result's digest and the sealed `StoredResult` that locates it."""

    digest: bytes
    record: bytes


@dataclass(frozen=True, slots=True)
class Addition:
    """Tasks to add from index `first` on: the sealed `SpecChunk`, and for each task that may run its sealed
    `TaskMessage` (by index); adopted tasks (by index) are CACHED from the start; `blobs` are the digests of those that
    were put for it, which the run must hold still."""

    first: int
    count: int
    spec: bytes
    messages: Mapping[int, bytes]
    adopted: Mapping[int, Adopted] = field(default_factory=dict)
    blobs: Sequence[str] = ()


class Request(Enum):
    """What people and clients ask of a run."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Epoch:
    """The right to dispatch. `number` grows with each takeover; `holder` is the scheduler instance's random id."""

    number: int
    holder: str


@dataclass(frozen=True, slots=True)
class EpochHeld:
    """Another scheduler holds the epoch, for at most `seconds` more unless it renews."""

    holder: str
    description: str
    seconds: float


@dataclass(frozen=True, slots=True)
class RunSnapshot:
    """All that a scheduler needs to take a run over. `specs` are sealed `SpecChunk` records in order of `first`.

    `states` holds two bytes a task (code, attempt), `digests` 32 bytes a task (zeros: none). `cursor` is the position
    in the run's event stream just before the state was read. `invalidations` as in `RunEvent`; `lacking` and `repairs`
    as in `core.events.StateRead`.
    """

    run: RunRecord
    specs: Sequence[bytes]
    states: bytes
    digests: bytes
    flights: Sequence[Flight]
    charges: Mapping[int, Charge]
    cursor: str
    invalidations: int = 0
    lacking: Mapping[int, Sequence[int]] = field(default_factory=dict)
    repairs: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch to dispatch: tasks in dependency order, their attempts, and the lineage digest expected of each."""

    batch: str
    queue: str
    tasks: Sequence[int]
    attempts: Sequence[int]
    lineages: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A scheduler's decision on one task: its new state, with the charge on record (PENDING) or the failed ancestor
    (SKIPPED), or a sealed `StoredError` where the scheduler itself states the failure (FAILED, worker lost).

    `certificate` is the sealed `DeathCertificate` of an attempt that ended with the loss of its worker."""

    task: int
    state: TaskState
    charge: Charge | None = None
    cause: int | None = None
    error: bytes | None = None
    certificate: bytes | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """What CLAIM hands out: the tasks of the batch that are still queued for it, with their sealed messages."""

    run: RunRecord
    batch: str
    queue: str
    tasks: Sequence[int]
    attempts: Sequence[int]
    lineages: Sequence[bytes]
    messages: Sequence[bytes]
    context: bytes
    lease_seconds: float


#: Why CLAIM refuses a worker whose host is in quarantine.
QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class ClaimRefused:
    """The batch is held by another worker, finished, withdrawn or unknown: nothing to do. `reason` says which.

    `QUARANTINED`: the batch waits for a worker elsewhere.
    """

    reason: str


#: So many lost inputs of a task are reported at once; what else it lacks its next attempt finds.
MOST_LOST = 500


class Report(NamedTuple):
    """One attempt's outcome for COMMIT.

    `record` is a sealed `StoredResult` (ok) or `StoredError`; `digest` the result's (ok) or empty; `lineage` the
    lineage digest of the dependency results used; `facts` JSON text for people. `died`: the task's process ended with
    it. `certificate` is the sealed `DeathCertificate` of a failure (empty: none). `lost` are the dependencies whose
    results the worker did not find whole, for want of which the task was not run: at most `MOST_LOST`.
    """

    task: int
    ok: bool
    record: bytes
    digest: bytes
    lineage: bytes
    facts: bytes
    seconds: float | None
    hopeless: bool = False
    died: bool = False
    certificate: bytes = b""
    lost: Sequence[int] = ()


class Acceptance(Enum):
    """COMMIT's answer for one report."""

    ACCEPTED = "accepted"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True)
class CommitReply:
    """COMMIT's answer: one acceptance per report, whether the lease is lost, whether the run wants the batch to stop.

    `known` False: Redis no longer knows the run; the worker keeps flag or spool and offers the reports again.
    """

    acceptances: Sequence[Acceptance]
    lease_lost: bool = False
    stop: bool = False
    known: bool = True


@dataclass(frozen=True, slots=True)
class LeaseReply:
    """HEARTBEAT's answer for one batch."""

    lost: bool
    stop: bool


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A worker as people and the scheduler see it. Memory in bytes.

    `seen_at` is of the server's clock, all other times are of the worker's, which showed `clock` when it was seen (0:
    it did not say). `overnight` is the version of this package there, `key` the id of the key that signs there.
    """

    instance: str
    host: str
    pid: int
    queues: Sequence[str]
    python: str
    protocol: int
    started_at: float
    seen_at: float = 0.0
    batch: str | None = None
    run_id: str | None = None
    task: int | None = None
    task_since: float | None = None
    memory: int = 0
    draining: bool = False
    note: str = ""
    overnight: str = ""
    key: str = ""
    clock: float = 0.0

    @property
    def skew(self) -> float:
        """By how many seconds the worker's clock is ahead of the server's; 0 if it did not say."""
        return self.clock - self.seen_at if self.clock else 0.0

    def seconds_since(self, moment: float, now: float) -> float:
        """Return how long a moment of the worker's clock is ago, at `now` of the server's."""
        return max(0.0, now + self.skew - moment)

    def begun_in(self, run_id: str, batch: str) -> str | int:
        """Return the task of the batch that runs or is about to, empty for none."""
        is_at_hand = (self.run_id, self.batch) == (run_id, batch)
        return self.task if is_at_hand and self.task is not None else ""


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A host that takes no more work, for `seconds` more, because of these tasks (run id, task).

    They died there and succeeded elsewhere.
    """

    host: str
    seconds: float
    tasks: Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Reaped:
    """A lease that ran out: the batch and its tasks that went back to PENDING, in batch order."""

    run_id: str
    batch: str
    tasks: Sequence[int]


class Happening(Enum):
    """What an entry of a run's event stream tells."""

    ADDED = "added"
    """`tasks` holds those of the addition that were adopted; the structure is read with `read_specs`."""
    CLAIMED = "claimed"
    COMMITTED = "committed"
    RETURNED = "returned"
    REAPED = "reaped"
    SETTLED = "settled"
    REQUESTED = "requested"
    INVALIDATED = "invalidated"
    ENDED = "ended"
    GAP = "gap"
    """Entries were missed (trimmed, or the server lost some): read the state instead."""


class Committed(NamedTuple):
    """One accepted report inside a COMMITTED event; `digest` is empty for a failure. `lost` as in `Report`."""

    task: int
    ok: bool
    digest: bytes
    seconds: float | None
    hopeless: bool
    died: bool = False
    lost: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One entry of a run's event stream; fields that do not belong to its happening are empty.

    `cursor` is the position to go on from. For SETTLED `verdicts` holds (task, state, cause) triples. `begun`: the
    first of the REAPED tasks is known to have begun. `invalidations`: how often results of the run were INVALIDATED.
    """

    run_id: str
    cursor: str
    what: Happening
    batch: str | None = None
    worker: str | None = None
    tasks: Sequence[int] = ()
    reports: Sequence[Committed] = ()
    verdicts: Sequence[tuple[int, TaskState, int | None]] = ()
    request: Request | None = None
    phase: RunPhase | None = None
    begun: bool = False
    invalidations: int = 0


@dataclass(frozen=True, slots=True)
class TaskView:
    """One task as people see it: state, attempt, charge, failed ancestor, facts (JSON text), sealed error or None."""

    task: int
    state: TaskState
    attempt: int
    charge: Charge
    cause: int | None
    facts: bytes | None
    error: bytes | None
