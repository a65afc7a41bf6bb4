"""A run whose record on the server is damaged does not keep the scheduler from other runs."""

from __future__ import annotations

import threading

import pytest
import redis

from overnight.config import Settings
from overnight.keyring import read_keyring
from overnight.messages import SpecChunk
from overnight.service.loop import Scheduler
from overnight.state_dir import wait_until
from overnight.store.records import Addition
from overnight.store.redis import RedisStore
from overnight.transport.memory import MemoryTransport
from tests.support.servers import connect
from tests.support.stores import run_record

SECONDS = 20.0
GARBAGE = b"\x80\x04garbage"


def put_in_place(store: RedisStore, run_id: str) -> None:
    """Submit a run of one task; runs are told apart by their queues."""
    record = run_record(run_id, key=run_id, place=f"/{run_id}", total=1)
    store.open_run(record, b"context")
    chunk = SpecChunk(0, ["task"], ["f"], [0], [[]], {})
    store.add_tasks(run_id, Addition(0, 1, chunk.sealed(run_id, read_keyring()), {0: b"message"}, {}))
    store.activate(run_id)


def damage(client: redis.Redis, run_id: str, how: str) -> None:
    """Delete or overwrite a part of what the server holds of the run."""
    key = f"{{test}}:run:{run_id}:"
    if how == "no states":
        assert client.delete(key + "states")
    elif how == "unknown states":
        client.setrange(key + "states", 0, GARBAGE[:2])
    elif how == "meta":
        assert not client.hset(key + "meta", "record", GARBAGE)
    else:
        client.hset(key + "batches", "batch", GARBAGE)
        client.set(key + "inflight", GARBAGE)


@pytest.mark.parametrize("how", ["no states", "unknown states", "meta", "another type"])
def test_a_damaged_run_is_left_alone_and_the_next_one_runs(
    redis_url: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """P1, P12, P17."""
    stop = threading.Event()
    transport = MemoryTransport()
    with connect(redis_url) as client, connect(redis_url) as own:
        store = RedisStore(client, "test")
        put_in_place(store, "r0")
        damage(client, "r0", how)
        put_in_place(store, "r1")
        scheduler = Scheduler(RedisStore(own, "test"), transport, read_keyring(), Settings(), "here", stop)
        thread = threading.Thread(target=scheduler.run)
        thread.start()
        try:
            entries: list[str] = []

            def r1_is_dispatched() -> bool:
                entry = transport.pop("default")
                entries.extend([entry.run_id] if entry else [])
                return "r1" in entries

            assert wait_until(r1_is_dispatched, SECONDS), caplog.text
        finally:
            stop.set()
            thread.join(SECONDS)
    assert "run r0 cannot be read and is left alone" in caplog.text
