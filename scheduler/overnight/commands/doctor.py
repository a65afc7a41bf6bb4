"""`overnight doctor`: whether runs can work here, and what to do where they cannot."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from overnight.commands.options import json_option, server_options, settings_of, verb

if TYPE_CHECKING:
    from overnight.config import Settings
    from overnight.store.records import EpochHeld, Quarantine, RunRecord, WorkerRecord
    from overnight.store.redis import RedisStore

OK, WARNING, FAULT = "ok", "warning", "fault"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `status` is what the command exits with if it is a fault."""

    what: str
    verdict: str
    text: str
    status: int = 0


@verb("doctor", "overnight doctor -u redis://host:6379/0")
@server_options
@json_option
def command(*, redis_url: str | None, state_dir: str | None, as_json: bool) -> int:
    """Look at settings, server, keys, directories and workers; say what to do where something is wrong."""
    from overnight.commands.facts import tell
    from overnight.commands.screen import say

    findings = list(examine_all(settings_of(redis_url, state_dir)))
    if as_json:
        tell("doctor", {"findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            say(f"{finding.verdict:<8} {finding.what}: {finding.text}")
    return max((finding.status for finding in findings if finding.verdict == FAULT), default=0)


def examine_all(settings: Settings) -> Iterator[Finding]:
    """Yield what was found, the cause of a fault before what follows from it."""
    yield _versions()
    yield _guarded("state directory", lambda: _state_dir(settings))
    yield _guarded("key", lambda: _key(settings))
    if settings.redis_url is None:
        yield _guarded("server program", _server_program)
    yield from _server(settings)


def _guarded(what: str, look: Callable[[], Finding]) -> Finding:
    from overnight.errors import OvernightError

    try:
        return look()
    except OvernightError as error:
        return Finding(what, FAULT, str(error), error.exit_status)


def _versions() -> Finding:
    from importlib.metadata import version

    from overnight.wire import PROTOCOL

    python = ".".join(map(str, sys.version_info[:3]))
    names = ", ".join(f"{name} {version(name)}" for name in ("redis", "rq", "cloudpickle"))
    return Finding("versions", OK, f"overnight {version('overnight')}, protocol {PROTOCOL}, Python {python}, {names}")


def _state_dir(settings: Settings) -> Finding:
    from overnight.naming import shown
    from overnight.state_dir import prepare_state_dir

    place = settings.state_dir.expanduser().absolute()
    if not place.exists():
        near = next(parent for parent in place.parents if parent.exists())
        if os.access(near, os.W_OK | os.X_OK):
            return Finding("state directory", OK, f"{shown(str(place))} is made by the first run")
        return Finding("state directory", FAULT, f"{shown(str(near))} cannot be written to: give --state-dir", 4)
    prepare_state_dir(place)
    if not os.access(place, os.W_OK | os.X_OK):
        return Finding("state directory", FAULT, f"{shown(str(place))} cannot be written to: give --state-dir", 4)
    return Finding("state directory", OK, shown(str(place)))


def _key(settings: Settings) -> Finding:
    from overnight.keyring import COMMAND_THAT_MAKES_A_KEY, KEY_VARIABLE, read_keyring
    from overnight.store.server_check import is_remote

    keyring = read_keyring()
    if not keyring.is_empty:
        return Finding("key", OK, f"records are signed with key {keyring.signing_id}")
    if settings.redis_url is not None and is_remote(settings.redis_url):
        text = (
            f"a server beyond this host needs one: set {KEY_VARIABLE} to what this prints: {COMMAND_THAT_MAKES_A_KEY}"
        )
        return Finding("key", FAULT, text, 2)
    return Finding("key", OK, "none is set; records carry checksums, which does for a server on this host")


def _server_program() -> Finding:
    from overnight.server_binary import find_server_binary

    found = find_server_binary()
    return Finding("server program", OK, f"{found.kind} {'.'.join(map(str, found.version))} at {found.path}")


def _server(settings: Settings) -> Iterator[Finding]:
    from overnight.embedded import EmbeddedServer
    from overnight.errors import OvernightError
    from overnight.store.connection import connect, hidden
    from overnight.store.server_check import examine

    url = settings.redis_url
    if url is None:
        server = EmbeddedServer(settings.state_dir)
        if not settings.state_dir.exists() or not server.is_present():
            yield Finding("server", OK, "the embedded one is not running; it starts with a run")
            return
        url = server.url
    try:
        client = connect(url, settings=settings)
        report = examine(client, url)
    except OvernightError as error:
        yield Finding("server", FAULT, str(error), error.exit_status)
        return
    yield Finding("server", OK, f"{report.version} answers at {hidden(url)}")
    for refusal in report.refusals:
        yield Finding("server", FAULT, refusal, 5)
    for warning in report.warnings:
        yield Finding("server", WARNING, warning)
    from overnight.store.redis import RedisStore

    store = RedisStore(client, settings.prefix)
    yield _scheduler(store.scheduler(), settings)
    yield from _workers(store.workers(), settings)
    for quarantine in store.quarantines():
        yield _quarantine(quarantine)
    yield from _runs(store, settings)
    client.close()


def _runs(store: RedisStore, settings: Settings) -> Iterator[Finding]:
    """Yield what each active run waits for: what its scheduler says of it, or workers on one of its queues."""
    from overnight.naming import shown
    from overnight.worker_watch import lack_of_workers

    workers = store.workers()
    for run in [run for run in store.runs() if not run.phase.is_over]:
        said = [run.note] if run.note else []
        for queue in sorted(_queues(store, run)):
            lack = lack_of_workers(workers, run.run_id, queue, settings, run.python)
            said += [lack] if lack is not None else []
        for sentence in said:
            yield Finding(f"run {run.run_id}", WARNING, shown(sentence))


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


def _scheduler(held: EpochHeld | None, settings: Settings) -> Finding:
    """Tell which scheduler dispatches."""
    from overnight.hints import hint
    from overnight.naming import shown

    start = hint(settings, "scheduler")
    if held is None:
        return Finding("scheduler", WARNING, f"there is none; runs wait until one is started: {start}")
    return Finding("scheduler", OK, f"{shown(held.description.split(' ')[0])} dispatches")


def _quarantine(found: Quarantine) -> Finding:
    """Tell of a host that takes no work."""
    from overnight.commands.screen import duration
    from overnight.naming import shown

    host, left = shown(found.host), duration(found.seconds)
    text = (
        f"{host} takes no work for {left} more: {len(found.tasks)} tasks died on it that then succeeded elsewhere. "
        f"Look at its memory and disks, then: overnight workers --release {host}"
    )
    return Finding("host in quarantine", WARNING, text)


def _workers(workers: Sequence[WorkerRecord], settings: Settings) -> Iterator[Finding]:
    """Yield what serves each queue, and whether that fits runs that are started with this Python."""
    from overnight.hints import hint
    from overnight.naming import shown
    from overnight.wire import PROTOCOL

    if not workers:
        start = hint(settings, "worker", "-j", "4")
        yield Finding("workers", WARNING, f"there are none; runs wait until one is started: {start}")
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    for queue in sorted({queue for worker in workers for queue in worker.queues}):
        serving = [worker for worker in workers if queue in worker.queues]
        kinds = sorted({f"Python {worker.python}, protocol {worker.protocol}" for worker in serving})
        text = f"{len(serving)} on queue {shown(queue)} ({shown('; '.join(kinds))})"
        if any(worker.python.startswith(f"{here}.") and worker.protocol == PROTOCOL for worker in serving):
            yield Finding("workers", OK, text)
        else:
            yield Finding("workers", WARNING, f"{text}; none has Python {here} and protocol {PROTOCOL}: runs wait")
