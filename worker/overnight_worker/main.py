"""`overnight worker`: start one supervisor in this process, or a parent with several of them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from overnight import failpoints
from overnight.concealment import conceal_secrets
from overnight.config import DEFAULT_QUEUE, MOST_JOBS, Settings, read_settings
from overnight.errors import OvernightError, UsageError
from overnight.garbage import rarely_collect
from overnight.keyring import read_keyring
from overnight.local_fleet import kept_server
from overnight.slots import hold_slot
from overnight.store.connection import connect
from overnight.store.patience import await_room
from overnight.store.redis import RedisStore
from overnight.store.server_check import reach, require_key
from overnight.transport.rq import RqTransport, load_rq
from overnight_worker.crew import Crew
from overnight_worker.first_word import take_word
from overnight_worker.heartbeat import Heartbeat
from overnight_worker.job import Foreman
from overnight_worker.kinship import adopt_orphans, end_with_parent
from overnight_worker.post import PROCESS_LIMIT, Post
from overnight_worker.spool import Spool

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_logger = logging.getLogger("overnight.worker")


@click.command("worker", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-j", "--jobs", type=click.IntRange(1, MOST_JOBS), default=1, help="How many tasks run at once.")
@click.option(
    "-q", "--queue", "queues", multiple=True, help="A queue to serve; may be repeated, the first has preference."
)
@click.option("-u", "--redis-url", help="The server; OVERNIGHT_REDIS_URL, else the embedded one.")
@click.option("--state-dir", type=click.Path(path_type=Path), help="OVERNIGHT_STATE_DIR, else .overnight.")
@click.option("--name", help="What people see; the host's name and the process id if not given.")
@click.option(
    "--isolation", type=click.Choice(["warm", "task"]), default="warm", help="'task': a process for each task."
)
@click.option(
    "--tasks-per-child", type=click.IntRange(1), default=100_000, help="Tasks after which the child is replaced."
)
@click.option("--memory-limit", type=click.IntRange(1), help="MB of memory above which a task is killed.")
@click.option(
    "--process-limit",
    type=click.IntRange(1),
    default=PROCESS_LIMIT,
    help="Processes at once above which a task is killed.",
)
@click.option("--member-of", type=int, hidden=True)
def command(
    jobs: int,
    queues: tuple[str, ...],
    redis_url: str | None,
    state_dir: Path | None,
    name: str | None,
    isolation: str,
    tasks_per_child: int,
    memory_limit: int | None,
    process_limit: int,
    member_of: int | None,
) -> None:
    """Run tasks from queues until SIGTERM: then finish or give back what was taken, and stop."""
    hold_slot()
    take_word()
    conceal_secrets()
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr)
    try:
        failpoints.arm()
        if not all(queue.strip() for queue in queues):
            raise UsageError("A queue needs a name: -q was given an empty one.")
        if jobs > 1:
            sys.exit(Crew(jobs, sys.argv[1:]).run())
        if member_of is not None:
            end_with_parent(member_of)
        settings = read_settings().with_values(redis_url=redis_url, state_dir=state_dir)
        with kept_server(settings) as url:
            serve(
                settings,
                url,
                queues or (DEFAULT_QUEUE,),
                name=name,
                isolate_tasks=isolation == "task",
                tasks_per_child=tasks_per_child,
                memory_limit_bytes=None if memory_limit is None else memory_limit * 1_000_000,
                process_limit=process_limit,
            )
    except OvernightError as error:
        click.echo(f"overnight worker: {error}", err=True)
        sys.exit(error.exit_status)


def serve(
    settings: Settings,
    url: str,
    queues: Sequence[str],
    *,
    name: str | None = None,
    isolate_tasks: bool = False,
    tasks_per_child: int = 100_000,
    memory_limit_bytes: int | None = None,
    process_limit: int = PROCESS_LIMIT,
) -> None:
    """Run one supervisor in this process until a signal stops it."""
    keyring = read_keyring()
    require_key(url, keyring)
    client, report = await_room(lambda: reach(url, settings))
    for warning in report.warnings:
        _logger.warning("%s", warning)
    load_rq(settings.prefix)
    # RQ has read its prefix now, so that the module with the subclass of its worker can be imported.
    from overnight_worker.daemon import Supervisor

    adopt_orphans()
    rarely_collect()
    post = Post(
        store=RedisStore(client, settings.prefix),
        keyring=keyring,
        settings=settings,
        queues=tuple(queues),
        name=name or f"{settings.host_name}:{os.getpid()}",
        isolate_tasks=isolate_tasks,
        tasks_per_child=tasks_per_child,
        memory_limit_bytes=memory_limit_bytes,
        process_limit=process_limit,
    )
    heartbeat = Heartbeat(post)
    spool = Spool(settings.state_dir / "spool", post.instance, keyring)
    queue_client = await_room(lambda: connect(url, settings=settings))
    foreman = Foreman(post, RqTransport(queue_client, settings.prefix), heartbeat, spool)
    Supervisor(queue_client, post, foreman, heartbeat, spool).serve()
    _logger.info("worker %s has stopped", post.name)


def main() -> None:
    """Run the command; what was typed wrongly is one sentence, as of every verb of overnight."""
    try:
        sys.exit(command.main(prog_name="overnight worker", standalone_mode=False))
    except click.ClickException as error:
        click.echo(f"overnight: {error.format_message()} 'overnight worker --help' shows what can be given.", err=True)
        sys.exit(error.exit_code)
