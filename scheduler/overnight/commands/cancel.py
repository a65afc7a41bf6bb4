"""`overnight cancel [RUN]`."""

from __future__ import annotations

from overnight.commands.options import json_option, run_argument, server_options, settings_of, verb
from overnight.commands.steering import steered


@verb("cancel", "overnight cancel last")
@run_argument
@server_options
@json_option
def command(*, run: str, redis_url: str | None, state_dir: str | None, as_json: bool) -> None:
    """Stop a run: nothing new starts, running tasks are stopped. What is finished is kept."""
    from overnight.commands.facts import tell
    from overnight.commands.screen import say
    from overnight.hints import hint

    with steered(settings_of(redis_url, state_dir), run) as (client, record):
        client.cancel(record.run_id)
        again = hint(client.deployment.settings, "retry", record.run_id)
        if as_json:
            tell("request", {"run": record.run_id, "request": "cancel", "tasks": []})
            return
        say(f"Run {record.run_id} is being stopped. The command that started it continues it, or this: {again}")
