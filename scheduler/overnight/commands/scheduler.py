"""`overnight scheduler`."""

from __future__ import annotations

from overnight.commands.options import server_options, settings_of, verb


@verb("scheduler", "overnight scheduler -u redis://host:6379/0")
@server_options
def command(*, redis_url: str | None, state_dir: str | None) -> int:
    """Run a scheduler until SIGTERM. A second one stands by and takes over when the first is gone."""
    from overnight.service.main import main

    return main(settings_of(redis_url, state_dir))
