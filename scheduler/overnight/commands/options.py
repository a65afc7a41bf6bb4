"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from overnight.commands.completion import complete_run

if TYPE_CHECKING:
    from pathlib import Path

    from overnight.config import Settings

Verb = TypeVar("Verb", bound=Callable[..., Any])


def verb(name: str, *examples: str, **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a verb of a function; its help ends with examples."""
    epilog = "\n".join(["\b", "Example:", *(f"  {example}" for example in examples)])
    return click.command(name, epilog=epilog, **settings)


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where runs are kept; the verb gets them as `settings`, with those of the environment."""

    @click.option(
        "-u",
        "--redis-url",
        metavar="URL",
        help="The Redis or Valkey server: OVERNIGHT_REDIS_URL, else a private one in the state directory.",
    )
    @click.option(
        "--state-dir",
        metavar="DIR",
        help="Where runs, logs and records are kept: OVERNIGHT_STATE_DIR, else .overnight.",
    )
    @wraps(command)
    def with_settings(*, redis_url: str | None, state_dir: str | None, **given: Any) -> Any:
        return command(settings=_settings_of(redis_url, state_dir), **given)

    return with_settings


def json_option(command: Verb) -> Verb:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print facts as JSON, for programs.")(command)


def verbose_option(command: Verb) -> Verb:
    """Add ``-v``."""
    return click.option("-v", "--verbose", "verbosity", count=True, help="Tell more; -vv tells all.")(command)


def tasks_verbose_option(command: Verb) -> Verb:
    """Add ``-v`` to a verb that starts a run: it is also the level of the records that go into its tasks' logs (N1)."""
    told = "Tell more, and keep what tasks log below WARNING: -v their INFO records, -vv DEBUG."
    return click.option("-v", "--verbose", "verbosity", count=True, help=told)(command)


def run_argument(command: Verb) -> Verb:
    """Add RUN, by default the last one."""
    return click.argument("run", default="last", metavar="[RUN]", shell_complete=complete_run)(command)


def _settings_of(redis_url: str | None, state_dir: str | None) -> Settings:
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
    from overnight.errors import UsageError
    from overnight.naming import shown

    try:
        if not state_dir.exists() or state_dir.is_dir():
            return
        why = "is not a directory"
    except (OSError, RuntimeError, ValueError) as error:
        why = f"cannot be used: {getattr(error, 'strerror', None) or error}"
    raise UsageError(f"The state directory {shown(str(state_dir))[:300]} {why}.")


def _holds_password(url: str) -> bool:
    """Tell whether a password is shown; what stands where a port should be is hidden too, and most likely is none."""
    from overnight.store.connection import hidden

    return hidden(url) != url and ("@" in url or "?" in url)
