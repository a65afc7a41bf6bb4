"""The supervisor's sign of life: it renews the worker's registration and the leases that it holds.

It comes from the supervisor's own loop, or from a thread while that loop writes a large result; never from a thread
beside user code, which may hold the GIL for hours.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from overnight import failpoints
from overnight.errors import MisusedKey, Unreachable
from overnight.store.records import LeaseReply, WorkerRecord
from overnight_worker.last_lines import LastLines
from overnight_worker.post import Post

_logger = logging.getLogger("overnight.worker")


class Heartbeat:
    """When the next sign is due, and what it says. `on_beat` is called after each sign that has reached the store."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self.due_at = 0.0
        self.on_beat: Callable[[], None] | None = None
        self.last_lines = LastLines(post)
        self._told_tail: bytes | None = None
        self._note = ""
        self._told: set[str] = set()
        self._about_itself = WorkerRecord(
            instance=post.instance,
            host=post.host,
            pid=os.getpid(),
            queues=tuple(post.queues),
            python=post.python,
            protocol=post.protocol,
            started_at=post.started_at,
            overnight=post.overnight,
            key="" if post.keyring.is_empty else post.keyring.signing_id,
        )

    def beat(
        self,
        *leases: tuple[str, str],
        task: int | None = None,
        task_since: float | None = None,
        memory: int = 0,
        tail: bytes | None = None,
    ) -> LeaseReply | None:
        """Send a sign, for leases (run id, batch), that of the batch at hand first; return what is said of it, None
        if the store cannot be reached.

        `task_since` is seconds since the epoch, `tail` the sealed last lines of the task, empty for none; None leaves
        those that were told, as long as there is a lease. What the store holds already is not sent again.
        """
        post = self._post
        self.due_at = time.monotonic() + post.settings.heartbeat_seconds
        record = replace(
            self._about_itself,
            run_id=leases[0][0] if leases else None,
            batch=leases[0][1] if leases else None,
            task=task,
            task_since=task_since,
            memory=memory,
            draining=post.stopping.level > 0,
            note=self._note,
            clock=time.time(),
        )
        return self._send(record, leases, tail if leases else b"")

    def _send(self, record: WorkerRecord, leases: Sequence[tuple[str, str]], tail: bytes | None) -> LeaseReply | None:
        post, news = self._post, None if tail == self._told_tail else tail
        try:
            failpoints.reach("worker.in_heartbeat")
            replies = post.store.heartbeat(record, post.settings.lease_seconds, leases, news)
        except Unreachable as error:
            # Whether it has come to the store is unknown.
            self._told_tail = None
            self.due_at = time.monotonic() + min(1.0, post.settings.heartbeat_seconds)
            if isinstance(error, MisusedKey):  # the server answers, so nobody else says that something is wrong
                self.tell_outage(f"no sign of life reaches the server: {error}")
            _logger.debug("no heartbeat: %s", error)
            return None
        if news is not None:
            self._told_tail = news
        self._told.clear()
        if self.on_beat is not None:
            self.on_beat()
        return replies[0] if replies else None

    @contextmanager
    def beside(self, *leases: tuple[str, str]) -> Iterator[None]:
        """Send signs from a thread of their own while this one writes what may take longer than a lease."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(self._post.settings.heartbeat_seconds):
                self.beat(*leases)

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def tell_outage(self, text: str) -> None:
        """Warn of an outage of the store, once until a sign has reached it again."""
        if text not in self._told:
            self._told.add(text)
            _logger.warning("%s", text)

    def say(self, note: str) -> None:
        """Have the next signs carry a note for people."""
        self._note = note
        self.due_at = 0.0
