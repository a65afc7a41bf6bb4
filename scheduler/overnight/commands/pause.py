"""`overnight pause [RUN]`."""

from __future__ import annotations

from overnight.commands.options import json_option, run_argument, server_options, settings_of, verb
from overnight.commands.steering import steered


@verb("pause", "overnight pause last")
@run_argument
@server_options
@json_option
def command(*, run: str, redis_url: str | None, state_dir: str | None, as_json: bool) -> None:
    """Start nothing more of a run until it is resumed; what runs goes on."""
    from overnight.commands.facts import tell
    from overnight.commands.screen import say
    from overnight.hints import hint

    with steered(settings_of(redis_url, state_dir), run) as (client, record):
        client.pause(record.run_id)
        on = hint(client.deployment.settings, "resume", record.run_id)
        if as_json:
            tell("request", {"run": record.run_id, "request": "pause", "tasks": []})
            return
        say(f"Run {record.run_id} starts nothing more. This lets it go on: {on}")
