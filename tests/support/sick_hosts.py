"""Graphs for hosts of which one kills what runs on it. A host is known to its tasks by the variable HOSTNAME."""

from __future__ import annotations

import os
import signal

from overnight.graph import TaskGraph
from tests.support.ledgers import write_line

#: A task that dies has this many attempts, so that it meets a well host sooner or later.
RETRIES = 100


def visits(*, ledger: str, n: int, sick: str = "", seconds: float = 0.05) -> TaskGraph:
    """``visit 0`` .. ``visit n-1``: each notes in the ledger on which host it began; on host `sick` it is killed."""
    graph = TaskGraph()
    for number in range(n):
        args = [ledger, f"visit {number}", sick, seconds]
        graph.create_task(f"visit {number}", visit, args=args, retries=RETRIES, retry_delay=0.01)
    return graph


def visit(ledger: str, task_id: str, sick: str, seconds: float) -> str:
    """Note the host and stay for a while; it is told apart by nothing else which host this is."""
    import time

    host = os.environ["HOSTNAME"]
    write_line(ledger, f"{host} {task_id}")
    if host == sick:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(seconds)
    return host
