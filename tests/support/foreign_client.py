"""A user's script whose workers belong to somebody else: results too large for Redis, by a fleet that runs already.

Arguments: the state directory, the status directory, the ledger. Prints what each task gave.
"""

from __future__ import annotations

import sys

from overnight.cache import FileTaskCache
from overnight.graph import TaskGraph
from overnight.queue_executor import QueueExecutor
from tests.support.ledgers import write_line

TASKS = 3
BYTES = 1 << 20


def large(ledger: str, number: int) -> bytes:
    """Note the start, and return so much that it stays in its flag."""
    write_line(ledger, f"start entry {number}")
    return bytes(BYTES)


def main(state_dir: str, status_dir: str, ledger: str) -> None:
    """Run the graph."""
    graph = TaskGraph()
    for number in range(TASKS):
        graph.create_task(f"entry {number}", large, args=[ledger, number])
    with QueueExecutor(task_cache=FileTaskCache(status_dir), workers=1, state_dir=state_dir) as executor:
        for task, result in executor.execute(graph):
            print(f"{task.task_id}: {len(result) if isinstance(result, bytes) else repr(result)}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
