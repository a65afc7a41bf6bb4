"""The ports of the store, one for each role. Verbs of the domain; every step that writes may be repeated safely.

All methods raise `errors.Unreachable` when the server cannot be reached or used (its outcome is then unknown, so the
caller repeats it with the same identity), `errors.UnknownRun` when the run is gone. Methods with an epoch raise
`errors.Fenced` when it is no longer current. A method that must be refused when memory is full (SUBMIT, DISPATCH)
raises `errors.StoreFull` and has changed nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from overnight.core.events import Flight
from overnight.core.states import RunPhase
from overnight.store.records import (
    Addition,
    Adopted,
    Batch,
    Claim,
    ClaimRefused,
    CommitReply,
    Epoch,
    EpochHeld,
    LeaseReply,
    Opened,
    Quarantine,
    Reaped,
    Report,
    Request,
    RunEvent,
    RunRecord,
    RunSnapshot,
    TaskView,
    Verdict,
    WorkerRecord,
)


class SubmittingStore(Protocol):
    """What a client needs to put a run in place and to steer it."""

    def open_run(self, run: RunRecord, context: bytes) -> Opened:
        """SUBMIT: make the run in phase SUBMITTING; or find the active run with the same `key` (ATTACHED), or the
        active run that uses the same `place` (BUSY). Idempotent by run id."""

    def put_blobs(self, run_id: str, blobs: Mapping[str, bytes]) -> None:
        """Store sealed functions and shared arguments by the hex digest of their bytes; present ones are kept."""

    def missing_blobs(self, run_id: str, digests: Sequence[str]) -> list[str]:
        """Return those of `digests` that the run does not hold yet."""

    def add_tasks(self, run_id: str, addition: Addition) -> None:
        """Add tasks; the same ones at `first` once more change nothing. A run that had ended becomes active again.

        Raises AddedMeanwhile if the run holds others there, does not reach there, or another client adds to it now."""

    def activate(self, run_id: str, tasks: int = 0) -> None:
        """Submission is complete: P1 holds from here on. (Tasks are dispatched from their addition on.)

        Raises UnknownRun if the server holds less than `tasks` tasks of it: it has lost some that had been added."""

    def adopt(self, run_id: str, adopted: Mapping[int, Adopted]) -> list[int]:
        """ADOPT: PENDING tasks become CACHED. Return those that did."""

    def rewrite_result(self, run_id: str, task: int, record: bytes, digest: bytes) -> bool:
        """Replace where a result lies (sealed `StoredResult` of the same digest). False if the digest differs."""

    def invalidate(self, run_id: str, tasks: Sequence[int]) -> list[int]:
        """INVALIDATE: finished tasks (the caller names descendants too) become PENDING. Return those that did.
        A run that had ended becomes active again."""

    def request(self, run_id: str, request: Request, tasks: Sequence[int] = ()) -> None:
        """Record a request on the run and tell its followers: CANCEL and PAUSE take effect in CLAIM, COMMIT and
        HEARTBEAT at once."""

    def mend(self, run_id: str, tasks: Sequence[int]) -> None:
        """RETRY of tasks that failed for want of an input: as that request, but a run that was cancelled stays so."""

    def release(self, host: str) -> bool:
        """RELEASE: end the quarantine of a host and forget what was held against it. False if nothing was."""


class SchedulingStore(Protocol):
    """What the scheduler needs."""

    def take_epoch(self, holder: str, description: str, seconds: float) -> Epoch | EpochHeld:
        """Take the scheduler lease if it is free, run out or `holder`'s own; also the way to renew it."""

    def leave_epoch(self, epoch: Epoch) -> None:
        """Give the lease up, so that a standby takes over at once."""

    def active_runs(self) -> list[str]:
        """Return the ids of all runs that are not over, oldest first."""

    def run(self, run_id: str) -> RunRecord:
        """Return one run."""

    def load_run(self, run_id: str) -> RunSnapshot:
        """Read all that is needed to take the run over."""

    def read_specs(self, run_id: str, first: int) -> list[bytes]:
        """Return the sealed chunks from task index `first` on."""

    def read_digests(self, run_id: str, tasks: Iterable[int]) -> list[bytes]:
        """Return the digests of the tasks' results in the given order (zeros: none)."""

    def dispatch(
        self, epoch: Epoch, run_id: str, batches: Sequence[Batch], invalidations: int | None = None
    ) -> list[bool]:
        """DISPATCH: PENDING tasks become QUEUED under their batch. A batch is refused whole if one of its tasks is
        not PENDING or its attempt is not the next one (a repeat of an accepted batch is accepted); all are, if results
        of the run were invalidated more or less often than `invalidations`: lineages may be of what is gone."""

    def repair(
        self, epoch: Epoch, run_id: str, lost: Sequence[int], tasks: Sequence[int], invalidations: int
    ) -> int | None:
        """INVALIDATE `tasks`, and count for those of them that are `lost` that they are computed again. Return how
        often results of the run were invalidated by now; None, and what is left of `tasks` stays as it is, if it was
        not `invalidations` times before, or the run is cancelled or over: what was held to be lost may not be."""

    def withdraw(self, epoch: Epoch, run_id: str, batches: Sequence[str]) -> list[str]:
        """Take back batches that no worker holds: their tasks become PENDING, attempts uncharged. Return those
        withdrawn, each told to followers as RETURNED."""

    def settle(self, epoch: Epoch, run_id: str, verdicts: Sequence[Verdict]) -> None:
        """Record verdicts. A verdict on a task that meanwhile is DONE or CACHED changes nothing."""

    def finish(self, epoch: Epoch, run_id: str, phase: RunPhase) -> bool:
        """End the run if every task is terminal: it leaves the active runs and its keys expire. False if not."""

    def abandon(self, epoch: Epoch, run_id: str) -> bool:
        """ABANDON: end a cancelled run whose tasks cannot all be made terminal, as what is stored of it is damaged.
        False if it is not cancelled."""

    def note(self, epoch: Epoch, run_id: str, text: str) -> None:
        """NOTE: keep with the run what its scheduler has to say to people; an empty text takes the note away."""

    def reap(self, epoch: Epoch, most: int = 100) -> list[Reaped]:
        """REAP: take back batches whose lease has run out by the server's clock, read again inside the script."""

    def wait(self, cursors: Mapping[str, str], seconds: float) -> tuple[list[RunEvent], bool]:
        """Wait until any of these runs has events after its cursor, or the set of active runs changed (second value
        True), or `seconds` passed."""

    def read_results(self, run_id: str, tasks: Iterable[int]) -> dict[int, bytes]:
        """Return sealed results by task; missing ones are left out."""

    def restore_digests(self, run_id: str, digests: Mapping[int, bytes]) -> None:
        """RESTORE: put digests back that the server has lost of finished tasks; of others, and known ones, nothing
        changes."""

    def states(self, run_id: str) -> bytes:
        """Return the state string: two bytes a task."""

    def now(self) -> float:
        """Return the server's clock in seconds since the epoch."""

    def workers(self) -> list[WorkerRecord]:
        """Return the workers whose registration is alive."""

    def read_tail(self, instance: str) -> bytes:
        """Return the sealed last lines of the task that a worker runs, as far as it has told them; empty for none."""

    def read_durations(self) -> dict[str, tuple[float, int]]:
        """Return learned durations by function name: seconds and number of observations."""

    def write_durations(self, durations: Mapping[str, tuple[float, int]]) -> None:
        """Store learned durations."""

    def accuse(self, host: str, run_id: str, task: int, seconds: float) -> tuple[int, float]:
        """ACCUSE: hold against a host that a task died there and succeeded elsewhere. With enough of them it is in
        quarantine for `seconds`. Return how many tasks are held against it, and how long its quarantine still lasts."""


class WorkingStore(Protocol):
    """What a worker needs."""

    def run(self, run_id: str) -> RunRecord:
        """Return one run: a worker that does not fit its Python or protocol never claims."""

    def register(self, worker: WorkerRecord, seconds: float) -> None:
        """Announce the worker for `seconds`."""

    def heartbeat(
        self, worker: WorkerRecord, seconds: float, leases: Sequence[tuple[str, str]], tail: bytes | None = None
    ) -> list[LeaseReply]:
        """HEARTBEAT: renew registration and leases (run id, batch); one reply per lease.

        `tail` holds the sealed last lines of the task that the worker runs, empty for none; None leaves them as they
        are. They go with the registration."""

    def unregister(self, instance: str) -> None:
        """Forget the worker."""

    def barred(self, instance: str) -> list[str]:
        """Return the queues from which this registered worker takes nothing: its host is in quarantine, and a worker
        of its kind on another host serves them."""

    def claim(self, run_id: str, batch: str, instance: str, sequence: int, seconds: float) -> Claim | ClaimRefused:
        """CLAIM: take the batch under a lease of `seconds`. The same instance and sequence number get the same
        answer again."""

    def commit(self, run_id: str, batch: str, instance: str, reports: Sequence[Report], seconds: float) -> CommitReply:
        """COMMIT: record outcomes and renew the lease. When no task of the batch is left, the lease ends."""

    def give_back(self, run_id: str, batch: str, instance: str, tasks: Sequence[int]) -> None:
        """GIVE_BACK: tasks of the batch that have not started become PENDING, attempts uncharged."""

    def read_blobs(self, run_id: str, digests: Sequence[str]) -> dict[str, bytes]:
        """Return sealed blobs by digest; missing ones are left out."""

    def read_results(self, run_id: str, tasks: Iterable[int]) -> dict[int, bytes]:
        """Return sealed results by task; missing ones are left out."""

    def read_digests(self, run_id: str, tasks: Iterable[int]) -> list[bytes]:
        """Return the digests of the tasks' results in the given order (zeros: none)."""

    def put_blobs(self, run_id: str, blobs: Mapping[str, bytes]) -> None:
        """Store sealed blobs, such as a result that goes by reference to Redis itself."""


class ReadingStore(Protocol):
    """What people's commands and followers need. Nothing here changes anything."""

    def runs(self) -> list[RunRecord]:
        """Return all runs that are kept, newest first."""

    def run(self, run_id: str) -> RunRecord:
        """Return one run."""

    def states(self, run_id: str) -> bytes:
        """Return the state string: two bytes a task."""

    def specs(self, run_id: str) -> list[bytes]:
        """Return all sealed chunks in order."""

    def tasks(self, run_id: str, tasks: Sequence[int]) -> list[TaskView]:
        """Return what is known of these tasks."""

    def follow(self, run_id: str, cursor: str, seconds: float) -> list[RunEvent]:
        """Return events after `cursor` ("0": from the first kept one), waiting up to `seconds` for one."""

    def read_results(self, run_id: str, tasks: Iterable[int]) -> dict[int, bytes]:
        """Return sealed results by task; missing ones are left out."""

    def read_digests(self, run_id: str, tasks: Iterable[int]) -> list[bytes]:
        """Return the digests of the tasks' results in the given order (zeros: none)."""

    def read_blobs(self, run_id: str, digests: Sequence[str]) -> dict[str, bytes]:
        """Return sealed blobs by digest; missing ones are left out."""

    def context(self, run_id: str) -> bytes:
        """Return the run's sealed context."""

    def flights(self, run_id: str) -> list[Flight]:
        """Return the batches of a run that are on a queue or held by a worker, with their tasks in flight."""

    def read_durations(self) -> dict[str, tuple[float, int]]:
        """Return learned durations by function name: seconds and number of observations."""

    def scheduler(self) -> EpochHeld | None:
        """Return who holds the right to dispatch, None if no scheduler does."""

    def workers(self) -> list[WorkerRecord]:
        """Return the workers whose registration is alive."""

    def read_tail(self, instance: str) -> bytes:
        """Return the sealed last lines of the task that a worker runs, as far as it has told them; empty for none."""

    def read_facts(self, run_id: str, tasks: Sequence[int]) -> dict[int, bytes]:
        """Return the facts of the tasks' last accepted reports, as JSON; missing ones are left out."""

    def read_errors(self, run_id: str, tasks: Sequence[int]) -> dict[int, bytes]:
        """Return the sealed errors of the tasks' last failures; missing ones are left out."""

    def read_causes(self, run_id: str, tasks: Sequence[int]) -> dict[int, int]:
        """Return for skipped tasks the failed ancestor; others are left out."""

    def read_certificates(self, run_id: str, tasks: Sequence[int]) -> dict[int, list[bytes]]:
        """Return the sealed death certificates of the tasks' latest failed attempts, in no order."""

    def quarantines(self) -> list[Quarantine]:
        """Return the hosts in quarantine."""
