"""`overnight pause [RUN]`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overnight.commands.opening import steering_run
from overnight.commands.options import json_option, run_argument, server_options, verb

if TYPE_CHECKING:
    from overnight.config import Settings


@verb("pause", "overnight pause last")
@run_argument
@server_options
@json_option
def command(*, run: str, settings: Settings, as_json: bool) -> None:
    """Start nothing more of a run until it is resumed; what runs goes on."""
    from overnight.commands.facts import tell
    from overnight.commands.screen import say
    from overnight.hints import hint

    with steering_run(settings, run) as (client, record):
        client.pause(record.run_id)
        on = hint(client.deployment.settings, "resume", record.run_id)
        if as_json:
            tell("request", {"run": record.run_id, "request": "pause", "tasks": []})
            return
        say(f"Run {record.run_id} starts nothing more. This lets it go on: {on}")
