"""What the memory store holds: plain values, one for each kind of key on a server.

`MemoryData` may be copied as a whole (`copy.deepcopy`) and put back later: that is a server that lost its last steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from overnight.certificates import KEPT_ATTEMPTS
from overnight.core.events import Charge
from overnight.core.states import RunPhase, TaskState
from overnight.store.codec import NO_DIGEST, Cursor
from overnight.store.keys import UNTOUCHED_SECONDS
from overnight.store.records import Batch, Happening, RunEvent, RunRecord, WorkerRecord

MOST_EVENTS = 100_000
DIGEST_BYTES = 32
#: States in which a task may still come to something.
OPEN = frozenset({TaskState.PENDING, TaskState.QUEUED, TaskState.RUNNING, TaskState.TRIED})


@dataclass(frozen=True, slots=True)
class Dispatched:
    """An in-flight entry: the latest batch of a task and the lineage it expects.

    None is a lineage that nothing equals: what the attempt computes from was invalidated, or is lost: then `lacked`
    names the tasks whose results its worker did not find.
    """

    batch: str
    lineage: bytes | None
    lacked: Sequence[int] = ()

    @property
    def is_void(self) -> bool:
        """Tell whether what the attempt computes from was invalidated."""
        return self.lineage is None and not self.lacked


@dataclass(frozen=True, slots=True)
class Accepted:
    """The last accepted report of a task: its batch, whether a success, and its facts for people."""

    batch: str
    ok: bool
    facts: bytes


@dataclass(slots=True)
class Hold:
    """A worker's claim on a batch. A mark is '.' while its task is with the holder, '+' once a success of it was
    accepted from this batch, '-' after any other end. `begun` is the task that the holder last said it runs."""

    instance: str
    sequence: int
    marks: list[str]
    begun: int | None = None


@dataclass(slots=True)
class MemoryBatch:
    """A batch from DISPATCH until no task of it is left."""

    batch: Batch
    hold: Hold | None = None


@dataclass(slots=True)
class MemoryRun:
    """One run with all that belongs to it."""

    record: RunRecord
    context: bytes
    expires_at: float
    specs: dict[int, bytes] = field(default_factory=dict)
    messages: dict[int, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    states: bytearray = field(default_factory=bytearray)
    digests: bytearray = field(default_factory=bytearray)
    results: dict[int, bytes] = field(default_factory=dict)
    errors: dict[int, bytes] = field(default_factory=dict)
    accepted: dict[int, Accepted] = field(default_factory=dict)
    charges: dict[int, Charge] = field(default_factory=dict)
    causes: dict[int, int] = field(default_factory=dict)
    inflight: dict[int, Dispatched] = field(default_factory=dict)
    batches: dict[str, MemoryBatch] = field(default_factory=dict)
    deaths: dict[tuple[int, int], bytes] = field(default_factory=dict)
    events: deque[RunEvent] = field(default_factory=lambda: deque(maxlen=MOST_EVENTS))
    sequence: int = 0
    dispatched: int = 0
    invalidations: int = 0
    repairs: dict[int, int] = field(default_factory=dict)

    @property
    def phase(self) -> RunPhase:
        """Where the run stands."""
        return self.record.phase

    def change(self, **values: Any) -> None:
        """Change fields of the record."""
        self.record = replace(self.record, **values)

    def code(self, task: int) -> TaskState | None:
        """Return the state of a task, None if the run does not hold it."""
        if not 0 <= task < self.record.added:
            return None
        return TaskState(self.states[2 * task])

    def attempt(self, task: int) -> int:
        """Return how often the task was dispatched, at most 255."""
        return self.states[2 * task + 1]

    def put(self, task: int, state: TaskState) -> None:
        """Set the state of a task."""
        self.states[2 * task] = state

    def digest(self, task: int) -> bytes:
        """Return the digest of a task's result, zeros if it has none."""
        return bytes(self.digests[DIGEST_BYTES * task : DIGEST_BYTES * (task + 1)]) or NO_DIGEST

    def put_digest(self, task: int, digest: bytes) -> None:
        """Set the digest of a task's result."""
        self.digests[DIGEST_BYTES * task : DIGEST_BYTES * (task + 1)] = digest

    def keep_certificate(self, task: int, certificate: bytes | None) -> None:
        """Keep the death certificate of the task's current attempt, if there is one."""
        if certificate:
            self.deaths[task, self.attempt(task) % KEPT_ATTEMPTS] = certificate

    def count_open(self) -> int:
        """Return how many tasks are not terminal."""
        return sum(1 for code in self.states[::2] if code in OPEN)

    def is_under(self, task: int, batch: str, state: TaskState) -> bool:
        """Tell whether a task is in `state` under a batch."""
        entry = self.inflight.get(task)
        return self.code(task) is state and entry is not None and entry.batch == batch

    def lacking(self) -> dict[int, Sequence[int]]:
        """Return the TRIED tasks that lacked inputs, with those that are lost: none, if they were invalidated since."""
        tried = [task for task, code in enumerate(self.states[::2]) if code == TaskState.TRIED]
        entries = [(task, self.inflight[task]) for task in tried if task in self.inflight]
        return {task: entry.lacked for task, entry in entries if entry.lineage is None}

    def put_back(self, tasks: Iterable[int], batch: str, state: TaskState) -> list[int]:
        """Put those of `tasks` that are in `state` under `batch` back to PENDING and return them."""
        back = [task for task in tasks if self.is_under(task, batch, state)]
        for task in back:
            self.put(task, TaskState.PENDING)
        return back

    def tell(self, what: Happening, **fields: Any) -> None:
        """Append an event."""
        self.sequence += 1
        cursor = Cursor(f"{self.sequence}-0", self.sequence).text
        self.events.append(RunEvent(self.record.run_id, cursor, what, **fields))

    def gap(self) -> RunEvent:
        """Return the GAP that leads to the latest event."""
        return RunEvent(self.record.run_id, Cursor(f"{self.sequence}-0", self.sequence).text, Happening.GAP)

    def events_after(self, cursor: str) -> list[RunEvent]:
        """Return the events after a cursor, with a GAP where some are missing."""
        run_id, number = self.record.run_id, Cursor.parse(cursor).number
        if number > self.sequence:
            return [self.gap()]
        later = self.sequence - number
        told = list(self.events)[max(0, len(self.events) - later) :] if later else []
        if later > len(told):
            first = self.sequence - len(told)
            told.insert(0, RunEvent(run_id, Cursor(f"{first}-0", first).text, Happening.GAP))
        return told


@dataclass(slots=True)
class SchedulerLease:
    """The right to dispatch."""

    number: int = 0
    holder: str = ""
    description: str = ""
    deadline: float = 0.0


@dataclass(slots=True)
class Held:
    """What is held against a host: until when it is in quarantine (0: it is not), and since when for each task."""

    until: float = 0.0
    evidence: dict[tuple[str, int], float] = field(default_factory=dict)


@dataclass(slots=True)
class MemoryData:
    """All that a server would hold."""

    runs: dict[str, MemoryRun] = field(default_factory=dict)
    active: set[str] = field(default_factory=set)
    graphs: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    changes: int = 0
    leases: dict[tuple[str, str], float] = field(default_factory=dict)
    scheduler: SchedulerLease = field(default_factory=SchedulerLease)
    workers: dict[str, tuple[float, WorkerRecord]] = field(default_factory=dict)
    tails: dict[str, bytes] = field(default_factory=dict)
    durations: dict[str, tuple[float, int]] = field(default_factory=dict)
    quarantine: dict[str, Held] = field(default_factory=dict)

    def expire(self, now: float) -> None:
        """Forget the runs whose time is over."""
        for run_id in [run_id for run_id, run in self.runs.items() if run.expires_at <= now]:
            del self.runs[run_id]
            self.active.discard(run_id)

    def in_the_way(self, record: RunRecord) -> str | None:
        """Return the active run, other than `record`'s, that has the same graph key or place."""
        return self.active_in(self.graphs, record.key, record) or self.active_in(self.places, record.place, record)

    def active_in(self, registry: dict[str, str], name: str, record: RunRecord) -> str | None:
        """Return the active run, other than `record`'s, that a registry names."""
        other = registry.get(name) if name else None
        return other if other in self.active and other != record.run_id else None

    def enter_active(self, run: MemoryRun, now: float) -> None:
        """Enter a run among the active ones."""
        record = run.record
        if record.key:
            self.graphs[record.key] = record.run_id
        if record.place:
            self.places[record.place] = record.run_id
        self.active.add(record.run_id)
        run.expires_at = now + UNTOUCHED_SECONDS
        self.changes += 1

    def reopen(self, run: MemoryRun, now: float) -> None:
        """Make an ended run active again."""
        rested = run.record.rested + max(0.0, now - (run.record.ended_at or now))
        run.change(phase=RunPhase.ACTIVE, ended_at=None, rested=rested)
        self.enter_active(run, now)

    def leave_active(self, run: MemoryRun) -> None:
        """Take an ended run out of the active ones."""
        record = run.record
        for registry, name in ((self.graphs, record.key), (self.places, record.place)):
            if registry.get(name) == record.run_id:
                del registry[name]
        self.active.discard(record.run_id)
        self.changes += 1

    def drop_batch(self, run: MemoryRun, batch: str) -> None:
        """Forget a batch and its lease."""
        run.batches.pop(batch, None)
        self.leases.pop((run.record.run_id, batch), None)


def members(batch: MemoryBatch) -> Sequence[int]:
    """Return the tasks of a batch in batch order."""
    return batch.batch.tasks
