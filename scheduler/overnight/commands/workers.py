"""`overnight workers`, `overnight workers --wanted TIME` and `overnight workers --release HOST`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from overnight.commands.opening import open_to_read
from overnight.commands.options import json_option, server_options, verb

if TYPE_CHECKING:
    from overnight.client import Client
    from overnight.config import Settings
    from overnight.store.ports import ReadingStore
    from overnight.store.records import WorkerRecord

_BRINGS_ITS_OWN = "On this private server 'overnight run' brings its own, which end some time after it."


@verb("workers", "overnight workers -u redis://host:6379/0", "overnight workers --wanted 30min")
@server_options
@json_option
@click.option("--release", "released", metavar="HOST", help="End the quarantine of a host: it takes work again.")
@click.option(
    "--wanted",
    is_flag=False,
    flag_value="10min",
    metavar="[TIME]",
    help="Print how many workers would empty the ready work within this time (10min).",
)
@click.option("-q", "--queue", "queues", multiple=True, help="With --wanted: count only this queue; repeatable.")
def command(
    *,
    settings: Settings,
    as_json: bool,
    released: str | None,
    wanted: str | None,
    queues: Sequence[str],
) -> None:
    """List the workers that are there, what each is doing, and the hosts that take no work.

    A host on which tasks died that then succeeded elsewhere is in quarantine for a while: other hosts do its work.
    --wanted prints a number alone, for scripts that start workers: what could run now, by how long it is known to take.
    """
    from overnight.client import Client
    from overnight.commands.quarantine import release
    from overnight.commands.wanted import print_wanted

    if released is not None and wanted is not None:
        raise click.UsageError("--release ends a quarantine, --wanted prints a number: give one of them.")
    if queues and wanted is None:
        raise click.UsageError("-q belongs to --wanted: the list has the workers of all queues.")
    with open_to_read(settings) as deployment:
        client = Client.of(deployment)
        if released is not None:
            release(deployment.store, released, as_json=as_json)
            return
        if wanted is not None:
            print_wanted(client, wanted, queues, as_json=as_json)
            return
        _list(client, as_json=as_json)


def _list(client: Client, *, as_json: bool) -> None:
    from overnight.commands.facts import tell
    from overnight.commands.quarantine import as_fact, lines
    from overnight.commands.screen import say, table
    from overnight.failing_slots import failures_of_workers
    from overnight.hints import hint

    store, settings = client.deployment.store, client.deployment.settings
    told, now = store.workers(), store.now()
    workers, ended = as_of_now(store, told)
    ids = {worker.instance: _task_id(client, worker) for worker in workers}
    claimed = _claimed(client, workers)
    kept_apart = {one.host: as_fact(client, one) for one in store.quarantines()}
    if as_json:
        facts = [{**asdict(worker), "quarantine": kept_apart.get(worker.host)} for worker in workers]
        tell("workers", {"workers": [{**fact, "task_id": ids[fact["instance"]]} for fact in facts]})
        return
    for line in lines(kept_apart):
        say(line)
    failing = failures_of_workers(settings)
    for sentence in failing:
        say(f"{sentence}.")
    if not workers:
        start = f"Start some: {hint(settings, 'worker', '-j', '4')}"
        advice = _BRINGS_ITS_OWN if settings.redis_url is None else start
        say("There are no workers." if failing else f"There are no workers. {advice}")
        return
    titles = ["HOST", "PID", "QUEUES", "VERSIONS", "UP", "SEEN", "MEMORY", "DOING"]
    rows = []
    for worker in workers:
        has_ended = worker.instance in ended
        rows.append(_row(worker, ids[worker.instance], now, is_news=not claimed, has_ended=has_ended))
    table(titles, rows)
    for run_id, number in claimed.items():
        say(f"They hold {number} task{'' if number == 1 else 's'} of run {run_id} that none of them names yet.")


def as_of_now(store: ReadingStore, told: Sequence[WorkerRecord]) -> tuple[list[WorkerRecord], set[str]]:
    """Return the workers without what they said that they run and no worker holds any more, and which those are.

    They say every few seconds what they run; states of tasks are known at once.
    """
    held = {run_id: _held(store, run_id) for run_id in {worker.run_id for worker in told} if run_id is not None}
    ended = {
        worker.instance
        for worker in told
        if worker.run_id is not None
        and (not held[worker.run_id] if worker.task is None else worker.task not in held[worker.run_id])
    }
    now = [replace(one, run_id=None, task=None, task_since=None) if one.instance in ended else one for one in told]
    return now, ended


def _held(store: ReadingStore, run_id: str) -> set[int]:
    """Return the tasks of a run that workers hold; none of one that is gone or damaged."""
    from overnight.core.states import TaskState
    from overnight.errors import DamagedRun, UnknownRun

    try:
        codes = store.states(run_id)[::2]
    except (UnknownRun, DamagedRun):
        return set()
    return {task for task, code in enumerate(codes) if code == TaskState.RUNNING}


def _task_id(client: Client, worker: WorkerRecord) -> str | None:
    """Return the id of the task that a worker has said it runs; None if there is none, or its run cannot be read."""
    if worker.run_id is None or worker.task is None:
        return None
    from overnight.errors import BadSeal, UnknownRun

    try:
        return client.structure(worker.run_id).task_id(worker.task)
    except (UnknownRun, BadSeal, IndexError):
        return None


def _claimed(client: Client, workers: Sequence[WorkerRecord]) -> dict[str, int]:
    """Return by active run how many tasks workers hold that no worker has named."""
    from contextlib import suppress

    from overnight.commands.activity import held_tasks
    from overnight.errors import UnknownRun

    numbers: dict[str, int] = {}
    for run in client.runs():
        if not run.phase.is_over:
            with suppress(UnknownRun):  # it was forgotten meanwhile
                codes = client.deployment.store.states(run.run_id)[::2]
                numbers[run.run_id] = sum(held.worker is None for held in held_tasks(run.run_id, codes, workers))
    return {run_id: number for run_id, number in numbers.items() if number}


def _row(worker: WorkerRecord, task_id: str | None, now: float, *, is_news: bool, has_ended: bool) -> list[str]:
    from overnight.commands.screen import duration
    from overnight.naming import shown

    return [
        shown(worker.host),
        shown(str(worker.pid)),
        shown(",".join(worker.queues)),
        shown(f"{worker.overnight or '?'} on {worker.python}"),
        duration(worker.seconds_since(worker.started_at, now)),
        f"{duration(now - worker.seen_at)} ago",
        f"{worker.memory / 1e6:.0f} MB" if worker.memory else "-",
        shown(_doing(worker, task_id, now, is_news=is_news, has_ended=has_ended)),
    ]


def _doing(worker: WorkerRecord, task_id: str | None, now: float, *, is_news: bool, has_ended: bool) -> str:
    """Say what a worker does; `is_news` False: that it waits may have changed since it said so; `has_ended`: what it
    said that it runs has ended since."""
    from overnight.commands.screen import duration

    words = ["draining"] if worker.draining else []
    seen = f"{duration(now - worker.seen_at)} ago"
    if worker.run_id is not None:
        age = f" for {duration(worker.seconds_since(worker.task_since, now))}" if worker.task_since else ""
        words.append(f"{task_id} (run {worker.run_id}){age}" if task_id is not None else f"run {worker.run_id}")
    elif has_ended:
        words.append(f"seen {seen} with a task that has ended since")
    words += [worker.note] if worker.note else []
    return ", ".join(words) or ("waiting" if is_news else f"waiting as of {seen}")
