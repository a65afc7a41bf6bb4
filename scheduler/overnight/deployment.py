"""Where a client works: the server, the store on it, and the local processes that it needs.

With a URL the server is somebody's and only wanted local processes are started; without one everything belongs to the
state directory. Opening one is the edge at which settings, keys and the server's fitness are checked.
"""

from __future__ import annotations

import logging
import os
import time
from types import TracebackType
from typing import Self

from overnight import failpoints
from overnight.config import Settings
from overnight.errors import Refused, UsageError
from overnight.keyring import Keyring, read_keyring
from overnight.local_fleet import ensure_fleet
from overnight.store.redis import RedisStore
from overnight.store.server_check import reach, refusal_of_changes

_logger = logging.getLogger(__name__)

CHECK_SECONDS = 2.0
TELL_AGAIN_SECONDS = 60.0


def usable_cpus() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Deployment:
    """An open connection to one deployment, as a context. `store` plays every role; `keyring` seals and opens.

    `workers` is how many local workers serve `queue`: None means one per usable CPU on the embedded server and 0 with
    a URL. With local workers, or on the embedded server, a local scheduler runs too unless `scheduler` is False.

    Raises UsageError for unusable settings, Unreachable if the server cannot be reached, ServerUnfit if a run could be
    lost on it.
    """

    def __init__(
        self, settings: Settings, *, workers: int | None = None, queue: str = "default", scheduler: bool = True
    ) -> None:
        failpoints.arm()
        if not queue.strip():
            raise UsageError("A queue needs a name; an empty one was given.")
        self.settings = settings
        self.keyring: Keyring = read_keyring()
        self.queue = queue
        embedded = settings.redis_url is None
        if workers is None:
            workers = usable_cpus() if embedded else 0
        self.workers = workers
        self._lease = None
        if embedded or workers > 0:
            self._lease = ensure_fleet(
                settings.state_dir, workers=workers, queue=queue, redis_url=settings.redis_url, scheduler=scheduler
            )
        self.url = settings.redis_url or (self._lease.redis_url if self._lease else "")
        self._client, self.report = reach(self.url, settings)
        self.store = RedisStore(self._client, settings.prefix)
        self._checked_at = self._tell_at = time.monotonic()

    def check(self) -> None:
        """See that the local processes are kept alive, and tell people of a server that takes no changes: a follower
        only reads, and would wait in silence. Call it now and then while waiting."""
        now = time.monotonic()
        if now - self._checked_at <= CHECK_SECONDS:
            return
        self._checked_at = now
        if self._lease is not None:
            self._lease.check()
        refusal = refusal_of_changes(self._client, self.url) if now >= self._tell_at else None
        if refusal is not None:
            self._tell_at = now + TELL_AGAIN_SECONDS
            _logger.warning("%s The run waits for that.", refusal)

    def close(self, *, stop: bool = True) -> None:
        """Let go; with `stop`, local processes that nobody else uses end. May be repeated."""
        self._client.close()
        if self._lease is not None:
            self._lease.close(stop=stop)
            self._lease = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()


def open_for_reading(settings: Settings) -> Deployment:
    """Open what exists already, starting no scheduler and no worker. Raises Refused if nothing was ever run here."""
    if settings.redis_url is None and not settings.state_dir.exists():
        raise Refused(
            f"There are no runs here: {settings.state_dir} does not exist. Go to the directory where the run was "
            "started, or give --state-dir or --redis-url."
        )
    return Deployment(settings, workers=0, scheduler=False)
