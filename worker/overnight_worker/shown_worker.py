"""What RQ is told of a worker, so that `rq info` shows it: repeatable, never for ever, and no reason to end.

Whatever RQ's own loop calls without a guard passes over an outage here. Nothing of overnight's reads these records.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import RedisError
from rq import Queue
from rq.job import Job
from rq.utils import now, utcformat
from rq.worker import BaseWorker
from rq.worker_registration import WORKERS_BY_QUEUE_KEY, clean_worker_registry

from overnight.store.keys import UNTOUCHED_SECONDS

#: How long RQ shows a worker that has stopped without saying so.
SHOWN_SECONDS = 60
_logger = logging.getLogger("overnight.worker")


class ShownWorker(BaseWorker):
    """An RQ worker as far as its records go."""

    last_cleaned_at: Any
    _shown_at = float("-inf")

    def _set_ip_address(self, connection: Redis) -> None:
        """Find out from where this worker connects, for RQ to show.

        The client cannot read the server's answer where the path of a socket in it holds a space or ``=``.
        """
        try:
            super()._set_ip_address(connection)
        except ValueError:
            self.ip_address = "unknown"

    def register_birth(self) -> None:
        """Register, also where an earlier try was carried out and its reply lost: nobody else has this name."""
        self.connection.delete(self.key)
        super().register_birth()  # type: ignore[no-untyped-call]  # RQ leaves it without annotations

    def set_state(self, state: str, pipeline: Pipeline | None = None) -> None:
        """Tell RQ what this worker does. A record that is made anew by this, as RQ's was lost, has a lifetime too."""
        with self.connection.pipeline(transaction=False) as own:
            sent = own if pipeline is None else pipeline
            super().set_state(state, sent)
            sent.expire(self.key, SHOWN_SECONDS * 2)
            own.execute()

    def run_maintenance_tasks(self) -> None:
        """Forget workers that are gone and entries whose job has expired; requeue nothing, fail nothing."""
        self.last_cleaned_at = now()
        with self._left_to_next_time():
            for queue in self.queues:
                clean_worker_registry(queue)
                for job_id in queue.intermediate_queue.get_job_ids():
                    if not Job.exists(job_id, connection=self.connection):
                        queue.intermediate_queue.remove(job_id)

    def show_when_due(self) -> None:
        """Renew what RQ shows of this worker. While a batch runs, each sign of life asks for it."""
        moment = time.monotonic()
        if moment - self._shown_at >= SHOWN_SECONDS / 3:
            with self._left_to_next_time():
                self._show()
                self._shown_at = moment

    @contextmanager
    def _left_to_next_time(self) -> Iterator[None]:
        """Pass over an outage in what RQ's loop calls unguarded: the take that follows meets it, and waits it out."""
        try:
            yield
        except (RedisError, OSError) as error:
            _logger.debug("RQ's records of worker %s stay as they are: %s", self.name, error)

    def _show(self) -> None:
        self.last_heartbeat = now()
        with self.connection.pipeline(transaction=False) as sent:
            sent.hset(self.key, mapping=self.serialize() | {"last_heartbeat": utcformat(self.last_heartbeat)})
            sent.expire(self.key, SHOWN_SECONDS * 2)
            sent.sadd(self.redis_workers_keys, self.key)
            for shared in (self.redis_workers_keys, Queue.redis_queues_keys, *self._worker_lists, *self._taken_lists):
                sent.expire(shared, UNTOUCHED_SECONDS)
            sent.execute()

    @property
    def _taken_lists(self) -> list[str]:
        """The lists that hold what a worker has taken and not yet forgotten; one that is killed there leaves it."""
        return [queue.intermediate_queue_key for queue in self.queues]

    @property
    def _worker_lists(self) -> list[str]:
        return [WORKERS_BY_QUEUE_KEY % name for name in self.queue_names()]
