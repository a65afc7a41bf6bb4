"""`overnight status [RUN [TASK]]`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from overnight.commands.completion import complete_task
from overnight.commands.opening import reading_run
from overnight.commands.options import json_option, run_argument, server_options, verb, verbose_option

if TYPE_CHECKING:
    from overnight.client import Client
    from overnight.commands.ending import Ending
    from overnight.commands.time_left import TimeLeft
    from overnight.config import Settings
    from overnight.store.records import RunRecord
    from overnight.structure import Structure
    from overnight.worker_watch import Lack


@verb("status", "overnight status last", 'overnight status last "count json/decoder.py"')
@run_argument
@click.argument("task", required=False, shell_complete=complete_task)
@server_options
@json_option
@verbose_option
def command(*, run: str, task: str | None, settings: Settings, as_json: bool, verbosity: int) -> None:
    """Show where a run stands, or one TASK of it.

    RUN is an id, a unique beginning of one, or 'last'.
    """
    with reading_run(settings, run) as (client, record):
        if task is not None:
            _show_task(client, record, task, as_json=as_json)
        else:
            _show_run(client, record, as_json=as_json, verbose=verbosity > 0, is_private=settings.redis_url is None)


def _show_run(client: Client, run: RunRecord, *, as_json: bool, verbose: bool, is_private: bool) -> None:
    from overnight.commands.activity import as_fact, held_tasks, lines
    from overnight.commands.ending import read_ending
    from overnight.commands.facts import tell
    from overnight.commands.screen import say
    from overnight.commands.time_left import read_time_left

    store = client.deployment.store
    structure = client.structure(run.run_id)
    ids = list(structure.ids())
    ending = read_ending(client.deployment, run.run_id, ids, every_failure=as_json)
    codes, workers = store.states(run.run_id)[::2], store.workers()
    held = held_tasks(run.run_id, codes, workers)
    lacks = _lacks(client, ending, structure, codes, is_private=is_private)
    left = read_time_left(store, ending.run, structure, codes, workers, ending.now, _rate(ending))
    left = None if lacks else left
    if as_json:
        running = [as_fact(each, ids[each.task], ending.now) for each in held]
        time_left = None if left is None else left.as_json()
        missing = [{"queue": lack.queue, "text": lack.text} for lack in lacks]
        facts = {"running": running, "rate": _rate(ending), "seconds_left": time_left, "lacks": missing}
        tell("status", {**ending.as_json(), **facts})
        return
    missed = [f"  {lack.text}" for lack in lacks]
    for line in [*_heading(ending, left), *missed, *ending.lines(verbose=verbose)[1:], *lines(held, ids, ending.now)]:
        say(line)
    for step in ending.next_steps():
        say(step)


def _heading(ending: Ending, left: TimeLeft | None) -> list[str]:
    from overnight.commands.progress import counts_text, pace_text
    from overnight.commands.screen import duration, moment
    from overnight.core.states import TERMINAL, TaskState
    from overnight.naming import shown

    run, counts = ending.run, ending.counts
    ended = sum(number for state, number in counts.items() if state in TERMINAL)
    phase = f"{run.phase.value}, paused" if run.paused and not run.phase.is_over else run.phase.value
    rate = _rate(ending)
    pace = f", {pace_text(rate)}" if rate else ""
    pace += f", {left.text()}" if left is not None else ""
    waiting = counts.get(TaskState.PENDING, 0)
    states = ", ".join(text for text in (counts_text(counts), f"{waiting} pending" if waiting else "") if text)
    said = [f"  {shown(run.note)}"] if run.note and not run.phase.is_over else []
    return [
        f"Run {run.run_id} ({shown(run.name)}): {phase}",
        f"  started {moment(run.created_at)} by {shown(run.owner)}, {duration(ending.seconds)}{pace}",
        f"  {ended} of {run.total} tasks ended: {states or 'none yet'}",
        *said,
    ]


def _lacks(client: Client, ending: Ending, structure: Structure, codes: bytes, *, is_private: bool) -> list[Lack]:
    """Return what the run waits for: of a young one a reader cannot tell what an embedded server's keeper is about to
    start."""
    from overnight.worker_watch import FIRST_WARNING_SECONDS, lacks_of

    run, deployment = ending.run, client.deployment
    is_starting = is_private and ending.seconds < FIRST_WARNING_SECONDS
    if is_starting or run.phase.is_over or run.paused or run.note:
        return []
    queues = structure.queues(run.queue, codes)
    return list(lacks_of(deployment.store, run.run_id, queues, deployment.settings, run.python))


def _rate(ending: Ending) -> float | None:
    """Return how many tasks a second were run since the run began."""
    from overnight.commands.progress import worked

    done = worked(ending.counts)
    return round(done / ending.seconds, 6) if done and ending.seconds > 0 else None


def _show_task(client: Client, run: RunRecord, task_id: str, *, as_json: bool) -> None:
    from overnight.commands.facts import tell
    from overnight.commands.one_task import task_facts, task_lines
    from overnight.commands.screen import say

    facts = task_facts(client, run, task_id)
    if as_json:
        tell("task", facts)
        return
    for line in task_lines(facts):
        say(line)
