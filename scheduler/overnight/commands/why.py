"""`overnight why [RUN|TARGET] TASK`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from overnight.commands.completion import complete_run_or_target, complete_task
from overnight.commands.opening import reading_run
from overnight.commands.options import json_option, server_options, verb
from overnight.commands.run import parameter_option

if TYPE_CHECKING:
    from overnight.commands.why_run import Answer, Asked
    from overnight.config import Settings


@verb("why", 'overnight why "count json/decoder.py"', "overnight why flow.py:build merge")
@click.argument("where", required=False, metavar="[RUN|TARGET]", shell_complete=complete_run_or_target)
@click.argument("task", required=False, metavar="TASK", shell_complete=complete_task)
@parameter_option
@click.option("-d", "--task-status-dir", metavar="DIR", help="Of a TARGET: where outcomes are recorded, as for run.")
@server_options
@json_option
def command(
    *,
    where: str | None,
    task: str | None,
    parameters: Sequence[str],
    task_status_dir: str | None,
    settings: Settings,
    as_json: bool,
) -> None:
    """Say why a task runs, waits, failed or was skipped, or of a TARGET why it would run.

    RUN is an id, a unique beginning of one, or 'last', which is meant if TASK alone is given: it is told what the task
    waits for (other tasks, a limit, a worker, a pause, its next attempt), or what brought it to its end. A TARGET, with
    its parameters, is asked before a run: the reason is that of 'overnight plan', with all that leads to it.
    """
    if where is None:
        raise click.UsageError("Missing argument 'TASK'.")
    if task is None:
        where, task = "last", where
    if ":" in where:
        _of_target(settings, where, task, parameters, task_status_dir, as_json=as_json)
        return
    if parameters or task_status_dir:
        raise click.UsageError("-p and -d belong to a TARGET, such as flow.py:build; a run has its own.")
    _of_run(settings, where, task, as_json=as_json)


def _of_target(
    settings: Settings,
    target: str,
    task: str,
    parameters: Sequence[str],
    status_dir: str | None,
    *,
    as_json: bool,
) -> None:
    from overnight.commands.facts import tell
    from overnight.commands.screen import say, show_warnings
    from overnight.commands.why_target import lines_of, why_planned
    from overnight.commands.work import Request, Work

    show_warnings(0)
    work = Work(Request(target, tuple(parameters), status_dir=status_dir), settings)
    facts = why_planned(work, task)
    if as_json:
        tell("why-target", facts)
        return
    for line in lines_of(facts):
        say(line)


def _of_run(settings: Settings, name: str, task: str, *, as_json: bool) -> None:
    from overnight.commands.facts import tell
    from overnight.commands.screen import say
    from overnight.commands.why_run import Asked

    with reading_run(settings, name) as (client, run):
        asked = Asked(client, run, task)
        answer = asked.answer()
    if not as_json:
        for line in _lines(asked, answer):
            say(line)
        return
    tell(
        "why",
        {
            "run": asked.run.run_id,
            "task": asked.task_id,
            "state": asked.view.state.name.lower(),
            "kind": answer.kind,
            "reason": answer.reason,
            "more": list(answer.more),
            "waits_for": list(answer.waits_for),
            "had_to_run": answer.had_to_run,
            "advice": list(answer.advice),
        },
    )


_MOST_SHOWN = 8
_STANDS = {"failed": "failed", "skipped": "was skipped", "cancelled": "was cancelled"}


def _lines(asked: Asked, answer: Answer) -> list[str]:
    from overnight.naming import shown

    state = asked.view.state.name.lower()
    stands = _STANDS.get(state, f"is {state}")
    lines = [f"Task {shown(asked.task_id)} of run {asked.run.run_id} {stands}: {answer.reason}"]
    lines += [f"  {text}" for text in answer.more]
    if answer.kind != "skipped":
        for waited in answer.waits_for[:_MOST_SHOWN]:
            lines.append(f"  {shown(waited['task'])} {waited['reason']}")
        if len(answer.waits_for) > _MOST_SHOWN:
            lines.append(f"  and {len(answer.waits_for) - _MOST_SHOWN} more tasks")
    if answer.had_to_run is not None:
        lines.append(f"  It was to be run because: {shown(answer.had_to_run)}")
    return lines + [f"  {text[0].upper()}{text[1:]}" for text in answer.advice]
