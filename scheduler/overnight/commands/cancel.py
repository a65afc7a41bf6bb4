"""`overnight cancel [RUN]`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overnight.commands.opening import steering_run
from overnight.commands.options import json_option, run_argument, server_options, verb

if TYPE_CHECKING:
    from overnight.config import Settings


@verb("cancel", "overnight cancel last")
@run_argument
@server_options
@json_option
def command(*, run: str, settings: Settings, as_json: bool) -> None:
    """Stop a run: nothing new starts, running tasks are stopped. What is finished is kept."""
    from overnight.commands.facts import tell
    from overnight.commands.screen import say
    from overnight.hints import hint

    with steering_run(settings, run) as (client, record):
        client.cancel(record.run_id)
        again = hint(client.deployment.settings, "retry", record.run_id)
        if as_json:
            tell("request", {"run": record.run_id, "request": "cancel", "tasks": []})
            return
        say(f"Run {record.run_id} is being stopped. The command that started it continues it, or this: {again}")
