"""Batches as RQ jobs on RQ queues: the scheduler's side of the transport.

Everything that RQ keeps lies under ``{prefix}:rq``, one slot with overnight's own keys, so that several deployments
can share a server and `rq info` shows this one's queues and workers once RQ_KEY_PREFIX is set for it. RQ reads that
prefix from the environment when it is first imported: `load_rq` imports it here, and takes the variable away again so
that tasks do not inherit it.

A job is a hint and nothing more. It carries run id and batch id as JSON; its id is the batch id; nothing of a user's
is in it, nothing in it is ever unpickled. RQ's defaults that would break a night are set aside: no job timeout, no
stored result, failures forgotten in minutes. A doubled entry finds its job gone, or its batch held, and ends at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from overnight.errors import StoreFull, Unreachable, UsageError
from overnight.transport.port import Entry

if TYPE_CHECKING:
    from rq import Queue

PREFIX_VARIABLE = "RQ_KEY_PREFIX"
JOB_FUNCTION = "overnight_worker.job.run_batch"
NO_TIMEOUT = -1
FAILURE_SECONDS = 600
#: A job that waited longer is gone from its queue in effect; the scheduler pushes its batch again.
ENTRY_SECONDS = 24 * 3600
#: How long a queue is kept after the last entry was added to it.
QUEUE_SECONDS = 30 * 24 * 3600
_FULL = ("OOM", "MISCONF")


def rq_prefix(prefix: str) -> str:
    """Return the key prefix of RQ in a deployment: to be given to `rq info` as RQ_KEY_PREFIX."""
    return f"{{{prefix}}}:rq"


def load_rq(prefix: str) -> None:
    """Import RQ under the deployment's prefix. Raise UsageError if this process imported it under another one."""
    wanted = rq_prefix(prefix)
    former = os.environ.get(PREFIX_VARIABLE)
    if "rq.defaults" not in sys.modules:
        os.environ[PREFIX_VARIABLE] = wanted
    try:
        from rq.defaults import RQ_KEY_PREFIX
    finally:
        _restore(former)
    if wanted != RQ_KEY_PREFIX:
        raise UsageError(
            f"RQ was imported in this process with the key prefix {RQ_KEY_PREFIX!r}, overnight needs {wanted!r}. "
            f"Import overnight first, or set {PREFIX_VARIABLE}={wanted} for this process."
        )


def _restore(former: str | None) -> None:
    if former is None:
        os.environ.pop(PREFIX_VARIABLE, None)
    else:
        os.environ[PREFIX_VARIABLE] = former


def queue_key_name(queue: str) -> str:
    """Return a queue's name as RQ knows it: any text, with what is unsafe in a key or a list of names encoded."""
    return quote(queue, safe="")


def queue_name_of(key_name: str) -> str:
    """Return the queue that `queue_key_name` encoded."""
    return unquote(key_name)


class RqTransport:
    """The queues of one deployment, on RQ."""

    def __init__(self, client: Redis, prefix: str) -> None:
        load_rq(prefix)
        self._client = client
        self._queues: dict[str, Queue] = {}

    def push(self, entries: Sequence[Entry]) -> None:
        """Add the entries to their queues, in order, urgent ones in front, in one pipeline. One that waits is doubled.

        A queue that nobody serves any more expires.
        """
        if not entries:
            return
        by_queue: dict[str, dict[str, Entry]] = {}
        for entry in entries:
            by_queue.setdefault(entry.queue, {})[entry.batch] = entry
        with _translated(), self._client.pipeline() as pipeline:
            for name, waiting in by_queue.items():
                queue = self._queue(name)
                queue.enqueue_many([_job_data(queue, entry) for entry in waiting.values()], pipeline=pipeline)
                pipeline.expire(queue.key, QUEUE_SECONDS)
            pipeline.execute()

    def missing(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return those entries that are in no queue's list, or whose job has expired."""
        if not entries:
            return []
        names = list({entry.queue: None for entry in entries})
        with _translated(), self._client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.lrange(self._queue(name).key, 0, -1)
            for entry in entries:
                pipeline.exists(_job_key(entry.batch))
            replies = pipeline.execute()
        listed = {name: set(ids) for name, ids in zip(names, replies, strict=False)}
        return [
            entry
            for entry, exists in zip(entries, replies[len(names) :], strict=True)
            if not exists or entry.batch.encode() not in listed[entry.queue]
        ]

    def remove(self, entries: Sequence[Entry]) -> None:
        """Take the entries off their queues, doubled ones too, with their jobs."""
        if not entries:
            return
        with _translated(), self._client.pipeline() as pipeline:
            for entry in entries:
                pipeline.lrem(self._queue(entry.queue).key, 0, entry.batch)
                pipeline.delete(_job_key(entry.batch))
            pipeline.execute()

    def depth(self, queue: str) -> int:
        """Return the number of entries that wait on the queue."""
        with _translated():
            return int(self._queue(queue).count)

    def _queue(self, name: str) -> Queue:
        found = self._queues.get(name)
        if found is None:
            from rq import Queue
            from rq.serializers import JSONSerializer

            found = Queue(queue_key_name(name), connection=self._client, serializer=JSONSerializer)
            self._queues[name] = found
        return found


def _job_data(queue: Queue, entry: Entry) -> Any:
    return queue.prepare_data(
        JOB_FUNCTION,
        args=[entry.run_id, entry.batch],
        job_id=entry.batch,
        description=entry.batch,
        timeout=NO_TIMEOUT,
        result_ttl=0,
        failure_ttl=FAILURE_SECONDS,
        ttl=ENTRY_SECONDS,
        at_front=entry.urgent,
    )


def _job_key(batch: str) -> str:
    from rq.job import Job

    return Job.key_for(batch)


@contextmanager
def _translated() -> Iterator[None]:
    """Raise what Redis raises as the port's errors."""
    try:
        yield
    except ResponseError as error:
        if str(error).startswith(_FULL) or any(f" {word} " in str(error) for word in _FULL):
            raise StoreFull(f"The server takes no queue entries: {error}") from error
        raise Unreachable(f"The server refused a queue command: {error}") from error
    except (RedisError, OSError) as error:
        raise Unreachable(f"The queues cannot be reached: {error}") from error
