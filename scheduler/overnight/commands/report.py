"""`overnight report [RUN] -o report.html`."""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from overnight.commands.opening import reading_run
from overnight.commands.options import json_option, run_argument, server_options, verb

if TYPE_CHECKING:
    from overnight.commands.reporting.facts import RunFacts
    from overnight.config import Settings

TO_STANDARD_OUTPUT = "-"


@verb("report", "overnight report last -o report.html")
@run_argument
@click.option("-o", "--output", metavar="FILE", help="Where to write it; default: report-RUN.html; '-' prints it.")
@server_options
@json_option
def command(*, run: str, output: str | None, settings: Settings, as_json: bool) -> None:
    """Write one page that tells a whole run, during it or after it.

    It holds the outcome, failures by cause, who ran what when, durations, the critical path, the slowest and largest
    tasks, and what the next run would do. It is one file of HTML that opens in any browser, offline.
    """
    from overnight.commands.facts import tell
    from overnight.commands.reporting.facts import read_facts
    from overnight.commands.reporting.page import amount, render
    from overnight.commands.screen import say
    from overnight.naming import shown

    with reading_run(settings, run) as (client, record):
        facts = read_facts(client, record.run_id)
    page = render(facts, settings)
    if output == TO_STANDARD_OUTPUT and not as_json:
        sys.stdout.write(page)
        return
    path = Path(output if output not in (None, TO_STANDARD_OUTPUT) else f"report-{facts.run.run_id}.html").absolute()
    data = page.encode("utf-8")
    _write(path, data)
    if as_json:
        tell("report", _facts(facts, path, len(data)))
        return
    say(f"Wrote {shown(str(path))} ({amount(len(data))}). Open it in a browser: {shown(path.as_uri())}")


def _write(path: Path, data: bytes) -> None:
    """Put a file in place whole; what a link names is replaced, and no device or pipe: those are written to.

    Raises Refused where it cannot be written.
    """
    from overnight.errors import Refused
    from overnight.naming import shown

    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as stream:
                stream.write(data)
        else:
            _replace(path.resolve(), data)
    except (OSError, RuntimeError) as error:  # links that go in a circle are a RuntimeError
        reason = error.strerror if isinstance(error, OSError) else "its links go in a circle"
        raise Refused(
            f"The report cannot be written to {shown(str(path))}: {reason}. Give another file with -o."
        ) from error


def _replace(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.tmp")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        draft.replace(path)
    except OSError:
        with suppress(OSError):
            draft.unlink()
        raise


def _facts(facts: RunFacts, path: Path, size: int) -> dict[str, Any]:
    """Return what programs are told: where the page is, and the figures at its top."""
    from overnight.commands.reporting.figures import critical_path

    path_ids = [facts.task_ids[task] for task in critical_path(facts)]
    return {
        "run": facts.run.run_id,
        "phase": facts.run.phase.value,
        "file": str(path),
        "bytes": size,
        "total": len(facts.codes),
        "counts": {state.name.lower(): number for state, number in facts.counts.items()},
        "causes": len(facts.causes),
        "critical_path": path_ids,
    }
