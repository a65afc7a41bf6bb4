"""`overnight logs RUN TASK`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from overnight.commands.completion import complete_run, complete_task
from overnight.commands.options import found_run, index_of, open_to_read, server_options, settings_of, verb

if TYPE_CHECKING:
    from overnight.store.records import RunRecord, TaskView


@verb("logs", 'overnight logs last "count json/decoder.py"')
@click.argument("run", metavar="RUN", shell_complete=complete_run)
@click.argument("task", metavar="TASK", shell_complete=complete_task)
@server_options
def command(*, run: str, task: str, redis_url: str | None, state_dir: str | None) -> None:
    """Print the log of a task: what it logged and printed, in all its attempts."""
    from overnight.client import Client
    from overnight.errors import Refused
    from overnight.hints import hint
    from overnight.naming import cut_task_id, log_name

    settings = settings_of(redis_url, state_dir)
    with open_to_read(settings) as deployment:
        client = Client.of(deployment)
        record = found_run(client, run)
        number = index_of(client, record.run_id, task)
        [view] = deployment.store.tasks(record.run_id, [number])
    if record.log_dir is None:
        raise Refused(f"Run {record.run_id} was started without a log directory.")
    place = f"{record.log_dir.rstrip('/')}/{log_name(cut_task_id(task))}"
    try:
        text = _read(place)
    except FileNotFoundError:
        _tell_of_no_log(record, view, task, place, look=hint(settings, "status", record.run_id, task))
        return
    sys.stdout.write(_harmless(text) if sys.stdout.isatty() else text)


def _tell_of_no_log(run: RunRecord, view: TaskView, task_id: str, place: str, *, look: str) -> None:
    """Say on standard error that a task that ran here wrote nothing. Raises Refused for one of which that is unknown.

    A log is made by the first line that is written to it. `look` is the command that tells of the task.
    """
    import socket

    from overnight.core.states import TaskState
    from overnight.errors import Refused
    from overnight.naming import shown

    facts = json.loads(view.facts) if view.facts else {}
    host = facts.get("host")
    about = f"Task {shown(task_id)!r}"
    if host == socket.gethostname():
        _see_that_it_could_log(run, about)
        click.echo(f"{about} wrote nothing to its log.", err=True)
    elif host is not None:
        raise Refused(f"{about} ran on host {shown(str(host))}; what it wrote is there, in {shown(place)}.")
    elif view.state is TaskState.CACHED:
        raise Refused(f"{about} did not run in this run: its result was there already. This tells of it: {look}")
    else:
        state = view.state.name.lower()
        raise Refused(f"{about} has written no log so far; it is {state}. This tells of it: {look}")


def _see_that_it_could_log(run: RunRecord, about: str) -> None:
    """Raise Refused if nothing can be written to the log directory: then no log says nothing of what was logged."""
    from overnight.errors import Refused
    from overnight.files import is_url, see_writable
    from overnight.naming import shown

    directory = run.log_dir or ""
    try:
        if not is_url(directory):
            see_writable(directory)
    except OSError as error:
        raise Refused(
            f"{about} has no log: its directory {shown(directory)} cannot be written to ({error.strerror}). "
            "Run it again with another --task-log-dir."
        ) from error


def _read(place: str) -> str:
    from overnight.files import is_url

    if not is_url(place):
        return Path(place).read_text(encoding="utf-8", errors="backslashreplace")
    import fsspec

    with fsspec.open(place, "r", encoding="utf-8", errors="backslashreplace") as file:
        text: str = file.read()
    return text


def _harmless(text: str) -> str:
    """Return the text with what could steer a terminal escaped."""
    from overnight.naming import shown

    return "\n".join("\t".join(shown(cell) for cell in line.split("\t")) for line in text.split("\n"))
