"""`overnight graph RUN|TARGET -o FILE`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from overnight.commands.completion import complete_run_or_target
from overnight.commands.opening import reading_run
from overnight.commands.options import json_option, server_options, verb
from overnight.commands.run import parameter_option

if TYPE_CHECKING:
    from overnight.config import Settings
    from overnight.pictures.model import Picture, TaskInPicture

_FORMATS = {".svg": "svg", ".dot": "dot", ".gv": "dot", ".mmd": "mermaid", ".mermaid": "mermaid"}
_FOLD_ABOVE = 150


@verb("graph", "overnight graph flow.py:build -o flow.svg", "overnight graph last -o last.svg")
@click.argument("what", metavar="RUN|TARGET", shell_complete=complete_run_or_target)
@click.option("-o", "--out", required=True, metavar="FILE", help="The picture; its ending decides: .svg, .dot, .mmd.")
@parameter_option
@click.option("-t", "--task-ids", multiple=True, metavar="ID", help="Of a TARGET: this task and what it needs.")
@click.option("-d", "--task-status-dir", metavar="DIR", help="Of a TARGET: where outcomes are recorded, as for run.")
@click.option(
    "--fold-above",
    type=click.IntRange(0),
    default=_FOLD_ABOVE,
    show_default=True,
    metavar="TASKS",
    help="Show a larger graph by function.",
)
@server_options
@json_option
def command(
    *,
    what: str,
    out: str,
    parameters: Sequence[str],
    task_ids: Sequence[str],
    task_status_dir: str | None,
    fold_above: int,
    settings: Settings,
    as_json: bool,
) -> None:
    """Draw a graph with the states of its tasks as colours.

    Of a TARGET it is shown what would run and what is up to date, of a RUN (an id, a unique beginning of one, or
    'last') how each task stands. In a large graph the tasks of a function are one node. Pictures as .svg need the
    library grandalf: pip install 'overnight[graph]'.
    """
    from overnight.commands.facts import tell
    from overnight.commands.output_file import write_output
    from overnight.commands.screen import say
    from overnight.naming import shown
    from overnight.pictures.model import make_picture

    kind = _format(out)
    if ":" in what:
        title, tasks = _of_target(settings, what, parameters, task_ids, task_status_dir)
    elif parameters or task_ids or task_status_dir:
        raise click.UsageError("-p, -t and -d belong to a TARGET, such as flow.py:build; a run has its own.")
    else:
        title, tasks = _of_run(settings, what)
    picture = make_picture(title, tasks, fold_above)
    write_output("picture", Path(out), _drawn(kind, picture).encode("utf-8"), mode=0o666)
    if as_json:
        counts = dict(picture.counts)
        facts = {"file": out, "format": kind, "tasks": len(tasks), "counts": counts, "folded": picture.is_folded}
        tell("graph", {**facts, "nodes": len(picture.nodes), "edges": len(picture.edges)})
        return
    folded = f", folded to {len(picture.nodes)} nodes by function" if picture.is_folded else ""
    say(f"{len(tasks)} tasks{folded}: {shown(out)}")


def _format(out: str) -> str:
    from overnight.errors import UsageError

    kind = _FORMATS.get(Path(out).suffix.lower())
    if kind is None:
        raise UsageError(f"A picture is a file ending in .svg, .dot or .mmd, not {out!r}.")
    return kind


def _drawn(kind: str, picture: Picture) -> str:
    from overnight.pictures.dot import as_dot
    from overnight.pictures.mermaid import as_mermaid
    from overnight.pictures.svg import as_svg

    return {"svg": as_svg, "dot": as_dot, "mermaid": as_mermaid}[kind](picture)


def _of_target(
    settings: Settings, target: str, parameters: Sequence[str], task_ids: Sequence[str], status_dir: str | None
) -> tuple[str, list[TaskInPicture]]:
    """Return title and tasks of a graph that would be run."""
    from overnight.cache import CacheRecordType
    from overnight.chain import function_name
    from overnight.commands.screen import show_warnings
    from overnight.commands.work import Request, Work
    from overnight.pictures.model import TaskInPicture

    show_warnings(0)
    work = Work(Request(target, tuple(parameters), tuple(task_ids), status_dir=status_dir), settings)
    judged, decisions = work.decisions.judged, work.decisions
    states = {CacheRecordType.COMPUTED: "up to date", CacheRecordType.ERROR: "failed"}
    with work.graph as nodes:
        tasks = [
            TaskInPicture(
                task.task_id,
                function_name(nodes[task].func),
                states.get(decisions.state(task), "would run"),
                judged.dependencies[number],
            )
            for number, task in enumerate(judged.order)
        ]
    return work.name, tasks


def _of_run(settings: Settings, name: str) -> tuple[str, list[TaskInPicture]]:
    """Return title and tasks of a run, dependencies first."""
    from overnight.core.states import TaskState
    from overnight.pictures.model import TaskInPicture

    with reading_run(settings, name) as (client, run):
        structure = client.structure(run.run_id)
        codes = client.deployment.store.states(run.run_id)[::2]
    names = {int(state): state.name.lower() for state in TaskState}
    order = structure.order()
    places = {task: place for place, task in enumerate(order)}
    tasks = [
        TaskInPicture(
            structure.task_id(task),
            structure.function(task),
            names[codes[task]],
            [places[dependency] for dependency in structure.dependencies(task)],
        )
        for task in order
    ]
    return f"{run.name or 'run'} ({run.run_id}, {run.phase.value})", tasks
