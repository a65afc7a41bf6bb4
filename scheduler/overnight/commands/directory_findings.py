"""What `doctor --directory` finds: whether the workers can write where a run is to write, tried by themselves.

Only a worker knows what it may do. So each directory becomes a short run on the queues: more tasks than workers, each
of which stays for a moment, so that every worker that is free takes one. Its records go with the server's next expiry.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from overnight.commands.findings import FAULT, OK, WARNING, Finding
from overnight.core.states import TaskState
from overnight.naming import shown

if TYPE_CHECKING:
    from overnight.client import Client
    from overnight.store.records import TaskView

TASKS_PER_WORKER = 3
STAY_SECONDS = 0.3
PATIENCE_SECONDS = 20.0
_KEEP_SECONDS = 60.0


def directories(client: Client, wanted: Sequence[str], queues: Sequence[str]) -> Iterator[Finding]:
    """Yield what the workers of these queues find in each directory."""
    for directory in wanted:
        for queue in queues:
            yield from _tried(client, directory, queue)


def _tried(client: Client, directory: str, queue: str) -> Iterator[Finding]:
    serving = [worker for worker in client.deployment.store.workers() if queue in worker.queues]
    if not serving:
        text = f"{shown(directory)} was not tried: no worker serves queue {shown(queue)}"
        yield Finding("directory", WARNING, f"{text}. Try again when one does")
        return
    run_id = _submitted(client, directory, queue, TASKS_PER_WORKER * len(serving))
    _await(client, run_id)
    views = client.deployment.store.tasks(run_id, range(TASKS_PER_WORKER * len(serving)))
    heard = {host: sentence for view in views for host, sentence in _said(client, run_id, view)}
    for host in sorted({worker.host for worker in serving} | heard.keys()):
        yield _finding(directory, host, heard)


def _submitted(client: Client, directory: str, queue: str, number: int) -> str:
    from overnight.graph import TaskGraph
    from overnight.probe import NAME, command_of_its_own, look

    graph = TaskGraph()
    for task in range(number):
        graph.create_task(f"look {task}", look, args=[directory, STAY_SECONDS])
    return client.submit(graph, NAME, command=command_of_its_own(), queue=queue, keep_seconds=_KEEP_SECONDS)


def _await(client: Client, run_id: str) -> None:
    """Wait until all have looked; whoever is busy for longer is not waited for."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    for changed in client.follow(run_id):
        if changed.over is not None:
            return
        if time.monotonic() > deadline:
            client.cancel(run_id)
            deadline = float("inf")


def _said(client: Client, run_id: str, view: TaskView) -> Iterator[tuple[str, str]]:
    """Yield the host that has looked and what it says: nothing if it can write there."""
    from overnight.messages import StoredError

    if view.facts is None or view.state not in (TaskState.DONE, TaskState.FAILED):
        return
    host = str(json.loads(view.facts)["host"])
    if view.state is TaskState.DONE or view.error is None:
        yield host, ""
        return
    yield host, StoredError.opened(view.error, run_id, view.task, client.deployment.keyring).message


def _finding(directory: str, host: str, heard: dict[str, str]) -> Finding:
    place = shown(directory)
    if host not in heard:
        text = f"{place} was not tried on {shown(host)}: its workers took nothing in {PATIENCE_SECONDS:.0f} s"
        return Finding("directory", WARNING, f"{text}. Try again when they are free")
    if heard[host]:
        text = f"{place} cannot be written to by the workers on {shown(host)} ({shown(heard[host])}): mount it there, "
        return Finding("directory", FAULT, f"{text}or give the workers' user the right to write", 4)
    return Finding("directory", OK, f"{place} can be written to by the workers on {shown(host)}")
