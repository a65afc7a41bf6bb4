"""What a shell offers to complete: runs and their tasks as far as a server that is there tells at once, and files.

Click makes the shell's side (README.md shows it). Nothing is started and nothing is said here: who presses a key wants
to read neither errors nor warnings.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from overnight.client import Client

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
_CONNECT_SECONDS = 1.0
_MOST = 200
#: A completed word that a shell would split or expand is not offered; zsh and fish quote a space themselves.
_PLAIN = re.compile(r"[A-Za-z0-9_./=@%+-]+")
_QUOTED = re.compile(r"[A-Za-z0-9_./=@%+ -]+")
#: How a shell says which one it is.
_VARIABLE = "_OVERNIGHT_COMPLETE"
_FILES = [CompletionItem("", type="file")]


def _in_silence(offer: Completer) -> Completer:
    """Offer nothing where what was typed before names nothing, or the server does not answer."""

    @wraps(offer)
    def offered(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from overnight.errors import OvernightError

        try:
            return offer(ctx, param, incomplete)
        except OvernightError:
            return []

    return offered


@_in_silence
def complete_run(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer 'last' and the ids of runs, each with what it is."""
    items = [CompletionItem("last", help="the newest run")]
    with _client(ctx) as client:
        runs = client.runs() if client is not None else []
        items += [CompletionItem(run.run_id, help=f"{run.phase.value}, {run.name}") for run in runs[:_MOST]]
    return [item for item in items if item.value.startswith(incomplete)]


@_in_silence
def complete_task(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the tasks of the run that was typed before; those whose ids a shell would leave alone."""
    run = ctx.params.get("run") or ctx.params.get("where") or "last"
    with _client(ctx) as client:
        ids = client.task_ids(run) if client is not None and ":" not in run else []
    return [CompletionItem(name) for name in _typeable(ids, incomplete)[:_MOST]]


@_in_silence
def complete_failed_task(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the tasks of a run that can be tried again."""
    from overnight.core.states import TaskState

    again = frozenset({TaskState.FAILED, TaskState.SKIPPED, TaskState.CANCELLED})
    with _client(ctx) as client:
        if client is None:
            return []
        run_id = client.resolve(_first_word(ctx) or "last")
        codes = client.deployment.store.states(run_id)[::2]
        ids = [name for name, code in zip(client.task_ids(run_id), codes, strict=False) if code in again]
    return [CompletionItem(name) for name in _typeable(ids, incomplete)[:_MOST]]


@_in_silence
def complete_cause(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the causes of a run's failures by their short names, each with what it is."""
    from overnight.commands.ending import causes_of

    with _client(ctx) as client:
        if client is None:
            return []
        run_id = client.resolve(_first_word(ctx) or "last")
        causes = causes_of(client.deployment, run_id, client.deployment.store.states(run_id))
    items = [CompletionItem(one.name, help=f"{one.type_name}, {len(one.tasks)} failed") for one in causes[:_MOST]]
    return [item for item in items if item.value.startswith(incomplete)]


def complete_parameter(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the parameters of the target that was typed before, as ``name=``; its file is read, and nothing is run."""
    from overnight.commands.target_parameters import names_in_source

    target = _first_word(ctx) or ""
    given = {text.partition("=")[0] for text in ctx.params.get("parameters") or ()}
    names = [name for name in names_in_source(target) if name not in given and name.startswith(incomplete)]
    return [CompletionItem(f"{name}=") for name in names]


def complete_target(_ctx: click.Context, _param: click.Parameter, _incomplete: str) -> list[CompletionItem]:
    """Have the shell offer files."""
    return list(_FILES)


def complete_run_or_target(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer runs, and files where no run begins so."""
    return complete_run(ctx, param, incomplete) or list(_FILES)


def _first_word(ctx: click.Context) -> str | None:
    """Return the run or target that was typed, None if none was: what follows a verb and is no option. Before an option
    that has no value yet click has not given it its name."""
    named = next((ctx.params[name] for name in ("run", "target", "where") if ctx.params.get(name)), None)
    return ctx.args[0] if ctx.args else named


def _typeable(ids: Sequence[str], incomplete: str) -> list[str]:
    """Return the ids that begin so and that the shell takes; bash splits at spaces, the others quote."""
    fits = _PLAIN if os.environ.get(_VARIABLE, "").startswith("bash") else _QUOTED
    return [name for name in ids if name.startswith(incomplete) and fits.fullmatch(name)]


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
