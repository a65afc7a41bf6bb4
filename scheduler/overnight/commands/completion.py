"""What a shell offers to complete: runs and their tasks as far as a server that is there tells at once, and files.

Click makes the shell's side (README.md shows it). Nothing is started and nothing is said here: who presses a key wants
to read neither errors nor warnings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from overnight.client import Client

_CONNECT_SECONDS = 1.0
_MOST = 200
#: Shells take a completed word as it is: one that they would split or expand is not offered.
_PLAIN = re.compile(r"[A-Za-z0-9_./=@%+-]+")
_FILES = [CompletionItem("", type="file")]


def complete_run(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer 'last' and the ids of runs, each with what it is."""
    items = [CompletionItem("last", help="the newest run")]
    with _client(ctx) as client:
        runs = client.runs() if client is not None else []
        items += [CompletionItem(run.run_id, help=f"{run.phase.value}, {run.name}") for run in runs[:_MOST]]
    return [item for item in items if item.value.startswith(incomplete)]


def complete_task(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the tasks of the run that was typed before; those whose ids a shell would leave alone."""
    run = ctx.params.get("run") or ctx.params.get("where") or "last"
    with _client(ctx) as client:
        ids = client.task_ids(run) if client is not None and ":" not in run else []
        found = [name for name in ids if name.startswith(incomplete) and _PLAIN.fullmatch(name)]
    return [CompletionItem(name) for name in found[:_MOST]]


def complete_target(_ctx: click.Context, _param: click.Parameter, _incomplete: str) -> list[CompletionItem]:
    """Have the shell offer files."""
    return list(_FILES)


def complete_run_or_target(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer runs, and files where no run begins so."""
    return complete_run(ctx, param, incomplete) or list(_FILES)


@contextmanager
def _client(ctx: click.Context) -> Iterator[Client | None]:
    """Give a client of the server that was typed, or that is there; None if there is none to ask."""
    from overnight.client import Client
    from overnight.commands.opening import open_present
    from overnight.config import read_settings
    from overnight.errors import OvernightError

    given = {name: ctx.params.get(name) for name in ("redis_url", "state_dir")}
    try:
        settings = read_settings().with_values(**given)
        deployment = open_present(replace(settings, connect_seconds=_CONNECT_SECONDS))
    except OvernightError:
        deployment = None
    if deployment is None:
        yield None
        return
    with deployment:
        yield Client.of(deployment)
