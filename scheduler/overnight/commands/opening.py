"""What verbs open: a deployment, to read it or to change a run, and there the run and the task that were named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from overnight.errors import Refused, UsageError

if TYPE_CHECKING:
    from overnight.client import Client
    from overnight.config import Settings
    from overnight.deployment import Deployment
    from overnight.store.records import RunRecord


def open_to_read(settings: Settings) -> Deployment:
    """Open what exists, disturbing no local process that works there.

    An embedded server that runs is used as it is: a reader wants nothing of its keeper. Raises Refused if there is
    nothing to read.
    """
    from overnight.deployment import open_for_reading

    return _of_present_server(settings) or open_for_reading(settings)


def open_present(settings: Settings) -> Deployment | None:
    """Open the server that the settings name, or the embedded one if it runs; None if there is none. Starts nothing."""
    from overnight.deployment import Deployment

    return Deployment(settings, workers=0) if settings.redis_url is not None else _of_present_server(settings)


def open_to_steer(settings: Settings) -> Deployment:
    """Open what exists to change a run there, seeing that some scheduler is there to carry the change out."""
    from overnight.deployment import Deployment, open_for_reading
    from overnight.fleet_files import fleet_files
    from overnight.state_dir import is_locked

    if settings.redis_url is not None:
        return Deployment(settings, workers=0)
    if not settings.state_dir.exists():
        return open_for_reading(settings)  # which says that there is nothing
    is_kept = is_locked(fleet_files(_absolute(settings.state_dir), None).keeper_lock)
    return (_of_present_server(settings) if is_kept else None) or Deployment(settings, workers=0)


def local_workers(reading: Deployment, queue: str) -> int | None:
    """Return how many local workers of a queue a client of the embedded server wants: those that are there.

    None, which means one per CPU, if nobody serves the queue. Where workers serve it that were started by hand, it is
    theirs alone: they may have limits that local ones do not have.
    """
    from overnight.fleet_files import fleet_files
    from overnight.fleet_plan import worker_slots
    from overnight.state_dir import is_locked

    files = fleet_files(_absolute(reading.settings.state_dir), None)
    local = sum(is_locked(files.slot_lock(slot)) for slot in worker_slots(queue, files.known_slots()))
    is_served = any(queue in worker.queues for worker in reading.store.workers())
    return local if local or is_served else None


def _of_present_server(settings: Settings) -> Deployment | None:
    from overnight.deployment import Deployment
    from overnight.embedded import EmbeddedServer

    if settings.redis_url is not None or not settings.state_dir.exists():
        return None
    server = EmbeddedServer(settings.state_dir)
    if not server.is_present():
        return None
    return Deployment(replace(settings, redis_url=server.ensure(settings.connect_seconds)), workers=0)


def _absolute(path: Path) -> Path:
    return path.expanduser().resolve()


@contextmanager
def reading_run(settings: Settings, name: str) -> Iterator[tuple[Client, RunRecord]]:
    """Give the client and the named run, to be read. Raises Refused if there is nothing to read, UnknownRun."""
    from overnight.client import Client

    with open_to_read(settings) as deployment:
        client = Client.of(deployment)
        yield client, found_run(client, name)


@contextmanager
def steering_run(settings: Settings, name: str) -> Iterator[tuple[Client, RunRecord]]:
    """Give the client and the named run, to be changed. Raises Refused if it is over, UnknownRun if there is none."""
    from overnight.client import Client

    with open_to_steer(settings) as deployment:
        client = Client.of(deployment)
        run = found_run(client, name)
        if run.phase.is_over:
            raise Refused(f"Run {run.run_id} is over ({run.phase.value}).")
        yield client, run


def found_run(client: Client, name: str) -> RunRecord:
    """Return the record of the run that was named by id, unique beginning or ``last``."""
    return client.deployment.store.run(client.resolve(name))


def index_of(client: Client, run_id: str, task_id: str) -> int:
    """Return a task's index in its run; UsageError for an id that the run does not hold."""
    from overnight.commands.suggestion import ending_about
    from overnight.errors import UnknownTask
    from overnight.naming import cut_task_id

    structure = client.structure(run_id)
    try:
        return structure.index(cut_task_id(task_id))
    except UnknownTask as error:
        ending = ending_about(task_id, list(structure.ids()))
        raise UsageError(f"The run has no task {task_id!r}{ending}") from error
