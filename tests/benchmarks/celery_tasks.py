"""Celery's tasks, for its worker and for whoever sends them; the server is in ``BENCH_URL``."""

from __future__ import annotations

import os

from celery import Celery

from tests.support import functions

URL = os.environ["BENCH_URL"]
app = Celery("bench", broker=f"{URL}/0", backend=f"{URL}/1")
app.conf.update(broker_connection_retry_on_startup=True, worker_hijack_root_logger=False)
noop = app.task(functions.noop)
pause = app.task(functions.pause)
one_more = app.task(functions.one_more)
