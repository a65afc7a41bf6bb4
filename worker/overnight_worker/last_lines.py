"""The last lines of a task that runs for long, as its worker tells them with its signs of life.

They are the end of the task's log, as far as this attempt has written it, and of what it has printed since. A log may
lie on a file server that does not answer, so a thread reads them: a sign of life waits for it for a moment, and goes
without them then.
"""

from __future__ import annotations

import os
import threading
import time

from overnight.log_tails import LONGEST_TAIL_BYTES, sealed_tail
from overnight.messages import RunContext
from overnight_worker.answers import tail_of_log
from overnight_worker.batch import ClaimedBatch, Member
from overnight_worker.child_process import ChildProcess
from overnight_worker.post import Post

READING_SECONDS = 0.25


class LastLines:
    """Reads them, one task at a time: no second reading begins while one does not end."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._reading: threading.Thread | None = None

    def record(self, child: ChildProcess | None, batch: ClaimedBatch, context: RunContext) -> bytes | None:
        """Return the last lines of the task that the child runs, sealed; None if they cannot be had now.

        Empty if there are none, and for a task that has not run for longer than the time between two signs.
        """
        running = child.progress.running() if child is not None else None
        if child is None or running is None or time.monotonic() - running[1] < self._post.settings.heartbeat_seconds:
            return b""
        if self._reading is not None and self._reading.is_alive():
            return None
        member, found = batch.members[running[0]], list[str]()
        arguments = (child.output_copy(), member, batch.run_id, context, running[1], found)
        self._reading = threading.Thread(target=_read, args=arguments, name="last lines", daemon=True)
        self._reading.start()
        self._reading.join(READING_SECONDS)
        if not found or child.progress.running() != running:
            return None
        return sealed_tail(found[0], batch.run_id, member.task, member.attempt, self._post.keyring) if found[0] else b""


def _read(output: int, member: Member, run_id: str, context: RunContext, since: float, found: list[str]) -> None:
    """Append what the task has written last to `found`, unless its output was moved to its log meanwhile.

    `output` is the file of what it has printed and not logged yet, closed in the end; `since` is a time of the
    monotonic clock.
    """
    try:
        size = os.fstat(output).st_size
        started = time.time() - (time.monotonic() - since)
        logged = tail_of_log(member, run_id, context, started, LONGEST_TAIL_BYTES)
        end = os.fstat(output).st_size
        # One byte more than is told shows that the beginning is cut, and so where a line begins.
        printed = os.pread(output, LONGEST_TAIL_BYTES + 1, max(0, end - LONGEST_TAIL_BYTES - 1))
        if size <= end == os.fstat(output).st_size:
            found.append(logged + printed.replace(b"\0", b"").decode("utf-8", "backslashreplace"))
    finally:
        os.close(output)
