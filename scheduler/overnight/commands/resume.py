"""`overnight resume [RUN]`."""

from __future__ import annotations

from overnight.commands.options import json_option, run_argument, server_options, settings_of, verb
from overnight.commands.steering import steered


@verb("resume", "overnight resume last")
@run_argument
@server_options
@json_option
def command(*, run: str, redis_url: str | None, state_dir: str | None, as_json: bool) -> None:
    """Let a paused run go on."""
    from overnight.commands.facts import tell
    from overnight.commands.screen import say

    with steered(settings_of(redis_url, state_dir), run) as (client, record):
        client.resume(record.run_id)
        if as_json:
            tell("request", {"run": record.run_id, "request": "resume", "tasks": []})
            return
        say(f"Run {record.run_id} goes on.")
