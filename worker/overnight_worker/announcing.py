"""Tell the store that a task begins which was dispatched before, ahead of its begin.

A worker that is lost with a batch may have been lost before any task of it began: its claim's answer never came, it
waited for inputs or for a child. That says nothing about the task. So a row of losses fails a task only if it is known
to have begun before all but one of them (`overnight.core.retry`). The store knows it from heartbeats, and from this
one, which a first attempt is spared: it costs a round trip.
"""

from __future__ import annotations

import time

from overnight_worker.batch import ClaimedBatch
from overnight_worker.child_process import ChildProcess
from overnight_worker.heartbeat import Heartbeat

CHILD_PAUSE_SECONDS, STORE_PAUSE_SECONDS = 0.01, 0.5


def is_announced(batch: ClaimedBatch, child: ChildProcess, heartbeat: Heartbeat) -> bool:
    """Tell whether the first open member may begin; False: not yet, after a pause, or the batch is not to go on."""
    first = batch.open_members()[0]
    if first.attempt == 1:
        return True
    if not child.is_up:
        time.sleep(CHILD_PAUSE_SECONDS)
        return False
    reply = heartbeat.beat((batch.run_id, batch.claim.batch), task=first.task, task_since=time.time())
    if reply is None:
        time.sleep(STORE_PAUSE_SECONDS)
        return False
    if reply.lost or reply.stop:
        # The session's own sign is due, and hears the same.
        heartbeat.due_at = 0.0
    return not (reply.lost or reply.stop)
