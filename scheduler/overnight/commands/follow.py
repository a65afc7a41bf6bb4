"""`overnight follow [RUN]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from overnight.commands.notice_options import await_notices, notice_options, start_notifier
from overnight.commands.opening import found_run, local_workers, open_to_read
from overnight.commands.options import json_option, run_argument, server_options, verb, verbose_option

if TYPE_CHECKING:
    from overnight.commands.interrupts import Interrupts
    from overnight.config import Settings
    from overnight.deployment import Deployment
    from overnight.notices import Notices


@verb("follow", "overnight follow last", "overnight follow last --on-finish 'mail -s done me@example.org'")
@run_argument
@notice_options
@server_options
@json_option
@verbose_option
def command(
    *,
    run: str,
    settings: Settings,
    as_json: bool,
    verbosity: int,
    on_finish: str | None,
    on_failure: str | None,
    addresses: Sequence[str],
) -> int:
    """Watch a run until it is over; the exit status is the run's. Ctrl-C ends the watching, not the run."""
    from overnight.client import Client
    from overnight.commands.interrupts import Interrupts
    from overnight.commands.screen import show_warnings
    from overnight.notices import asked

    show_warnings(verbosity)
    notices = asked(on_finish, on_failure, addresses)
    with Interrupts() as interrupts:
        deployment = _opened(settings, run)
        with interrupts.deferring():
            try:
                if notices:
                    start_notifier(notices, settings, found_run(Client.of(deployment), run).run_id)
                return _watch(deployment, run, interrupts, notices, as_json=as_json, verbose=verbosity > 0)
            finally:
                deployment.close(stop=interrupts.count == 0 and not interrupts.hung_up)


def _opened(settings: Settings, name: str) -> Deployment:
    """Open the deployment as a client of its local processes, so that they stay until this has seen the end.

    As many local workers are wanted as serve the run's queue now, or as many as there are CPUs if nobody does.
    """
    from overnight.client import Client
    from overnight.deployment import Deployment

    reading = open_to_read(settings)
    run = found_run(Client.of(reading), name)
    if settings.redis_url is not None or run.phase.is_over:
        return reading
    workers = local_workers(reading, run.queue)
    reading.close(stop=False)
    return Deployment(settings, workers=workers, queue=run.queue)


def _watch(
    deployment: Deployment, name: str, interrupts: Interrupts, notices: Notices, *, as_json: bool, verbose: bool
) -> int:
    from overnight.client import Client
    from overnight.commands.ending import exit_status, read_ending
    from overnight.commands.facts import tell
    from overnight.commands.progress import open_display
    from overnight.commands.screen import say, say_to_people
    from overnight.commands.watch import Left, Watch
    from overnight.hints import hint

    client = Client.of(deployment)
    run = found_run(client, name)
    ids = client.task_ids(run.run_id)
    display = open_display(as_json=as_json)
    try:
        ended = Watch(deployment, run, ids, display, interrupts, own=None).until_proven()
    finally:
        display.close()
    if isinstance(ended, Left):
        again, stop = (hint(deployment.settings, verb, run.run_id) for verb in ("follow", "cancel"))
        say_to_people(f"The run goes on. Watch it again: {again}; stop it: {stop}", as_json=as_json)
        return interrupts.exit_status
    ending = read_ending(deployment, run.run_id, ids, every_failure=as_json)
    if as_json:
        tell("outcome", ending.as_json())
    else:
        for line in [*ending.lines(verbose=verbose), *ending.next_steps()]:
            say(line)
    await_notices(notices, deployment.settings, run.run_id)
    return exit_status(ended)
