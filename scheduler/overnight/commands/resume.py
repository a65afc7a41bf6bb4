"""`overnight resume [RUN]`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overnight.commands.opening import steering_run
from overnight.commands.options import json_option, run_argument, server_options, verb

if TYPE_CHECKING:
    from overnight.config import Settings


@verb("resume", "overnight resume last")
@run_argument
@server_options
@json_option
def command(*, run: str, settings: Settings, as_json: bool) -> None:
    """Let a paused run go on."""
    from overnight.commands.facts import tell
    from overnight.commands.screen import say

    with steering_run(settings, run) as (client, record):
        client.resume(record.run_id)
        if as_json:
            tell("request", {"run": record.run_id, "request": "resume", "tasks": []})
            return
        say(f"Run {record.run_id} goes on.")
