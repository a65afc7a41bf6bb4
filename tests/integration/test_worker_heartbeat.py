"""Signs of life while the supervisor itself is busy."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import redis

from overnight.config import read_settings
from overnight.keyring import Keyring
from overnight.store.records import LeaseReply
from overnight.store.redis import RedisStore
from overnight_worker.heartbeat import Heartbeat
from overnight_worker.post import Post


class CountedBeats(RedisStore):
    """A store that tells of each heartbeat."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(client, "beats")
        self.beats = threading.Semaphore(0)
        self.leases: list[Sequence[tuple[str, str]]] = []

    def heartbeat(
        self, worker: Any, seconds: float, leases: Sequence[tuple[str, str]], tail: bytes | None = None
    ) -> list[LeaseReply]:
        replies = super().heartbeat(worker, seconds, leases, tail)
        self.leases.append(leases)
        self.beats.release()
        return replies


def test_signs_go_on_while_a_large_result_is_written(redis_url: str) -> None:
    """P6: a write may take longer than a lease; the signs name the lease, and end with the write."""
    with redis.Redis.from_url(redis_url) as client:
        store = CountedBeats(client)
        settings = replace(read_settings(), heartbeat_seconds=0.05)
        post = Post(store, Keyring(), settings, ("default",), "worker")
        threads = threading.active_count()
        with Heartbeat(post).beside(("run", "batch")):
            assert all(store.beats.acquire(timeout=30) for _ in range(3))
        assert threading.active_count() == threads
        assert set(map(tuple, store.leases)) == {(("run", "batch"),)}
        assert [record.instance for record in store.workers()] == [post.instance]
