"""The options by which people ask to be told of a run, and the start of the process that tells them.

That process belongs to nobody: it tells of the end of the night though the command that was typed in the evening, and
its terminal, are long gone. Where all processes end with the command, as in a container or a unit of systemd, the
command waits for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from overnight.config import Settings
    from overnight.notices import Notices

#: Long beside a notice that is sent; a command may take longer than people's scripts are to wait.
LONGEST_WAIT_SECONDS = 60.0
Verb = TypeVar("Verb", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--on-finish",
        metavar="CMD",
        help="Run this, no shell, when the run is over; facts: OVERNIGHT_*, JSON on stdin.",
    ),
    click.option("--on-failure", metavar="CMD", help="Likewise when the first task fails."),
    click.option(
        "--notify",
        "addresses",
        multiple=True,
        metavar="URL",
        help="Tell of both through apprise: OVERNIGHT_NOTIFY; repeatable.",
    ),
)


def notice_options(command: Verb) -> Verb:
    """Add the options that ask for notices."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def start_notifier(notices: Notices, settings: Settings, run_id: str) -> None:
    """Have a process of its own tell of the run. One that tells of it in the same way already is enough."""
    from overnight.slots import spawn_detached
    from overnight.state_dir import open_log, prepare_state_dir, try_lock

    if not notices:
        return
    prepare_state_dir(settings.state_dir)
    place, typed = str(settings.state_dir.absolute()), list(settings.typed)
    order = {"run": run_id, "notices": asdict(notices), "state_dir": place, "redis_url": settings.redis_url}
    text = json.dumps({**order, "typed": typed})
    name = f"{run_id}-{hashlib.sha256(text.encode('ascii')).hexdigest()[:12]}"
    directory = settings.state_dir.absolute() / "notices"
    directory.mkdir(mode=0o700, exist_ok=True)
    lock = try_lock(directory / f"{name}.lock")
    if lock is None:
        return
    log = open_log(directory / "notices.log")
    try:
        path = directory / f"{name}.json"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
            file.write(text)
        argv = [sys.executable, "-P", "-m", "overnight.commands.notifier", str(path)]
        spawn_detached(argv, log=log, environment=os.environ, lock=lock)
    finally:
        os.close(log)
        os.close(lock)  # without releasing it: the process that was started holds it too


def await_notices(notices: Notices, settings: Settings, run_id: str) -> None:
    """Wait until a run that is over has been told of; not where a person sits at a terminal, which stays."""
    from overnight.commands.screen import say_to_people
    from overnight.state_dir import is_locked, wait_until

    if not notices or sys.stdout.isatty():
        return
    directory = settings.state_dir.absolute() / "notices"

    def is_told() -> bool:
        return not any(is_locked(lock) for lock in directory.glob(f"{run_id}-*.lock"))

    if not wait_until(is_told, LONGEST_WAIT_SECONDS):
        log = directory / "notices.log"
        say_to_people(f"What tells of the run is still at work, and is not waited for any longer: {log}", as_json=True)
