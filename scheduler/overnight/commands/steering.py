"""What cancel, pause and resume share: a run that is not over, on a deployment that can carry the request out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from overnight.client import Client
from overnight.commands.options import found_run, open_to_steer
from overnight.config import Settings
from overnight.errors import Refused
from overnight.store.records import RunRecord


@contextmanager
def steered(settings: Settings, name: str) -> Iterator[tuple[Client, RunRecord]]:
    """Give the client and the named run. Raises Refused if it is over, UnknownRun if there is none."""
    deployment = open_to_steer(settings)
    try:
        client = Client.of(deployment)
        run = found_run(client, name)
        if run.phase.is_over:
            raise Refused(f"Run {run.run_id} is over: it {run.phase.value}.")
        yield client, run
    finally:
        deployment.close()
