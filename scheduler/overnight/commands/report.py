"""`overnight report [RUN] -o report.html`."""

from __future__ import annotations

import os
import sys
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
    from overnight.commands.output_file import write_output
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
    given = Path(output if output not in (None, TO_STANDARD_OUTPUT) else f"report-{facts.run.run_id}.html")
    path = Path(os.path.realpath(given.parent), given.name)  # and not where a link in its place leads to
    data = page.encode("utf-8")
    write_output("report", path, data, mode=0o600)
    if as_json:
        tell("report", _facts(facts, path, len(data)))
        return
    say(f"Wrote {shown(str(path))} ({amount(len(data))}). Open it in a browser: {shown(path.as_uri())}")


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
