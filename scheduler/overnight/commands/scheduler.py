"""`overnight scheduler`."""

from __future__ import annotations

from dataclasses import replace

import click

from overnight.commands.options import server_options, settings_of, verb


@verb("scheduler", "overnight scheduler -u redis://host:6379/0", "overnight scheduler --metrics 9464")
@click.option(
    "--metrics",
    metavar="[HOST:]PORT",
    help="Serve metrics for Prometheus there: OVERNIGHT_METRICS, else not at all. A port alone is one on the loopback.",
)
@server_options
def command(*, redis_url: str | None, state_dir: str | None, metrics: str | None) -> int:
    """Run a scheduler until SIGTERM. A second one stands by and takes over when the first is gone."""
    from overnight.config import Endpoint
    from overnight.service.main import main

    settings = settings_of(redis_url, state_dir)
    if metrics is not None:
        try:
            settings = replace(settings, metrics=Endpoint.parse(metrics))
        except ValueError as error:
            raise click.UsageError(f"--metrics: {error}, found {metrics!r}.") from error
    return main(settings)
