"""Huey's tasks, for its consumer and for whoever enqueues them; the server is in ``BENCH_URL``."""

from __future__ import annotations

import os

from huey import RedisHuey

from tests.support import functions

huey = RedisHuey("bench", url=os.environ["BENCH_URL"], store_none=True)
noop = huey.task()(functions.noop)
pause = huey.task()(functions.pause)
one_more = huey.task()(functions.one_more)
