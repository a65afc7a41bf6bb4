"""`overnight scheduler`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from overnight.commands.options import server_options, verb

if TYPE_CHECKING:
    from overnight.config import Settings


@verb(
    "scheduler",
    "overnight scheduler -u redis://host:6379/0 --limit db=2",
    "overnight scheduler --metrics 9464",
)
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="NAME=AMOUNT",
    help="How much of a resource the running tasks of all runs may hold; repeatable. Else: OVERNIGHT_RESOURCE_LIMITS.",
)
@click.option(
    "--metrics",
    metavar="[HOST:]PORT",
    help="Serve metrics for Prometheus there: OVERNIGHT_METRICS, else not at all. A port alone is one on the loopback.",
)
@server_options
def command(*, settings: Settings, limits: Sequence[str], metrics: str | None) -> int:
    """Run a scheduler until SIGTERM. A second one stands by and takes over when the first is gone.

    Give schedulers that stand by for each other the same limits: those of the one that dispatches count.
    """
    from overnight.config import Endpoint, parsed_limits
    from overnight.service.main import main

    try:
        given = parsed_limits(limits)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--limit") from None
    settings = replace(settings, resource_limits={**settings.resource_limits, **given})
    if metrics is not None:
        try:
            settings = replace(settings, metrics=Endpoint.parse(metrics))
        except ValueError as error:
            raise click.UsageError(f"--metrics: {error}, found {metrics!r}.") from error
    return main(settings)
