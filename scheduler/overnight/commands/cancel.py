"""`overnight cancel [RUN]`."""

from __future__ import annotations

from overnight.commands.options import run_argument, server_options, settings_of, verb
from overnight.commands.steering import steered


@verb("cancel", "overnight cancel last")
@run_argument
@server_options
def command(*, run: str, redis_url: str | None, state_dir: str | None) -> None:
    """Stop a run: nothing new starts, running tasks are stopped. What is finished is kept."""
    from overnight.commands.screen import say
    from overnight.hints import hint

    with steered(settings_of(redis_url, state_dir), run) as (client, record):
        client.cancel(record.run_id)
        again = hint(client.deployment.settings, "retry", record.run_id)
        say(f"Run {record.run_id} is being stopped. The command that started it continues it, or this: {again}")
