"""A scheduler whose server falls back goes on with what the server still knows."""

from __future__ import annotations

import copy
import threading

from overnight.config import Settings
from overnight.keyring import read_keyring
from overnight.messages import SpecChunk
from overnight.service.loop import Scheduler
from overnight.state_dir import wait_until
from overnight.store.memory import MemoryStore
from overnight.store.records import Addition
from overnight.transport.memory import MemoryTransport
from overnight.transport.port import Entry
from tests.support.stores import run_record

SECONDS = 20.0


def add_task(store: MemoryStore) -> None:
    """Add the task of the run, as its client does, and does again."""
    chunk = SpecChunk(0, ["t0"], ["f"], [0], [[]], {})
    store.add_tasks("r1", Addition(0, 1, chunk.sealed("r1", read_keyring()), {0: b"message"}, {}))
    store.activate("r1")


def next_entry(transport: MemoryTransport) -> Entry:
    """Wait for a queue entry and take it."""
    entries: list[Entry] = []

    def is_there() -> bool:
        entry = transport.pop("default")
        entries.extend([entry] if entry else [])
        return bool(entries)

    assert wait_until(is_there, SECONDS), "nothing was dispatched"
    return entries[0]


def test_a_task_that_a_server_lost_is_dispatched_when_it_is_added_again() -> None:
    """P9: the same scheduler has it in memory still; the run is not damaged, it knows less."""
    store, transport, stop = MemoryStore(), MemoryTransport(), threading.Event()
    store.open_run(run_record(total=1), b"context")
    scheduler = Scheduler(store, transport, read_keyring(), Settings(), "here", stop)
    thread = threading.Thread(target=scheduler.run)
    thread.start()
    try:
        assert wait_until(lambda: "r1" in scheduler._runs, SECONDS)
        with store._changed:
            saved = copy.deepcopy(store.data)
        add_task(store)
        first = next_entry(transport)
        with store._changed:
            store.data = saved
            store._changed.notify_all()
        assert wait_until(lambda: all(run.known == 0 for run in scheduler._runs.values()), SECONDS)
        add_task(store)
        assert next_entry(transport).batch != first.batch
    finally:
        stop.set()
        thread.join(SECONDS)
