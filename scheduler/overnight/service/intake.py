"""Translate entries of a run's event stream into events of the core. Entries are hints: any may be lost or doubled."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from overnight.core.events import (
    BatchClaimed,
    BatchLost,
    BatchReturned,
    CancelRequested,
    Event,
    PauseRequested,
    ResumeRequested,
    RetryRequested,
    TaskFailed,
    TasksInvalidated,
    TaskSucceeded,
)
from overnight.service.active_run import ActiveRun
from overnight.store.records import Happening, Request, RunEvent


def events_of(run: ActiveRun, entry: RunEvent, now: float, jitter: Callable[[], float]) -> Iterator[Event]:
    """Yield what the core is to hear of `entry`; additions and gaps are the caller's business."""
    match entry.what:
        case Happening.COMMITTED:
            yield from _committed(run, entry, now, jitter)
        case Happening.CLAIMED if entry.batch:
            run.waiting.pop(entry.batch, None)
            yield BatchClaimed(entry.batch)
        case Happening.RETURNED if entry.batch:
            run.waiting.pop(entry.batch, None)
            yield BatchReturned(entry.batch, entry.tasks)
        case Happening.REAPED if entry.batch:
            yield BatchLost(entry.batch, now, entry.begun)
        case Happening.INVALIDATED:
            run.over = None
            yield TasksInvalidated(entry.tasks)
        case Happening.REQUESTED if entry.request:
            yield _requested(run, entry.request, entry)
        case _:
            return


def _committed(run: ActiveRun, entry: RunEvent, now: float, jitter: Callable[[], float]) -> Iterator[Event]:
    for report in entry.reports:
        if report.ok:
            run.note_digest(report.task, report.digest)
            yield TaskSucceeded(report.task, report.seconds)
        else:
            yield TaskFailed(report.task, entry.batch or "", now, report.hopeless, jitter(), report.lost)


def _requested(run: ActiveRun, request: Request, entry: RunEvent) -> Event:
    match request:
        case Request.CANCEL:
            return CancelRequested()
        case Request.PAUSE:
            return PauseRequested()
        case Request.RESUME:
            return ResumeRequested()
        case Request.RETRY:
            run.over = None
            return RetryRequested(entry.tasks)


def by_run(entries: list[RunEvent]) -> dict[str, list[RunEvent]]:
    """Return entries by the run that they are of, each run's in order."""
    groups: dict[str, list[RunEvent]] = {}
    for entry in entries:
        groups.setdefault(entry.run_id, []).append(entry)
    return groups


def jitter() -> float:
    """Return the factor that spreads a retry."""
    return random.uniform(0.5, 1.5)  # noqa: S311  # spreads retries; nothing is guarded by it
