"""The local processes of a state directory, as a client sees them: `ensure_fleet` and the lease it returns.

A client takes its place among the clients, says what it wants, sees that the server answers and that a keeper is
there. The keeper (`python -m overnight.local_fleet`, see `keeper`) does the rest.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from overnight.concealment import conceal_secrets
from overnight.config import VARIABLES, Settings, read_settings
from overnight.embedded import EmbeddedServer
from overnight.errors import OvernightError, Refused, Unreachable, UsageError
from overnight.fleet_files import WAKE, FleetFiles, fleet_files
from overnight.fleet_lease import FleetLease
from overnight.fleet_plan import Demand, FleetPlan, plan_from_json
from overnight.keeper import DRAIN_SECONDS, Keeper, fleet_environment
from overnight.slots import hold_slot
from overnight.state_dir import POLL_SECONDS, prepare_state_dir, try_lock, unlock

START_SECONDS = 30.0
IDLE_VARIABLE = VARIABLES["idle_seconds"]
GONE_VARIABLE = VARIABLES["gone_seconds"]
PREFIX_VARIABLE = "OVERNIGHT_PREFIX"
_URL_VARIABLE = "OVERNIGHT_REDIS_URL"
_ANSWER_SECONDS = 2.0

_logger = logging.getLogger(__name__)


def ensure_fleet(
    state_dir: str | os.PathLike[str],
    *,
    workers: int,
    queue: str = "default",
    redis_url: str | None = None,
    scheduler: bool = True,
    plan: FleetPlan | None = None,
    timeout: float = START_SECONDS,
) -> FleetLease:
    """See that the processes run, starting what is missing, and return the lease that keeps them.

    Without `redis_url` there is an embedded server too, and this waits at most `timeout` seconds until it answers;
    workers and scheduler come up by themselves. Any number of clients may call this at once. Raises UsageError,
    or Unreachable with the reason.
    """
    if workers < 0:
        raise UsageError(f"The number of workers must be 0 or more, not {workers}.")
    directory = prepare_state_dir(state_dir)
    files = fleet_files(directory, redis_url)
    files.prepare()
    server = EmbeddedServer(directory)
    demand = Demand({queue: workers}, scheduler)
    place = _take_place(files, timeout)
    try:
        wish = files.add_client(demand)
    except BaseException:
        unlock(place)
        raise
    lease = FleetLease(
        files,
        redis_url or "",
        place=place,
        wish=wish,
        keeper_command=_keeper_command(directory, queue, demand, plan),
        keeper_environment=_keeper_environment(redis_url),
        active_runs=count_active_runs,
        end_server=server.kill,
    )
    try:
        # The keeper first: if this process is killed in between, it ends what nobody uses.
        lease.check()
        files.tell_keeper(WAKE)
        if redis_url is None:
            with lease.in_place():
                lease.redis_url = server.ensure(timeout)
            lease.check()  # one that was being killed held its lock a moment ago
    except BaseException:
        lease.close(stop=True)
        raise
    return lease


@contextmanager
def kept_server(settings: Settings) -> Iterator[str]:
    """Give the URL of the server that the settings name, else of the embedded one, kept alive while this is open."""
    if settings.redis_url is not None:
        yield settings.redis_url
        return
    with ensure_fleet(settings.state_dir, workers=0, scheduler=False, timeout=settings.connect_seconds) as lease:
        yield lease.redis_url


def _take_place(files: FleetFiles, timeout: float) -> int:
    """Become one of the clients; waits while an unused fleet is being stopped."""
    deadline = time.monotonic() + timeout
    while True:
        place = try_lock(files.clients_lock, shared=True)
        if place is not None:
            return place
        if time.monotonic() >= deadline:
            raise Unreachable(f"The processes in {files.directory} were still being stopped after {timeout:g} s.")
        time.sleep(POLL_SECONDS)


def count_active_runs(redis_url: str) -> int:
    """Ask a Redis how many runs are not over; raise Unreachable without an answer."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    key = f"{{{os.environ.get(PREFIX_VARIABLE, 'overnight')}}}:runs:active"
    with redis.Redis.from_url(
        redis_url,
        socket_timeout=_ANSWER_SECONDS,
        socket_connect_timeout=_ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 0),
    ) as connection:
        try:
            return int(connection.scard(key))
        except redis.RedisError as error:
            raise Unreachable(f"Redis does not tell the active runs: {error}") from error


# The keeper's process.


def _keeper_command(directory: Path, queue: str, demand: Demand, plan: FleetPlan | None) -> list[str]:
    # -P: a module in the client's directory that is named like one of the library must not take its place.
    command = [sys.executable, "-P", "-m", "overnight.local_fleet", "--state-dir", str(directory)]
    command += ["--workers", str(demand.workers[queue]), "--queue", queue]
    command += [] if demand.scheduler else ["--no-scheduler"]
    return command + (["--plan", plan.to_json()] if plan else [])


def _keeper_environment(redis_url: str | None) -> dict[str, str]:
    """Return our environment with the URL, which may hold a password and so is no argument."""
    environment = {name: value for name, value in os.environ.items() if name != _URL_VARIABLE}
    return environment | ({_URL_VARIABLE: redis_url} if redis_url else {})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a keeper until its fleet is to end."""
    inherited_lock = hold_slot()
    conceal_secrets()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    parser = argparse.ArgumentParser(prog="python -m overnight.local_fleet", description=main.__doc__)
    parser.add_argument("--state-dir", required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--queue", default="default")
    parser.add_argument("--redis-url", default=os.environ.get(_URL_VARIABLE), help="a Redis elsewhere; none: embedded")
    parser.add_argument("--no-scheduler", dest="scheduler", action="store_false")
    parser.add_argument("--plan", type=plan_from_json, default=FleetPlan(), help="the commands to run, as JSON")
    parser.add_argument("--drain-seconds", type=float, default=DRAIN_SECONDS, help="until processes are killed")
    options = parser.parse_args(arguments)
    try:
        _keeper(options, inherited_lock).run()
    except OvernightError as error:
        _logger.error("%s", error)
        return error.exit_status
    return 0


def _keeper(options: argparse.Namespace, inherited_lock: int | None) -> Keeper:
    settings = read_settings()
    directory = prepare_state_dir(options.state_dir)
    files = fleet_files(directory, options.redis_url)
    files.prepare()
    server = None if options.redis_url else EmbeddedServer(directory)

    def url() -> str:
        return server.url if server else str(options.redis_url)

    return Keeper(
        files,
        options.plan,
        Demand({options.queue: options.workers}, options.scheduler),
        lock=_own_lock(files) if inherited_lock is None else inherited_lock,
        server=server,
        environment=lambda: fleet_environment(url(), directory),
        active_runs=lambda: count_active_runs(url()),
        before_end=lambda: _record_failures(url(), settings),
        idle_seconds=settings.idle_seconds,
        gone_seconds=settings.gone_seconds,
        drain_seconds=options.drain_seconds,
    )


def _record_failures(url: str, settings: Settings) -> None:
    from overnight.unseen_failures import record_unseen_failures  # which needs what a keeper does not until its end

    record_unseen_failures(url, replace(settings, connect_seconds=_ANSWER_SECONDS))


def _own_lock(files: FleetFiles) -> int:
    lock = try_lock(files.keeper_lock)
    if lock is None:
        raise Refused(f"A keeper already runs for {files.directory}.")
    os.ftruncate(lock, 0)
    os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    return lock


if __name__ == "__main__":
    sys.exit(main())
