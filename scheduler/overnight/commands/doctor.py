"""`overnight doctor`: whatever would spoil a night, and for each what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import click

from overnight.commands.options import json_option, server_options, verb

if TYPE_CHECKING:
    import redis

    from overnight.commands.findings import Finding
    from overnight.config import Settings


@verb("doctor", "overnight doctor -u redis://host:6379/0", "overnight doctor -q big -d /shared/records")
@click.option("-q", "--queue", "queues", multiple=True, help="A queue that must be served: 'default' if none is given.")
@click.option(
    "-d",
    "--directory",
    "directories",
    multiple=True,
    metavar="DIR",
    help="A directory that workers must be able to write to: a short run tries it on each of them.",
)
@server_options
@json_option
def command(
    *,
    settings: Settings,
    as_json: bool,
    queues: Sequence[str],
    directories: Sequence[str],
) -> int:
    """Look at settings, server, keys, clocks, directories and workers; say what to do where something is wrong.

    A fault keeps runs from starting or going on, and makes the exit status; with warnings and notes alone it is 0.
    """
    from overnight.commands.facts import tell
    from overnight.commands.findings import FAULT
    from overnight.commands.screen import say

    for option, names in (("-q", queues), ("-d", directories)):
        if not all(name.strip() for name in names):
            raise click.UsageError(f"{option}: expected a name, found an empty one.")
    findings = list(examine_all(settings, queues or ("default",), directories))
    if as_json:
        tell("doctor", {"findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            say(f"{finding.verdict:<8} {finding.what}: {finding.text}")
    return max((finding.status for finding in findings if finding.verdict == FAULT), default=0)


def examine_all(settings: Settings, queues: Sequence[str], directories: Sequence[str]) -> Iterator[Finding]:
    """Yield what was found, the cause of a fault before what follows from it."""
    from overnight.commands import local_findings as local
    from overnight.commands.findings import all_guarded, guarded

    yield local.versions()
    yield guarded("state directory", lambda: local.state_directory(settings))
    yield guarded("disk", lambda: local.disk(settings))
    yield guarded("key", lambda: local.key(settings))
    if settings.redis_url is None:
        yield guarded("server program", local.server_program)
    yield from all_guarded("server", lambda: _server(settings, queues, directories))


def _server(settings: Settings, queues: Sequence[str], directories: Sequence[str]) -> Iterator[Finding]:
    from overnight.commands.findings import NOTE, Finding
    from overnight.commands.server_findings import server
    from overnight.embedded import EmbeddedServer
    from overnight.hints import hint
    from overnight.store.connection import connect

    url = settings.redis_url
    if url is None:
        embedded = EmbeddedServer(settings.state_dir)
        if not settings.state_dir.exists() or not embedded.is_present():
            yield from _before_a_run(settings, queues, directories)
            return
        url = embedded.url
    with connect(url, settings=settings) as client:
        yield from server(client, url)
        yield from _deployment(client, settings, queues)
    if directories:
        yield from _directories(settings, url, directories, queues)
    elif settings.redis_url is not None:
        again = hint(settings, "doctor", "-d", "DIR")
        yield Finding("directories", NOTE, f"not tried from the workers; this tries one on each of them: {again}")


def _before_a_run(settings: Settings, queues: Sequence[str], directories: Sequence[str]) -> Iterator[Finding]:
    """Yield what can be told while the embedded server, and so each local worker, is not there."""
    from overnight.commands.findings import NOTE, OK, WARNING, Finding, guarded
    from overnight.commands.local_findings import directory
    from overnight.config import DEFAULT_QUEUE
    from overnight.failing_slots import failures_of_workers
    from overnight.hints import hint
    from overnight.naming import shown

    yield Finding("server", OK, "the embedded one is not running; it starts with a run")
    for sentence in failures_of_workers(settings):
        yield Finding("workers", WARNING, sentence)
    for place in directories:
        yield guarded("directory", partial(directory, place))
    for queue in [queue for queue in queues if queue != DEFAULT_QUEUE]:
        start = hint(settings, "worker", "-q", queue)
        text = f"no worker serves {shown(queue)} now; a run on it starts its own, other runs need this: {start}"
        yield Finding("queue", NOTE, text)


def _deployment(client: redis.Redis, settings: Settings, queues: Sequence[str]) -> Iterator[Finding]:
    from overnight.commands import worker_findings as at_work
    from overnight.commands.server_findings import clock_and_answer, keys
    from overnight.keyring import read_keyring
    from overnight.store.redis import RedisStore

    store = RedisStore(client, settings.prefix)
    yield from keys(store)
    yield from clock_and_answer(store)
    yield at_work.scheduler(store.scheduler(), settings)
    workers = store.workers()
    yield from at_work.workers(workers, settings)
    yield from at_work.queues(queues, workers, settings)
    yield from at_work.hosts(workers, read_keyring())
    for quarantine in store.quarantines():
        yield at_work.quarantine(quarantine)
    yield from at_work.runs(store, workers, settings)


def _directories(settings: Settings, url: str, wanted: Sequence[str], queues: Sequence[str]) -> Iterator[Finding]:
    from overnight.client import Client
    from overnight.commands.directory_findings import directories

    with Client(url, state_dir=settings.state_dir) as client:
        yield from directories(client, wanted, queues)
