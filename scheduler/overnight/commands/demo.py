"""`overnight demo`: a census of this interpreter's standard library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from overnight.commands.options import json_option, server_options, tasks_verbose_option, verb
from overnight.commands.run import request_of, start, work_options

if TYPE_CHECKING:
    from overnight.config import Settings

_TARGET = "overnight.examples.stdlib_census:build"


@verb("demo", "overnight demo --out ./census")
@click.option("--out", default="./census", show_default=True, metavar="DIR", help="Where the three files are written.")
@click.option("--limit", type=click.IntRange(0), default=0, help="Count only so many files; 0: all.")
@click.option("--slow", type=click.FloatRange(0), default=0.0, metavar="SECONDS", help="Let each count take longer.")
@click.option("--detach", is_flag=True, help="Start it, print its id, and leave it running.")
@work_options
@server_options
@json_option
@tasks_verbose_option
def command(
    *,
    out: str,
    limit: int,
    slow: float,
    detach: bool,
    settings: Settings,
    as_json: bool,
    **options: Any,
) -> int:
    """Count the standard library's files, functions and imports; write a table, a document and a page.

    A second time, only what a change has touched runs.
    """
    parameters = [f"out={out}", *([f"limit={limit}"] if limit else []), *([f"slow={slow}"] if slow else [])]
    status = start(request_of(_TARGET, parameters, options), settings, as_json=as_json, detach=detach)
    if status == 0 and not as_json and not detach:
        _tell_census(Path(out))
    return status


def _tell_census(out: Path) -> None:
    from overnight.commands.screen import say
    from overnight.naming import shown

    document = out / "census.json"
    if not document.exists():  # only a part was asked for with -t
        return
    totals = json.loads(document.read_text(encoding="utf-8"))["totals"]
    words = {name: name.replace("_", " ") for name in totals} | {"failed": "that do not parse"}
    say("The census: " + ", ".join(f"{number:,} {words[name]}" for name, number in totals.items()))
    say(f"It is in {shown(str(out.absolute()))}: census.html for people, census.json and census.csv for programs.")
