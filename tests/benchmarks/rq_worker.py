"""One plain RQ worker that runs jobs in its own process: ``python -m tests.benchmarks.rq_worker URL QUEUE``."""

from __future__ import annotations

import sys

from redis import Redis
from rq import SimpleWorker

if __name__ == "__main__":
    SimpleWorker([sys.argv[2]], connection=Redis.from_url(sys.argv[1])).work(logging_level="ERROR")
