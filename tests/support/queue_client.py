"""A user's script: a ledger graph through the queue executor, each pair printed.

Arguments: the ledger, the status directory.
"""

from __future__ import annotations

import sys

from overnight.cache import FileTaskCache
from overnight.queue_executor import QueueExecutor
from tests.support.graphs import ledger_graph


def main(ledger: str, status_dir: str) -> None:
    """Run the graph; stop with status 1 unless all is well."""
    with QueueExecutor(task_cache=FileTaskCache(status_dir), workers=2) as executor:
        for task, result in executor.execute(ledger_graph(ledger=ledger, n=40, seconds=0.1)):
            print(task.task_id, result, flush=True)
    if executor.summary is None or not executor.summary.ok:
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
