"""`overnight scheduler`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import click

from overnight.commands.options import server_options, settings_of, verb


@verb("scheduler", "overnight scheduler -u redis://host:6379/0 --limit db=2")
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="NAME=AMOUNT",
    help="How much of a resource the running tasks of all runs may hold; repeatable. Else: OVERNIGHT_RESOURCE_LIMITS.",
)
@server_options
def command(*, redis_url: str | None, state_dir: str | None, limits: Sequence[str]) -> int:
    """Run a scheduler until SIGTERM. A second one stands by and takes over when the first is gone.

    Give schedulers that stand by for each other the same limits: those of the one that dispatches count.
    """
    from overnight.config import parsed_limits
    from overnight.service.main import main

    settings = settings_of(redis_url, state_dir)
    try:
        given = parsed_limits(limits)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--limit") from None
    return main(replace(settings, resource_limits={**settings.resource_limits, **given}))
