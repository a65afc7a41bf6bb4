"""The states of a task and of a run: one table, named once.

The code of a task state is the byte that stands for it in the run's state string in Redis (two bytes a task: state
and attempt), so a recovery is one read of that string. `READY` and `WAITING` are never stored: they are what a
PENDING task is to the core, which knows its dependencies and its backoff.
"""

from __future__ import annotations

from enum import Enum, IntEnum


class TaskState(IntEnum):
    """Where a task stands. Each member says who brings a task in, who takes it out, and what a crash leaves."""

    PENDING = ord("p")
    """In by submission, by a lost or returned batch, by a granted retry; out by DISPATCH or a verdict."""
    QUEUED = ord("q")
    """In by DISPATCH; out by CLAIM, or back to PENDING when cancelled. A lost queue entry is pushed again."""
    RUNNING = ord("x")
    """In by CLAIM, under a lease; out by COMMIT, GIVE_BACK or REAP. A crash leaves the lease to run out."""
    TRIED = ord("t")
    """In by COMMIT of a failure; out by the scheduler's verdict: PENDING again, or FAILED. A crash leaves it
    for the next scheduler to judge."""
    DONE = ord("d")
    """In by COMMIT of a success, from any attempt; out only by INVALIDATE."""
    CACHED = ord("c")
    """In by ADOPT of a valid flag; out only by INVALIDATE."""
    FAILED = ord("f")
    """In by the scheduler's verdict; out by RETRY. A success that comes later is superseded."""
    SKIPPED = ord("s")
    """In because a dependency failed; out by RETRY of that dependency."""
    CANCELLED = ord("k")
    """In by CANCEL; out by RETRY."""


#: States in which a task has its result.
SUCCEEDED = frozenset({TaskState.DONE, TaskState.CACHED})
#: States in which nothing more happens to a task by itself.
TERMINAL = SUCCEEDED | {TaskState.FAILED, TaskState.SKIPPED, TaskState.CANCELLED}
#: States in which a batch holds the task.
IN_FLIGHT = frozenset({TaskState.QUEUED, TaskState.RUNNING})

#: Every transition that may happen, with what brings it about.
TRANSITIONS: dict[tuple[TaskState, TaskState], str] = {
    (TaskState.PENDING, TaskState.QUEUED): "DISPATCH",
    (TaskState.PENDING, TaskState.CACHED): "ADOPT",
    (TaskState.QUEUED, TaskState.RUNNING): "CLAIM",
    (TaskState.QUEUED, TaskState.PENDING): "withdrawn from the queue",
    (TaskState.RUNNING, TaskState.PENDING): "REAP or GIVE_BACK",
    (TaskState.RUNNING, TaskState.TRIED): "COMMIT of a failure",
    (TaskState.TRIED, TaskState.PENDING): "verdict: again",
    (TaskState.TRIED, TaskState.FAILED): "verdict: failed",
    (TaskState.PENDING, TaskState.FAILED): "verdict: its worker was lost too often",
    (TaskState.PENDING, TaskState.SKIPPED): "a dependency failed",
    (TaskState.PENDING, TaskState.CANCELLED): "CANCEL",
    (TaskState.QUEUED, TaskState.CANCELLED): "CANCEL",
    (TaskState.RUNNING, TaskState.CANCELLED): "CANCEL",
    (TaskState.TRIED, TaskState.CANCELLED): "CANCEL",
    (TaskState.PENDING, TaskState.DONE): "COMMIT of a late success",
    (TaskState.QUEUED, TaskState.DONE): "COMMIT of a late success",
    (TaskState.RUNNING, TaskState.DONE): "COMMIT of a success",
    (TaskState.TRIED, TaskState.DONE): "COMMIT of a late success",
    (TaskState.FAILED, TaskState.PENDING): "RETRY",
    (TaskState.SKIPPED, TaskState.PENDING): "RETRY of the failed ancestor",
    (TaskState.CANCELLED, TaskState.PENDING): "RETRY",
    (TaskState.DONE, TaskState.PENDING): "INVALIDATE",
    (TaskState.CACHED, TaskState.PENDING): "INVALIDATE",
}


class RunPhase(Enum):
    """Where a run stands."""

    SUBMITTING = "submitting"
    ACTIVE = "active"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        """True once nothing more happens to the run by itself."""
        return self in (RunPhase.SUCCEEDED, RunPhase.FAILED, RunPhase.CANCELLED)
