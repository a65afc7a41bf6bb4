"""A claimed batch as the supervisor holds it: its members, what each needs, and how far each has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from overnight.certificates import BY_EXCEPTION
from overnight.lineage import DependencyRecord, lineage_digest
from overnight.messages import StoredError, TaskFacts
from overnight.store.records import Claim

NO_DIGEST = bytes(32)


class Stage(Enum):
    """How far a member has come. The supervisor alone moves it."""

    OPEN = auto()
    """Claimed; it may have been sent to the child."""
    ENDED = auto()
    """It has an outcome, which is on its way to the store."""
    RETURNED = auto()
    """It goes back, or has gone back: it was not started, or was stopped."""


@dataclass(slots=True)
class Ended:
    """How an attempt ended. `body` is the serialised result of a success; `error` describes a failure.

    `died`: the process ended with the task. `ended_by` and `tail` are those of a death certificate. `kept` says where a
    flag of the same lineage lies that stands for the attempt. Where one was found when the own one was to be put there,
    `handed_on` is the digest that later members of the batch were computed from. `void`: it was computed from one that
    does not stand, and goes back. `lost` are the dependencies for want of whose results the task was not run.
    """

    body: bytes = b""
    error: StoredError | None = None
    hopeless: bool = False
    started: float = 0.0
    seconds: float | None = None
    peak_memory: int = 0
    digest: bytes = b""
    kept: str | None = None
    handed_on: bytes = b""
    void: bool = False
    died: bool = False
    lost: Sequence[int] = ()
    ended_by: str = BY_EXCEPTION
    tail: str = ""

    @property
    def ok(self) -> bool:
        """Tell whether it is a success."""
        return self.error is None


@dataclass(slots=True)
class Member:
    """One task of the batch. `expected` is the lineage on record (empty: it depends on members of the batch)."""

    position: int
    task: int
    attempt: int
    expected: bytes
    facts: TaskFacts
    payload: bytes
    stage: Stage = Stage.OPEN
    ended: Ended | None = None


@dataclass(slots=True)
class ClaimedBatch:
    """The members of a claim in batch order, and the digests of the results that they depend on."""

    claim: Claim
    members: list[Member]
    digests: dict[int, bytes] = field(default_factory=dict)
    by_task: dict[int, Member] = field(init=False)
    has_limits: bool = field(init=False)

    def __post_init__(self) -> None:
        self.by_task = {member.task: member for member in self.members}
        self.has_limits = any(member.facts.timeout for member in self.members)

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.claim.run.run_id

    @property
    def serves(self) -> tuple[str, int]:
        """The run, and how often it had been retried: a child that served another looks whether its code is old."""
        return self.claim.run.run_id, self.claim.run.retried

    def open_members(self) -> list[Member]:
        """Return the members without an outcome that have not gone back."""
        return [member for member in self.members if member.stage is Stage.OPEN]

    def inner(self, member: Member) -> list[Member]:
        """Return the members that this one depends on."""
        return [self.by_task[task] for task in member.facts.dependencies if task in self.by_task]

    def outside(self) -> list[int]:
        """Return all tasks outside the batch that members depend on, in order."""
        tasks = {task: None for member in self.members for task in member.facts.dependencies}
        return [task for task in tasks if task not in self.by_task]

    def outside_values(self, members: Sequence[Member]) -> list[int]:
        """Return the tasks outside the batch whose results these members take as values."""
        tasks = {task: None for member in members for task in member.facts.values}
        return [task for task in tasks if task not in self.by_task]

    def lineage(self, member: Member) -> bytes:
        """Return the lineage digest of the results that the member was, or would be, computed from."""
        return lineage_digest([self._digest(task) for task in member.facts.dependencies])

    def dependency_records(self, member: Member) -> tuple[DependencyRecord, ...]:
        """Return how the member's flag names the results it was computed from.

        Of results from outside the batch only the digest is known here. Of a member's, the attempt is left open: the
        flag that stands for it may be an earlier attempt's.
        """
        return tuple(self._record(task) for task in member.facts.dependencies)

    def drop_dependants(self, position: int) -> None:
        """Send back the open members that depend on one without a usable result."""
        lost = {self.members[position].task}
        for member in self.members[position + 1 :]:
            if not lost.isdisjoint(member.facts.dependencies):
                lost.add(member.task)
                if member.stage is Stage.OPEN:
                    member.stage = Stage.RETURNED

    def _digest(self, task: int) -> bytes:
        member = self.by_task.get(task)
        if member is None:
            return self.digests.get(task, NO_DIGEST)
        return member.ended.handed_on or member.ended.digest if member.ended is not None else NO_DIGEST

    def _record(self, task: int) -> DependencyRecord:
        member = self.by_task.get(task)
        digest = self._digest(task).hex()
        if member is None:
            return DependencyRecord(None, None, digest)
        return DependencyRecord(self.run_id, None, digest)
