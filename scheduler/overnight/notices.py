"""What is told of a run to people who do not watch it, and how: through a command, or through apprise.

A command is a list of words, never a shell's text. It gets the facts as variables and, whole, as JSON on standard
input. An address of apprise is a secret: it is shown by its scheme alone.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from overnight.errors import UsageError
from overnight.naming import shown

NOTIFY_VARIABLE = "OVERNIGHT_NOTIFY"
#: The shape of the facts; it grows when a fact changes its meaning or goes.
FACTS_VERSION = 1
COMMAND_SECONDS = 600.0
#: What apprise calls a notice, by the phase in which a run ended; services show it by sign or colour.
_KINDS = {"succeeded": "success", "failed": "failure"}
_logger = logging.getLogger("overnight.notices")


class Occasion(Enum):
    """When something is told."""

    FAILURE = "failure"
    """The first task of the run failed; others may still run."""
    FINISH = "finish"
    """The run is over, however it ended; or the server no longer knows it."""


@dataclass(frozen=True, slots=True)
class Notices:
    """What was asked for: commands as they were typed, and addresses for both occasions."""

    on_finish: str | None = None
    on_failure: str | None = None
    addresses: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether anything was asked for."""
        return bool(self.on_finish or self.on_failure or self.addresses)

    def command(self, occasion: Occasion) -> str | None:
        """Return the command of an occasion."""
        return self.on_finish if occasion is Occasion.FINISH else self.on_failure


def asked(on_finish: str | None, on_failure: str | None, addresses: Sequence[str]) -> Notices:
    """Return what was typed, checked: a notice that cannot be sent is known before the night and not after it.

    Addresses of the environment (`OVERNIGHT_NOTIFY`, separated by spaces) count where none is typed. Raises UsageError.
    """
    for option, typed in (("--on-finish", on_finish), ("--on-failure", on_failure)):
        if typed is not None:
            words_of(typed, option)
    chosen = tuple(addresses) or tuple(os.environ.get(NOTIFY_VARIABLE, "").split())
    for address in chosen:
        _opened(address, "--notify" if addresses else NOTIFY_VARIABLE)
    return Notices(on_finish, on_failure, chosen)


def words_of(command: str, option: str) -> list[str]:
    """Return the words of a command. UsageError if they are none, or no such program is on PATH."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"{option}: the quotes of {command!r} do not match ({error}).") from error
    if not words:
        raise UsageError(f"{option}: expected a program and its arguments, found nothing.")
    if shutil.which(words[0]) is None and Path(words[0]).is_file():
        raise UsageError(f"{option}: {words[0]!r} is not executable: chmod +x {shlex.quote(words[0])}")
    if shutil.which(words[0]) is None:
        raise UsageError(
            f"{option}: there is no program {words[0]!r}. No shell reads the command: for more than one program "
            "give a script, or sh -c '...'."
        )
    return words


def tell(notices: Notices, occasion: Occasion, title: str, text: str, facts: Mapping[str, Any]) -> None:
    """Tell of an occasion by all ways that were asked for; what goes wrong with one is logged and ends no other."""
    command = notices.command(occasion)
    if command is not None:
        _attempt(command, lambda: _run(command, occasion, facts))
    kind = "failure" if occasion is Occasion.FAILURE else _KINDS.get(facts["phase"], "warning")
    for address in notices.addresses:
        _attempt(_scheme(address), lambda address=address: _send(address, title, text, kind))  # type: ignore[misc]


def _attempt(what: str, step: Callable[[], None]) -> None:
    try:
        step()
    except (OSError, subprocess.SubprocessError, UsageError, RuntimeError) as error:
        _logger.error("notice by %s failed: %s", shown(what), error)
    else:
        _logger.info("notice by %s was given", shown(what))


def _run(command: str, occasion: Occasion, facts: Mapping[str, Any]) -> None:
    document = {"version": FACTS_VERSION, "event": occasion.value, **facts}
    subprocess.run(
        words_of(command, f"--on-{occasion.value}"),
        input=json.dumps(document),
        env={**os.environ, **variables(occasion, facts)},
        text=True,
        timeout=COMMAND_SECONDS,
        check=True,
    )


def variables(occasion: Occasion, facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts that a command finds in its environment."""
    counts = {f"OVERNIGHT_TASKS_{state.upper()}": str(number) for state, number in facts["counts"].items()}
    return {
        "OVERNIGHT_EVENT": occasion.value,
        "OVERNIGHT_RUN": facts["run"],
        "OVERNIGHT_RUN_NAME": facts["name"],
        "OVERNIGHT_RUN_PHASE": facts["phase"],
        "OVERNIGHT_RUN_SECONDS": str(facts["seconds"]),
        "OVERNIGHT_TASKS_TOTAL": str(facts["total"]),
        "OVERNIGHT_TASKS_FAILED": "0",
        **counts,
    }


def _send(address: str, title: str, text: str, kind: str) -> None:
    if not _opened(address, "--notify").notify(title=title, body=text, notify_type=kind):
        raise RuntimeError("the service did not take it")


def _opened(address: str, source: str) -> Any:
    """Return apprise with one address from `source`. Raises UsageError if it knows none like it, or is not there."""
    try:
        import apprise
    except ModuleNotFoundError as error:
        raise UsageError(f"{source} needs apprise: pip install 'overnight[notify]'") from error
    found = apprise.Apprise()
    if not found.add(address):
        raise UsageError(
            f"{source}: apprise knows no address like {_scheme(address)}; expected one such as "
            "mailtos://user:password@example.org or ntfys://topic."
        )
    return found


def _scheme(address: str) -> str:
    return f"{shown(address.partition('://')[0])}://..." if "://" in address else "one without '://'"
