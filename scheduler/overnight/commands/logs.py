"""`overnight logs RUN TASK`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from overnight.commands.options import found_run, index_of, open_to_read, server_options, settings_of, verb


@verb("logs", 'overnight logs last "count json/decoder.py"')
@click.argument("run", metavar="RUN")
@click.argument("task", metavar="TASK")
@server_options
def command(*, run: str, task: str, redis_url: str | None, state_dir: str | None) -> None:
    """Print the log of a task: what it logged and printed, in all its attempts."""
    from overnight.client import Client
    from overnight.errors import Refused
    from overnight.naming import cut_task_id, log_name, shown

    with open_to_read(settings_of(redis_url, state_dir)) as deployment:
        client = Client.of(deployment)
        record = found_run(client, run)
        index_of(client, record.run_id, task)
    if record.log_dir is None:
        raise Refused(f"Run {record.run_id} was started without a log directory.")
    place = f"{record.log_dir.rstrip('/')}/{log_name(cut_task_id(task))}"
    try:
        text = _read(place)
    except FileNotFoundError as error:
        raise Refused(
            f"Task {shown(task)} has no log on this host ({shown(place)}): it has not run since its records were made, "
            f"or it ran elsewhere; 'overnight status {record.run_id} ...' says where."
        ) from error
    sys.stdout.write(_harmless(text) if sys.stdout.isatty() else text)


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
