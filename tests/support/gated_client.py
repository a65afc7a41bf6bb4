"""A user's script: a gated graph through the queue executor, its log on standard error.

Arguments: the gate (a FIFO), the ledger, the status directory.
"""

from __future__ import annotations

import logging
import sys

from overnight.cache import FileTaskCache
from overnight.queue_executor import QueueExecutor
from tests.support.graphs import gated


def main(fifo: str, ledger: str, status_dir: str) -> int:
    """Run the graph; return 130 after an interrupt."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        with QueueExecutor(task_cache=FileTaskCache(status_dir), workers=2) as executor:
            list(executor.execute(gated(fifo=fifo, ledger=ledger, n=2)))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
