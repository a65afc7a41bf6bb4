"""`overnight retry [RUN]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from overnight.commands.completion import complete_cause, complete_failed_task
from overnight.commands.opening import index_of, local_workers, reading_run
from overnight.commands.options import json_option, run_argument, server_options, verb

if TYPE_CHECKING:
    from overnight.client import Client
    from overnight.config import Settings


@verb("retry", "overnight retry last --cause 3fa9c1", 'overnight retry last -t "fetch 2026-01"')
@run_argument
@click.option(
    "-t",
    "--task-ids",
    multiple=True,
    metavar="ID",
    shell_complete=complete_failed_task,
    help="Only this task, and what was skipped for it.",
)
@click.option(
    "--cause",
    metavar="CAUSE",
    shell_complete=complete_cause,
    help="Only the tasks that failed by this cause, as 'status' names it.",
)
@server_options
@json_option
def command(
    *,
    run: str,
    task_ids: Sequence[str],
    cause: str | None,
    settings: Settings,
    as_json: bool,
) -> None:
    """Run failed and cancelled tasks of a run again, with what was skipped for them.

    'overnight status' groups failures by cause and prints, for each cause, the command that retries it alone. Workers
    load changed modules anew, so mended functions run as they are now; arguments stay those of the run.
    """
    from overnight.client import Client
    from overnight.commands.facts import tell
    from overnight.commands.screen import say, tasks_text
    from overnight.deployment import Deployment
    from overnight.hints import hint

    if task_ids and cause is not None:
        raise click.UsageError("Give either --cause or -t: both say which tasks are to run again.")
    with reading_run(settings, run) as (client, record):
        task_ids = _chosen(client, record.run_id, task_ids, cause)
        workers = local_workers(client.deployment, record.queue) if settings.redis_url is None else None
    # On an embedded server the local workers have ended with the run: this brings them back.
    deployment = Deployment(settings, workers=workers, queue=record.queue)
    try:
        Client.of(deployment).retry(record.run_id, tuple(task_ids))
    finally:
        deployment.close(stop=False)
    if as_json:
        tell("request", {"run": record.run_id, "request": "retry", "tasks": list(task_ids)})
        return
    which = f" with {tasks_text(len(task_ids))} that had failed" if cause is not None else ""
    say(f"Run {record.run_id} goes on{which}. Watch it: {hint(settings, 'follow', record.run_id)}")


def _chosen(client: Client, run_id: str, task_ids: Sequence[str], cause: str | None) -> Sequence[str]:
    """Return which tasks are to run again, none for all. Raises UsageError, Refused."""
    for task_id in task_ids:
        index_of(client, run_id, task_id)
    chosen = task_ids if cause is None else _of_cause(client, run_id, cause)
    client.check_retry(run_id, tuple(chosen))
    return chosen


def _of_cause(client: Client, run_id: str, text: str) -> list[str]:
    """Return the ids of the tasks that failed by a cause. Raises UsageError for a cause that the run does not have."""
    from overnight.commands.causes import chosen_cause
    from overnight.commands.ending import causes_of

    deployment = client.deployment
    cause = chosen_cause(causes_of(deployment, run_id, deployment.store.states(run_id)), text, run_id)
    structure = client.structure(run_id)
    return [structure.task_id(task) for task in cause.tasks]
