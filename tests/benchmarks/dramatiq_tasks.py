"""Dramatiq's actors, for its worker and for whoever sends to them; the server is in ``BENCH_URL``."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from tests.support import functions

URL = os.environ["BENCH_URL"]
broker = RedisBroker(url=f"{URL}/0")
broker.add_middleware(Results(backend=RedisBackend(url=f"{URL}/1"), store_results=True))
dramatiq.set_broker(broker)
noop = dramatiq.actor(functions.noop)
pause = dramatiq.actor(functions.pause)
one_more = dramatiq.actor(functions.one_more)
