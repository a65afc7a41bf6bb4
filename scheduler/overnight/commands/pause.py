"""`overnight pause [RUN]`."""

from __future__ import annotations

from overnight.commands.options import run_argument, server_options, settings_of, verb
from overnight.commands.steering import steered


@verb("pause", "overnight pause last")
@run_argument
@server_options
def command(*, run: str, redis_url: str | None, state_dir: str | None) -> None:
    """Start nothing more of a run until it is resumed; what runs goes on."""
    from overnight.commands.screen import say
    from overnight.hints import hint

    with steered(settings_of(redis_url, state_dir), run) as (client, record):
        client.pause(record.run_id)
        on = hint(client.deployment.settings, "resume", record.run_id)
        say(f"Run {record.run_id} starts nothing more. This lets it go on: {on}")
