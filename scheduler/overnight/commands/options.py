"""Options that several verbs share, and what they stand for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from overnight.commands.completion import complete_run
from overnight.errors import UsageError

if TYPE_CHECKING:
    from overnight.client import Client
    from overnight.config import Settings
    from overnight.deployment import Deployment
    from overnight.store.records import RunRecord

Verb = TypeVar("Verb", bound=Callable[..., Any])


def verb(name: str, *examples: str, **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a verb of a function; its help ends with examples."""
    epilog = "\n".join(["\b", "Example:", *(f"  {example}" for example in examples)])
    return click.command(name, epilog=epilog, **settings)


def server_options(command: Verb) -> Verb:
    """Add the options that say where runs are kept."""
    command = click.option(
        "--state-dir",
        metavar="DIR",
        help="Where runs, logs and records are kept: OVERNIGHT_STATE_DIR, else .overnight.",
    )(command)
    return click.option(
        "-u",
        "--redis-url",
        metavar="URL",
        help="The Redis or Valkey server: OVERNIGHT_REDIS_URL, else a private one in the state directory.",
    )(command)


def json_option(command: Verb) -> Verb:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print facts as JSON, for programs.")(command)


def verbose_option(command: Verb) -> Verb:
    """Add ``-v``."""
    return click.option("-v", "--verbose", "verbosity", count=True, help="Tell more; -vv tells all.")(command)


def run_argument(command: Verb) -> Verb:
    """Add RUN, by default the last one."""
    return click.argument("run", default="last", metavar="[RUN]", shell_complete=complete_run)(command)


def settings_of(redis_url: str | None, state_dir: str | None) -> Settings:
    """Return the settings of the environment with what was typed in place; warn of a password on a command line."""
    from overnight.config import read_settings

    if redis_url is not None and _holds_password(redis_url):
        click.echo(
            "overnight: warning: a password on a command line can be seen by other users; set OVERNIGHT_REDIS_URL.",
            err=True,
        )
    settings = read_settings().with_values(redis_url=redis_url, state_dir=state_dir)
    _see_directory(settings.state_dir)
    return settings


def _see_directory(state_dir: Path) -> None:
    """Raise UsageError for a state directory that is none, or whose name no file can have."""
    from overnight.naming import shown

    try:
        if not state_dir.exists() or state_dir.is_dir():
            return
        reason = "it is not a directory"
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    raise UsageError(f"The state directory {shown(str(state_dir))[:300]} cannot be used: {reason}.")


def _holds_password(url: str) -> bool:
    """Tell whether a password is shown; what stands where a port should be is hidden too, and most likely is none."""
    from overnight.store.connection import hidden

    return hidden(url) != url and ("@" in url or "?" in url)


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


def found_run(client: Client, name: str) -> RunRecord:
    """Return the record of the run that was named by id, unique beginning or ``last``."""
    return client.deployment.store.run(client.resolve(name))


def index_of(client: Client, run_id: str, task_id: str) -> int:
    """Return a task's index in its run; UsageError for an id that the run does not hold."""
    from overnight.commands.suggestion import ending_about
    from overnight.errors import UnknownTask
    from overnight.naming import cut_task_id, shown

    structure = client.structure(run_id)
    try:
        return structure.index(cut_task_id(task_id))
    except UnknownTask as error:
        ending = ending_about(task_id, list(structure.ids()))
        raise UsageError(f"The run has no task {shown(task_id)!r}{ending}") from error
