"""What `doctor` finds of the scheduler, the workers and the runs that wait for them."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from overnight.commands.findings import FAULT, OK, WARNING, Finding
from overnight.commands.server_findings import MOST_SKEW_SECONDS, clock
from overnight.failing_slots import failing_scheduler, failures_of_workers
from overnight.hints import hint
from overnight.naming import shown

if TYPE_CHECKING:
    from overnight.config import Settings
    from overnight.keyring import Keyring
    from overnight.store.records import EpochHeld, Quarantine, RunRecord, WorkerRecord
    from overnight.store.redis import RedisStore


def scheduler(held: EpochHeld | None, settings: Settings) -> Finding:
    """Tell which scheduler dispatches."""
    failing = failing_scheduler(settings)
    if held is None and failing is not None:
        return Finding("scheduler", FAULT, failing.sentence(), 4)
    if held is None:
        start = hint(settings, "scheduler")
        return Finding("scheduler", WARNING, f"there is none; runs wait until one is started: {start}")
    return Finding("scheduler", OK, f"{shown(held.description.split(' ')[0])} dispatches")


def workers(found: Sequence[WorkerRecord], settings: Settings) -> Iterator[Finding]:
    """Yield what serves each queue, and whether that fits runs that are started with this Python."""
    from overnight.wire import PROTOCOL

    failing = failures_of_workers(settings)
    for sentence in failing:
        yield Finding("workers", WARNING if found else FAULT, sentence, 4)
    if not found and not failing:
        start = hint(settings, "worker", "-j", "4")
        yield Finding("workers", WARNING, f"there are none; runs wait until one is started: {start}")
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    for queue in sorted({queue for worker in found for queue in worker.queues}):
        serving = [worker for worker in found if queue in worker.queues]
        kinds = sorted({f"Python {worker.python}, protocol {worker.protocol}" for worker in serving})
        text = f"{len(serving)} on queue {shown(queue)} ({shown('; '.join(kinds))})"
        if any(worker.python.startswith(f"{here}.") and worker.protocol == PROTOCOL for worker in serving):
            yield Finding("workers", OK, text)
        else:
            yield Finding("workers", WARNING, f"{text}; none has Python {here} and protocol {PROTOCOL}: runs wait")


def queues(wanted: Sequence[str], found: Sequence[WorkerRecord], settings: Settings) -> Iterator[Finding]:
    """Yield the wanted queues that nobody serves; without any worker that has been said already."""
    for queue in wanted if found else ():
        if not any(queue in worker.queues for worker in found):
            start = hint(settings, "worker", "-q", queue)
            yield Finding("queue", WARNING, f"no worker serves {shown(queue)}; its tasks wait. Start one: {start}")


def hosts(found: Sequence[WorkerRecord], keyring: Keyring) -> Iterator[Finding]:
    """Yield the hosts of workers whose clock, version or key is another than it should be."""
    by_host: dict[str, list[WorkerRecord]] = defaultdict(list)
    for worker in found:
        by_host[worker.host].append(worker)
    here, signing = version("overnight"), "" if keyring.is_empty else keyring.signing_id
    for host, theirs in sorted(by_host.items()):
        skew = max((worker.skew for worker in theirs), key=abs)
        if abs(skew) > MOST_SKEW_SECONDS:
            yield clock(f"worker host {shown(host)}", skew)
        others = sorted({worker.overnight or "an older one" for worker in theirs} - {here})
        if others:
            text = f"host {shown(host)} runs overnight {shown(', '.join(others))}, this one {here}: update one of them"
            yield Finding("versions", WARNING, text)
        if any(worker.key != signing for worker in theirs):
            text = f"a worker on {shown(host)} signs with another key than this host: it refuses what is started here. "
            yield Finding("key", WARNING, text + "Give all processes the same OVERNIGHT_SECRET_KEY")


def quarantine(found: Quarantine) -> Finding:
    """Tell of a host that takes no work."""
    from overnight.commands.screen import duration

    host, left = shown(found.host), duration(found.seconds)
    text = (
        f"{host} takes no work for {left} more: {len(found.tasks)} tasks died on it that then succeeded elsewhere. "
        f"Look at its memory and disks, then: overnight workers --release {host}"
    )
    return Finding("host in quarantine", WARNING, text)


def runs(store: RedisStore, found: Sequence[WorkerRecord], settings: Settings) -> Iterator[Finding]:
    """Yield what each active run waits for: what its scheduler says of it, or workers on one of its queues."""
    from overnight.worker_watch import lack_of_workers

    for run in [run for run in store.runs() if not run.phase.is_over]:
        said = [shown(run.note)] if run.note else []
        for queue in sorted(_queues(store, run)):
            lack = lack_of_workers(found, run.run_id, queue, settings, run.python)
            said += [lack] if lack is not None else []
        for sentence in said:
            yield Finding(f"run {run.run_id}", WARNING, sentence)


def _queues(store: RedisStore, run: RunRecord) -> set[str]:
    """Return the queues on which a run waits; that of the run itself where its tasks cannot be read."""
    from overnight.errors import OvernightError
    from overnight.keyring import read_keyring
    from overnight.structure import Structure

    codes = store.states(run.run_id)[::2]
    try:
        return Structure(run.run_id, store.specs(run.run_id), read_keyring()).queues(run.queue, codes)
    except OvernightError:
        return {run.queue}
