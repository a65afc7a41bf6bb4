"""`overnight workers`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from overnight.commands.options import json_option, open_to_read, server_options, settings_of, verb

if TYPE_CHECKING:
    from overnight.store.records import WorkerRecord


@verb("workers", "overnight workers -u redis://host:6379/0")
@server_options
@json_option
def command(*, redis_url: str | None, state_dir: str | None, as_json: bool) -> None:
    """List the workers that are there, and what each is doing."""
    from overnight.commands.screen import say, table

    with open_to_read(settings_of(redis_url, state_dir)) as deployment:
        workers, now = deployment.store.workers(), deployment.store.now()
    if as_json:
        say(json.dumps([asdict(worker) for worker in workers]))
        return
    if not workers:
        say("There are no workers. Start some: overnight worker -j 4")
        return
    titles = ["HOST", "PID", "QUEUES", "PYTHON", "UP", "MEMORY", "DOING"]
    table(titles, [_row(worker, now) for worker in workers])


def _row(worker: WorkerRecord, now: float) -> list[str]:
    from overnight.commands.screen import duration
    from overnight.naming import shown

    return [
        shown(worker.host),
        str(worker.pid),
        shown(",".join(worker.queues)),
        worker.python,
        duration(now - worker.started_at),
        f"{worker.memory / 1e6:.0f} MB" if worker.memory else "-",
        shown(_doing(worker, now)),
    ]


def _doing(worker: WorkerRecord, now: float) -> str:
    from overnight.commands.screen import duration

    words = ["draining"] if worker.draining else []
    if worker.run_id is not None:
        age = f" for {duration(now - worker.task_since)}" if worker.task_since else ""
        words.append(f"task {worker.task} of run {worker.run_id}{age}" if worker.task is not None else worker.run_id)
    words += [worker.note] if worker.note else []
    return ", ".join(words) or "waiting"
