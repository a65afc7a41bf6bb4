"""`overnight retry [RUN]`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from overnight.commands.completion import complete_task
from overnight.commands.options import (
    found_run,
    index_of,
    json_option,
    open_to_read,
    run_argument,
    server_options,
    settings_of,
    verb,
)


@verb("retry", 'overnight retry last -t "fetch 2026-01"')
@run_argument
@click.option(
    "-t",
    "--task-ids",
    multiple=True,
    metavar="ID",
    shell_complete=complete_task,
    help="Only this task, and what was skipped for it.",
)
@server_options
@json_option
def command(*, run: str, task_ids: Sequence[str], redis_url: str | None, state_dir: str | None, as_json: bool) -> None:
    """Run failed and cancelled tasks of a run again, with what was skipped for them."""
    from overnight.client import Client
    from overnight.commands.facts import tell
    from overnight.commands.screen import say
    from overnight.deployment import Deployment
    from overnight.hints import hint

    settings = settings_of(redis_url, state_dir)
    with open_to_read(settings) as reading:
        client = Client.of(reading)
        record = found_run(client, run)
        for task_id in task_ids:
            index_of(client, record.run_id, task_id)
        client.check_retry(record.run_id, tuple(task_ids))
    # On an embedded server the local workers have ended with the run: this brings them back.
    deployment = Deployment(settings, queue=record.queue)
    try:
        Client.of(deployment).retry(record.run_id, tuple(task_ids))
    finally:
        deployment.close(stop=False)
    if as_json:
        tell("request", {"run": record.run_id, "request": "retry", "tasks": list(task_ids)})
        return
    say(f"Run {record.run_id} goes on. Watch it: {hint(settings, 'follow', record.run_id)}")
