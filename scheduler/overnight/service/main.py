"""Start a scheduler: read settings, reach the server, check that a run is safe on it, run the loop until stopped."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from types import FrameType

from overnight import failpoints
from overnight.concealment import conceal_secrets
from overnight.config import Settings
from overnight.errors import OvernightError
from overnight.garbage import rarely_collect
from overnight.keyring import read_keyring
from overnight.local_fleet import kept_server
from overnight.service.identity import describe
from overnight.service.loop import Scheduler
from overnight.service.metrics_server import observing
from overnight.slots import hold_slot
from overnight.store.patience import await_room
from overnight.store.redis import RedisStore
from overnight.store.server_check import reach, require_key
from overnight.transport.rq import RqTransport

_logger = logging.getLogger("overnight.scheduler")

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


def main(settings: Settings) -> int:
    """Run a scheduler until SIGTERM or SIGINT; return the exit status. Faults are told in one sentence on stderr."""
    hold_slot()
    conceal_secrets()
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr)
    try:
        failpoints.arm()
        stop = _stop_on_signals()
        with kept_server(settings) as url:
            _serve(settings, url, stop)
    except OvernightError as error:
        print(f"overnight scheduler: {error}", file=sys.stderr)  # noqa: T201  # the one sentence that people read
        return error.exit_status
    return 0


def _serve(settings: Settings, url: str, stop: threading.Event) -> None:
    keyring = read_keyring()
    require_key(url, keyring)
    client, report = await_room(lambda: reach(url, settings), lambda seconds: stop.wait(seconds) and sys.exit(0))
    for warning in report.warnings:
        _logger.warning("%s", warning)
    store = RedisStore(
        client,
        settings.prefix,
        lease_seconds=settings.lease_seconds,
        heartbeat_seconds=settings.heartbeat_seconds,
    )
    transport = RqTransport(client, settings.prefix)
    with observing(settings.metrics) as observer:
        scheduler = Scheduler(store, transport, keyring, settings, describe(settings.resource_limits), stop, observer)
        rarely_collect()
        _logger.info("scheduler %d serves prefix %s", os.getpid(), settings.prefix)
        scheduler.run()


def _stop_on_signals() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return stop
