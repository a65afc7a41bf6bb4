"""What cancel, pause and resume share: a run that is not over, on a deployment that can carry the request out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from overnight.commands.options import found_run, open_to_steer
from overnight.errors import Refused

if TYPE_CHECKING:
    from overnight.client import Client
    from overnight.config import Settings
    from overnight.store.records import RunRecord


@contextmanager
def steered(settings: Settings, name: str) -> Iterator[tuple[Client, RunRecord]]:
    """Give the client and the named run. Raises Refused if it is over, UnknownRun if there is none."""
    from overnight.client import Client

    deployment = open_to_steer(settings)
    try:
        client = Client.of(deployment)
        run = found_run(client, name)
        if run.phase.is_over:
            raise Refused(f"Run {run.run_id} is over ({run.phase.value}).")
        yield client, run
    finally:
        deployment.close()
