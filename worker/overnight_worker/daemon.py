"""The supervisor: an RQ worker whose jobs are overnight's batches.

RQ brings what it is good at: queues in order of preference, blocking takes, a registration that `rq info` shows, warm
and cold shutdown. What it would decide about jobs is set aside: no work-horse, no registries, no job results, no
maintenance of ten minutes, no commands from whoever may PUBLISH. A job that RQ loses is pushed again by the scheduler.
No outage of Redis ends the loop: whatever it raises is waited out here, for as long as it lasts.

This module is imported after `overnight.transport.rq.load_rq` has given RQ its key prefix.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.exceptions import DequeueTimeout, StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.worker import WorkerStatus

from overnight import failpoints
from overnight.errors import OvernightError
from overnight.naming import shown
from overnight.transport.rq import queue_key_name, queue_name_of
from overnight_worker.batch_job import BatchJob, entry_of
from overnight_worker.heartbeat import Heartbeat
from overnight_worker.job import Foreman
from overnight_worker.post import Post
from overnight_worker.quarantine import Quarantine
from overnight_worker.shown_worker import SHOWN_SECONDS, ShownWorker
from overnight_worker.spool import Spool

CLEANING_SECONDS = 600
LEFTOVERS_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 2.0
_logger = logging.getLogger("overnight.worker")


class Supervisor(ShownWorker):
    """An RQ worker that hands each job to a `Foreman`."""

    max_connection_wait_time = LONGEST_PAUSE_SECONDS
    log_result_lifespan = False

    def __init__(self, client: Redis, post: Post, foreman: Foreman, heartbeat: Heartbeat, spool: Spool) -> None:
        self._post = post
        self._foreman = foreman
        self._heartbeat = heartbeat
        heartbeat.on_beat = self.show_when_due
        self._quarantine = Quarantine(post, heartbeat)
        self._spool = spool
        self._leftovers_at = 0.0
        self._is_taking = False
        self._job: tuple[Job, Queue] | None = None
        self._ahead: tuple[Job, Queue] | None = None
        self._outage_since: float | None = None
        super().__init__(
            [queue_key_name(queue) for queue in post.queues],
            name=f"{post.name}.{post.instance[:8]}",
            connection=client,
            job_class=BatchJob,
            serializer=JSONSerializer,
            worker_ttl=SHOWN_SECONDS,
            maintenance_interval=CLEANING_SECONDS,
            log_job_description=False,
        )

    def serve(self) -> None:
        """Work until a signal asks to stop."""
        self._foreman.nursery.prepare()
        while not self._post.stopping.level:
            self.work(logging_level="WARNING")
            if not self._post.stopping.level:
                # RQ left its loop for a reason of its own; nothing but a signal ends a supervisor.
                self._post.stopping.clear_wakeup()
                time.sleep(1.0)

    # What RQ calls when a worker begins and ends.

    def bootstrap(self, *_: Any, **__: Any) -> None:
        """Register with RQ. Its loggers stay as they are; one line tells what this worker does."""
        self._patiently(self.register_birth)
        self._patiently(lambda: self.set_state(WorkerStatus.STARTED))
        _logger.info(
            "worker %s takes tasks from %s", self._post.name, ", ".join(shown(name) for name in self._post.queues)
        )

    def subscribe(self) -> None:
        """Do not listen to RQ's commands, which anyone who may publish can send."""

    def teardown(self) -> None:
        """Leave: end the child, tell RQ and the store."""
        self._foreman.finish()
        self.put_back()
        self._foreman.nursery.close()
        self._spool.close()
        for leave in (self.register_death, lambda: self._post.store.unregister(self._post.instance)):
            try:
                leave()
            except (RedisError, OvernightError) as error:
                _logger.info("the server does not hear that this worker leaves: %s", error)

    def request_stop(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002 - RQ's signature
        """First signal: take nothing new and drain. Second one: give everything back at once."""
        self._post.stopping.ask()
        self._stop_requested = True
        if self._is_taking:
            raise StopRequested

    def _install_signal_handlers(self) -> None:
        signal.signal(signal.SIGINT, self.request_stop)
        signal.signal(signal.SIGTERM, self.request_stop)

    # What RQ calls between jobs.

    def check_for_suspension(self, burst: bool) -> None:  # noqa: FBT001 - RQ's signature
        """Do not look at `rq suspend`: runs are paused with overnight's own command."""

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:  # noqa: ARG002 - RQ's signature
        """Renew the store's registration when it is due; now and then RQ's, and the lifetime of what RQ shares."""
        if time.monotonic() >= self._heartbeat.due_at:
            self._heartbeat.beat()
            self._quarantine.look()
        self.show_when_due()

    @property
    def dequeue_timeout(self) -> int:
        """How long RQ blocks for a job, in seconds: heartbeats are sent in between."""
        return max(1, int(self._post.settings.heartbeat_seconds))

    def dequeue_job_and_maintain_ttl(
        self,
        timeout: int | None,
        max_idle_time: int | None = None,  # noqa: ARG002 - RQ's signature
    ) -> tuple[Job, Queue] | None:
        """Wait for a job, sending heartbeats, through any outage."""
        pause = 0.1
        while not self._post.stopping.level:
            try:
                job = self._taken_at_once()
                if job is None:
                    self._foreman.finish()
                    job = self._taken(timeout)
            except DequeueTimeout:
                continue
            except (RedisError, OSError) as error:
                self._foreman.finish()
                self._wait_out(error, pause)
                pause = min(LONGEST_PAUSE_SECONDS, pause * 2)
                continue
            self._note_recovery()
            if job is not None:
                return job
        raise StopRequested

    def _taken_at_once(self) -> tuple[Job, Queue] | None:
        """Take a job if one is there, after another one, and unless something else is due between jobs.

        Nobody needs to hear that a worker is idle between two batches.
        """
        queues = self._open_queues()
        is_due = (
            time.monotonic() >= min(self._heartbeat.due_at, self._leftovers_at) or self.should_run_maintenance_tasks
        )
        if self._state != WorkerStatus.BUSY or len(queues) != 1 or is_due:
            return None
        with self._taking():
            return self._from_ahead() or self._taken_from(queues, None)

    def _taken(self, timeout: int | None) -> tuple[Job, Queue] | None:
        with self._taking():
            self.heartbeat()
            self._deliver_leftovers()
            if self.should_run_maintenance_tasks:
                self.run_maintenance_tasks()
            if self._post.stopping.level:
                raise StopRequested
            if self._ahead is not None:
                return self._from_ahead()
            queues = self._open_queues()
            if not queues:
                time.sleep(self.dequeue_timeout)
                return None
            if self._state != WorkerStatus.IDLE:
                self.set_state(WorkerStatus.IDLE)
            return self._taken_from(queues, timeout)

    @contextmanager
    def _taking(self) -> Iterator[None]:
        """Let a signal end what may wait for a job."""
        self._is_taking = True
        try:
            yield
        finally:
            self._is_taking = False

    def _open_queues(self) -> list[Queue]:
        return [queue for queue in self._ordered_queues if not self._quarantine.bars(queue_name_of(queue.name))]

    def _taken_from(self, queues: list[Queue], timeout: int | None) -> tuple[Job, Queue] | None:
        """Take a job, waiting `timeout` seconds for one; None: not at all. Raises DequeueTimeout after a wait."""
        taken = self.queue_class.dequeue_any(
            queues,
            timeout,
            connection=self.connection,
            job_class=self.job_class,
            serializer=self.serializer,
            death_penalty_class=self.death_penalty_class,
        )
        if taken is not None:
            failpoints.reach("worker.after_pop")
        return taken

    def _deliver_leftovers(self) -> None:
        if (moment := time.monotonic()) >= self._leftovers_at:
            self._leftovers_at = moment + LEFTOVERS_SECONDS
            self._foreman.deliver_leftovers()

    def _wait_out(self, error: Exception, pause: float) -> None:
        if self._outage_since is None:
            self._outage_since = time.monotonic()
            _logger.warning("the server cannot be used, waiting for it: %s", error)
        time.sleep(pause)

    def _note_recovery(self) -> None:
        if self._outage_since is not None:
            seconds = time.monotonic() - self._outage_since
            _logger.info("the server answers again after %.0f s", seconds)
            self._outage_since = None
            self._shown_at = float("-inf")
            self._leftovers_at = 0.0

    def _patiently(self, step: Callable[[], None]) -> None:
        pause = 0.1
        while not self._post.stopping.level:
            try:
                step()
            except (RedisError, OSError) as error:
                self._wait_out(error, pause)
                pause = min(LONGEST_PAUSE_SECONDS, pause * 2)
            else:
                return

    # A job.

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run the batch that a job names, here and under its lease. RQ learns nothing but that the job is gone."""
        entry = entry_of(job, queue)
        self._job = (job, queue)
        try:
            if entry is not None:
                self._foreman.run(entry, self)
        finally:
            self.clear()

    def clear(self) -> None:
        """Take the job out of RQ, while its batch runs already. Should that get no lease now, it is pushed again."""
        job, self._job = self._job, None
        if job is not None:
            self._forget(*job)

    def take_ahead(self) -> None:
        """Take the next job, if one is there, while the last task of a batch runs."""
        queues = self._open_queues()
        if self._ahead is not None or self._post.stopping.level or len(queues) != 1:
            return
        with suppress(RedisError, OSError):  # should one have been taken all the same, it is pushed again
            self._ahead = self._taken_from(queues, None)

    def put_back(self) -> None:
        """Give the job back that was taken ahead, if there is one."""
        taken = self._from_ahead()
        if taken is not None:
            self._forget(*taken)
            entry = entry_of(*taken)
            if entry is not None:
                self._foreman.put_back(entry)

    def _from_ahead(self) -> tuple[Job, Queue] | None:
        taken, self._ahead = self._ahead, None
        return taken

    def _forget(self, job: Job, queue: Queue) -> None:
        try:
            with self.connection.pipeline(transaction=False) as pipeline:
                self.set_state(WorkerStatus.BUSY, pipeline=pipeline)
                pipeline.lrem(queue.intermediate_queue_key, 1, job.id)
                pipeline.delete(job.key)
                pipeline.execute()
        except (RedisError, OSError) as error:
            _logger.debug("job %s stays until it expires: %s", job.id, error)
