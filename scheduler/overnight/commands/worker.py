"""`overnight worker`: becomes the worker's own program, which this package never imports."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from overnight.commands.options import server_options, verb
from overnight.config import MOST_JOBS

if TYPE_CHECKING:
    from overnight.config import Settings


@verb(
    "worker",
    "overnight worker -j 4 -q default -u redis://host:6379/0",
    context_settings={"ignore_unknown_options": True},
)
@click.option(
    "-j", "--jobs", type=click.IntRange(1, MOST_JOBS), default=1, show_default=True, help="How many tasks run at once."
)
@click.option("-q", "--queue", "queues", multiple=True, help="A queue to serve; repeatable, the first has preference.")
@server_options
@click.argument("more", nargs=-1, type=click.UNPROCESSED, metavar="[-- MORE]")
def command(*, jobs: int, queues: Sequence[str], settings: Settings, more: Sequence[str]) -> None:
    """Run tasks from queues until SIGTERM: then finish or give back what was taken, and stop.

    MORE are options of the worker alone, such as --isolation task or --memory-limit 2000. This lists them:
    overnight worker -- --help
    """
    environment = {**os.environ, "OVERNIGHT_STATE_DIR": str(settings.state_dir)}
    if settings.redis_url is not None:
        # In the environment, not on the command line, because it may hold a password.
        environment["OVERNIGHT_REDIS_URL"] = settings.redis_url
    program = [sys.executable, "-P", "-m", "overnight_worker", "--jobs", str(jobs)]
    program += [word for queue in queues for word in ("--queue", queue)]
    sys.stdout.flush()
    os.execve(sys.executable, [*program, *more], environment)  # noqa: S606  # a list made here, no shell
