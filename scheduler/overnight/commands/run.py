"""`overnight run TARGET`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from overnight.commands.completion import complete_parameter, complete_target
from overnight.commands.notice_options import notice_options
from overnight.commands.options import json_option, server_options, tasks_verbose_option, verb
from overnight.config import MOST_JOBS

if TYPE_CHECKING:
    from overnight.commands.interrupts import Interrupts
    from overnight.commands.work import Request, Work
    from overnight.config import Settings
    from overnight.deployment import Deployment
    from overnight.store.records import RunRecord
    from overnight.worker_watch import Lack

Verb = TypeVar("Verb", bound=Callable[..., Any])


_WORK_OPTIONS = (
    click.option(
        "-j", "--jobs", type=click.IntRange(0, MOST_JOBS), help="Local workers; default: one per CPU, none with a URL."
    ),
    click.option("-q", "--queue", default="default", show_default=True, help="The queue that its tasks go to."),
    click.option("-k", "--keep-going", is_flag=True, help="After a failure, run all that does not depend on it."),
    click.option(
        "--weight",
        type=click.FloatRange(0.001, 1000),
        default=1.0,
        show_default=True,
        help="Its share of workers that other runs want too: 2 is twice as much.",
    ),
    click.option("-f", "--force", is_flag=True, help="Run everything, also what is finished."),
    click.option("-t", "--task-ids", multiple=True, metavar="ID", help="This task and what it needs; repeatable."),
    click.option(
        "-d",
        "--task-status-dir",
        metavar="DIR",
        help="Where outcomes are recorded; default: in the state directory, by target and parameters.",
    ),
    click.option("--task-log-dir", metavar="DIR", help="Where tasks log; default: in the state directory."),
)


def work_options(command: Verb) -> Verb:
    """Add the options that say how a graph is run."""
    command = notice_options(command)
    for option in reversed(_WORK_OPTIONS):
        command = option(command)
    return command


def parameter_option(command: Verb) -> Verb:
    """Add ``-p name=value``."""
    return click.option(
        "-p",
        "--parameter",
        "parameters",
        multiple=True,
        metavar="NAME=VALUE",
        shell_complete=complete_parameter,
        help="A parameter of the callable.",
    )(command)


def target_options(command: Verb) -> Verb:
    """Add TARGET, its parameters, and the options that say how its graph is run."""
    return click.argument("target", shell_complete=complete_target)(parameter_option(work_options(command)))


@verb("run", "overnight run flow.py:build -p year=2026 -j 8")
@target_options
@click.option("-n", "--dry-run", is_flag=True, help="List what would run, and why; run nothing.")
@click.option("--detach", is_flag=True, help="Start it, print its id, and leave it running.")
@server_options
@json_option
@tasks_verbose_option
def command(
    *,
    target: str,
    parameters: Sequence[str],
    settings: Settings,
    as_json: bool,
    dry_run: bool,
    detach: bool,
    **options: Any,
) -> int:
    """Run the graph that TARGET makes, to its end.

    TARGET is package.module:callable or path/to/file.py:callable; the callable returns a TaskGraph. What is recorded
    as finished, and is not older than its inputs, does not run again. If this command dies the run goes on; the same
    command attaches to it.
    """
    if dry_run and detach:
        raise click.UsageError("--dry-run runs nothing, --detach leaves something running: give one of them.")
    return start(request_of(target, parameters, options), settings, as_json=as_json, dry_run=dry_run, detach=detach)


def request_of(target: str, parameters: Sequence[str], options: dict[str, Any]) -> Request:
    """Return what was typed, as `work` takes it."""
    from overnight.commands.work import Request
    from overnight.notices import asked

    return Request(
        target=target,
        parameters=tuple(parameters),
        task_ids=tuple(options["task_ids"]),
        jobs=options["jobs"],
        queue=options["queue"],
        keep_going=options["keep_going"],
        weight=options["weight"],
        force=options["force"],
        status_dir=options["task_status_dir"],
        log_dir=options["task_log_dir"],
        verbosity=options["verbosity"],
        notices=asked(options["on_finish"], options["on_failure"], options["addresses"]),
    )


def start(request: Request, settings: Settings, *, as_json: bool, dry_run: bool = False, detach: bool = False) -> int:
    """Do what `run` does for a request; return the exit status."""
    from overnight.commands.carry import nothing
    from overnight.commands.interrupts import Interrupts
    from overnight.commands.screen import show_warnings
    from overnight.commands.work import Work

    show_warnings(request.verbosity)
    with Interrupts() as interrupts:
        work = Work(request, settings)
        if dry_run:
            return show_plan(work, as_json=as_json, verbose=request.verbosity > 0)
        if not work.to_run:
            return nothing(work, as_json=as_json)
        work.make_directories()
        return _detached(work, as_json=as_json) if detach else _carried(work, interrupts, as_json=as_json)


def show_plan(work: Work, *, as_json: bool, verbose: bool = False) -> int:
    """Tell what a run of this work would do; return the exit status."""
    from overnight.commands.facts import tell
    from overnight.commands.plan_lines import facts_of, rows_of, total_lines
    from overnight.commands.planning import make_plan
    from overnight.commands.screen import say, table
    from overnight.naming import shown

    plan = make_plan(work)
    if as_json:
        tell("plan", facts_of(plan))
        return 0
    if plan.would_run:
        table(*rows_of(plan, every_task=verbose))
    if verbose:
        say("\n".join(f"up to date: {shown(task_id)}" for task_id in plan.up_to_date))
    for line in total_lines(plan, work.settings):
        say(line)
    return 0


def _carried(work: Work, interrupts: Interrupts, *, as_json: bool) -> int:
    from overnight.commands.carry import Carried
    from overnight.deployment import Deployment

    deployment = Deployment(work.settings, workers=work.request.jobs, queue=work.request.queue)
    # Signals are deferred until the deployment is closed, so that none tears its end apart.
    with interrupts.deferring(), deployment:
        return Carried(work, deployment, interrupts, as_json=as_json).to_the_end()


def _detached(work: Work, *, as_json: bool) -> int:
    from overnight.commands.carry import submit
    from overnight.commands.facts import tell
    from overnight.commands.progress import PlainDisplay
    from overnight.commands.screen import say
    from overnight.deployment import Deployment
    from overnight.hints import hint

    deployment = Deployment(work.settings, workers=work.request.jobs, queue=work.request.queue)
    try:
        launched = submit(work, deployment, PlainDisplay(to_stderr=True))
        lacks = _lacks(work, deployment, launched.run)
    finally:
        deployment.close(stop=False)
    run_id = launched.run.run_id
    for lack in lacks:
        click.echo(f"overnight: warning: {lack.text}", err=True)
    if as_json:
        tell("started", {"run": run_id, "attached": launched.attached, "total": launched.run.total})
        return 0
    say(run_id)
    look, watch = (hint(work.settings, verb, run_id) for verb in ("status", "follow"))
    by_itself = "It waits for what is missing, then it runs by itself" if lacks else "It runs by itself"
    say(f"{by_itself}. Look at it: {look}; watch it: {watch}")
    return 0


def _lacks(work: Work, deployment: Deployment, run: RunRecord) -> list[Lack]:
    """Return what the run must wait for; on an embedded server it is being started."""
    from overnight.worker_watch import lacks_of

    if work.settings.redis_url is None or work.request.jobs:
        return []
    queues = {work.graph.get_task_desc(task).options.queue or run.queue for task, _ in work.to_run}
    return list(lacks_of(deployment.store, run.run_id, queues, work.settings, run.python))
