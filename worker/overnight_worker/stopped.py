"""The end of a task that is not to go on: its process is killed, and its log gets what it had printed and why it ended.

Whoever cancels a task that hangs wants to know where it hung.
"""

from __future__ import annotations

import os
import time

from overnight.messages import RunContext
from overnight.naming import shown
from overnight_worker.answers import written_to_task_log
from overnight_worker.batch import ClaimedBatch
from overnight_worker.child_process import ChildProcess
from overnight_worker.nursery import Nursery

BY_CANCEL = "its run is cancelled or over"
BY_WORKER = "its worker ends"


def end_stopped(
    child: ChildProcess, nursery: Nursery, batch: ClaimedBatch, context: RunContext, worker: str, why: str | None
) -> None:
    """Kill a child, and tell in the log of the task that it runs `why`.

    None: the lease is lost. The task may run elsewhere by now, and its log is that attempt's.
    """
    output = child.output_copy()
    try:
        child.kill()
        running = child.progress.running()
        death = nursery.bury(child)
        if running is None or why is None:
            return
        member, seconds = batch.members[running[0]], time.monotonic() - running[1]
        peak = f"peak memory {death.peak_memory / 1e6:.0f} MB"
        end = f"was killed by worker {worker} after {seconds:.1f} s, as {why}; {peak}"
        with written_to_task_log(member, output, time.time() - seconds, batch.run_id, context) as log:
            log.write(f"{shown(member.facts.task_id)}: the process of the task {end}\n")
    finally:
        os.close(output)
