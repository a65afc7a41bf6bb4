"""`overnight status [RUN [TASK]]`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from overnight.commands.options import (
    found_run,
    index_of,
    json_option,
    open_to_read,
    run_argument,
    server_options,
    settings_of,
    verb,
    verbose_option,
)

if TYPE_CHECKING:
    from overnight.client import Client
    from overnight.commands.ending import Ending
    from overnight.store.records import RunRecord, WorkerRecord


@verb("status", "overnight status last", 'overnight status last "count json/decoder.py"')
@run_argument
@click.argument("task", required=False)
@server_options
@json_option
@verbose_option
def command(
    *, run: str, task: str | None, redis_url: str | None, state_dir: str | None, as_json: bool, verbosity: int
) -> None:
    """Show where a run stands, or one TASK of it.

    RUN is an id, a unique beginning of one, or 'last'.
    """
    from overnight.client import Client

    with open_to_read(settings_of(redis_url, state_dir)) as deployment:
        client = Client.of(deployment)
        record = found_run(client, run)
        if task is not None:
            _show_task(client, record, task, as_json=as_json)
        else:
            _show_run(client, record, as_json=as_json, verbose=verbosity > 0)


def _show_run(client: Client, run: RunRecord, *, as_json: bool, verbose: bool) -> None:
    from overnight.commands.ending import MOST_FAILED, read_ending
    from overnight.commands.screen import duration, say
    from overnight.core.states import TaskState
    from overnight.naming import shown

    deployment = client.deployment
    ids = client.task_ids(run.run_id)
    ending = read_ending(deployment, run.run_id, ids, len(ids) if as_json else MOST_FAILED)
    codes = deployment.store.states(run.run_id)[::2]
    working = [
        worker
        for worker in deployment.store.workers()
        if worker.run_id == run.run_id and worker.task is not None and codes[worker.task] == TaskState.RUNNING
    ]
    if as_json:
        running = [_running_fact(worker, ids, ending.now) for worker in working]
        say(json.dumps({**ending.as_json(), "running": running, "rate": _rate(ending)}))
        return
    for line in [*_heading(ending), *ending.lines(verbose=verbose)[1:]]:
        say(line)
    for worker in working:
        age = duration(ending.now - (worker.task_since or ending.now))
        say(f"  running: {shown(ids[worker.task or 0])} for {age} on {shown(worker.host)}, process {worker.pid}")


def _heading(ending: Ending) -> list[str]:
    from overnight.commands.progress import counts_text
    from overnight.commands.screen import duration, moment
    from overnight.core.states import TERMINAL, TaskState
    from overnight.naming import shown

    run, counts = ending.run, ending.counts
    ended = sum(number for state, number in counts.items() if state in TERMINAL)
    phase = f"{run.phase.value}, paused" if run.paused and not run.phase.is_over else run.phase.value
    rate = _rate(ending)
    pace = f", {rate:.1f} tasks/s" if rate else ""
    if rate and not run.phase.is_over:
        pace += f", about {duration((run.total - ended) / rate)} left"
    waiting = counts.get(TaskState.PENDING, 0)
    states = ", ".join(text for text in (counts_text(counts), f"{waiting} pending" if waiting else "") if text)
    return [
        f"Run {run.run_id} ({shown(run.name)}): {phase}",
        f"  started {moment(run.created_at)} by {shown(run.owner)}, {duration(ending.seconds)}{pace}",
        f"  {ended} of {run.total} tasks ended: {states or 'none yet'}",
    ]


def _rate(ending: Ending) -> float | None:
    """Return how many tasks a second were worked on since the run began."""
    from overnight.core.states import TERMINAL, TaskState

    ended = sum(number for state, number in ending.counts.items() if state in TERMINAL)
    worked = ended - ending.counts.get(TaskState.CACHED, 0)
    return round(worked / ending.seconds, 3) if worked > 0 and ending.seconds > 0 else None


def _running_fact(worker: WorkerRecord, ids: list[str], now: float) -> dict[str, Any]:
    seconds = round(max(0.0, now - (worker.task_since or now)), 3)
    return {"task": ids[worker.task or 0], "seconds": seconds, "host": worker.host, "pid": worker.pid}


def _show_task(client: Client, run: RunRecord, task_id: str, *, as_json: bool) -> None:
    from overnight.commands.screen import say
    from overnight.naming import shown

    facts = _task_facts(client, run, task_id)
    if as_json:
        say(json.dumps(facts))
        return
    say(f"Task {shown(str(facts['task']))}: {facts['state']}")
    for name in ("function", "attempt", "worker", "host", "started", "seconds", "peak_memory", "log"):
        if facts.get(name) is not None:
            say(f"  {name.replace('_', ' ')}: {shown(str(facts[name]))}")
    if facts["dependencies"]:
        say(f"  needs: {', '.join(shown(name) for name in facts['dependencies'])}")
    if facts["skipped_for"] is not None:
        say(f"  skipped, because this failed: {shown(facts['skipped_for'])}")
    if facts["error"]:
        say(f"  error: {shown(facts['error']['type'])}: {shown(facts['error']['message'])}")
        for line in facts["error"]["traceback"].rstrip().splitlines():
            say(f"    {shown(line)}")


def _task_facts(client: Client, run: RunRecord, task_id: str) -> dict[str, Any]:
    from overnight.commands.ending import failed_task, log_of
    from overnight.core.states import TaskState

    structure = client.structure(run.run_id)
    number = index_of(client, run.run_id, task_id)
    task_id = structure.task_id(number)
    [view] = client.deployment.store.tasks(run.run_id, [number])
    facts: dict[str, Any] = {
        "run": run.run_id,
        "task": task_id,
        "state": view.state.name.lower(),
        "function": structure.function(number),
        "attempt": view.attempt,
        "dependencies": [structure.task_id(dependency) for dependency in structure.dependencies(number)],
        "skipped_for": None if view.cause is None else structure.task_id(view.cause),
        "log": log_of(run, task_id),
        "error": None,
    }
    told = json.loads(view.facts) if view.facts else {}
    facts |= {name: told.get(name) for name in ("worker", "host", "started", "seconds", "peak_memory")}
    if view.state is TaskState.FAILED or view.error is not None:
        failed = failed_task(client.deployment, run, view, task_id)
        facts["error"] = {"type": failed.type_name, "message": failed.message, "traceback": failed.traceback}
    return facts
