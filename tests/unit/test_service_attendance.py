"""What the scheduler knows of workers, at a cost that does not grow with their number (ADVERSITY 7, row 54)."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from overnight.keyring import Keyring
from overnight.log_tails import sealed_tail
from overnight.service import attendance
from overnight.service.attendance import LEAST_SHARE, WORKERS_SECONDS, Attendance
from overnight.service.losses import Loss
from overnight.store.memory import MemoryStore
from overnight.store.records import WorkerRecord
from tests.support.stores import LEASE, worker_record

OPEN = Keyring()


class SlowStore(MemoryStore):
    """A store of which the list of workers takes `seconds` to read."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.reads = 0
        self.time = 1000.0

    def workers(self) -> list[WorkerRecord]:
        self.reads += 1
        self.time += self.seconds
        return super().workers()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> SlowStore:
    found = SlowStore(0.5)
    monkeypatch.setattr(attendance, "time", SimpleNamespace(monotonic=lambda: found.time))
    return found


def test_the_last_lines_of_a_silent_worker_are_known_when_its_registration_is_over(store: SlowStore) -> None:
    """And those of one that has spoken since are not."""
    known = Attendance(store, silent_seconds=-1.0)
    at_work = replace(worker_record("w1"), run_id="r1", batch="b", task=0)
    store.heartbeat(at_work, LEASE, (), b"lines")
    store.heartbeat(replace(at_work, instance="w2"), LEASE, (), b"others")
    store.time += WORKERS_SECONDS + LEAST_SHARE
    known.look_when_due(store.now())
    store.unregister("w1")
    store.heartbeat(replace(at_work, instance="w2"), LEASE, (), b"")
    store.time += WORKERS_SECONDS + LEAST_SHARE
    known.look_when_due(store.now())
    lost = known.loss_of("w1", "b")
    assert (lost.batch, lost.worker is not None and lost.worker.task, lost.tail) == ("b", 0, b"lines")
    assert known.loss_of("w2", "b").tail == b""
    assert known.loss_of("w3", "b").worker is None


def test_of_a_lost_worker_only_the_task_that_it_ran_is_told_of() -> None:
    said = replace(worker_record("w1"), run_id="r1", batch="b", task=0, task_since=100.0, clock=112.0, seen_at=50.0)
    told = Loss("b", said, sealed_tail("lines", "r1", 0, 1, OPEN)).certificate("r1", 0, 1, 70.0, OPEN)
    assert (told.started, told.ended, told.seconds, told.tail) == (38.0, 50.0, 12.0, "lines")
    for loss in (Loss("b", said), Loss("another", said), Loss("b", replace(said, run_id="r2")), Loss("b", None)):
        other = loss.certificate("r1", 1, 1, 70.0, OPEN)
        assert (other.started, other.ended, other.seconds, other.tail) == (None, 70.0, None, "")
    for tail in (b"rubbish", sealed_tail("lines", "r1", 0, 2, OPEN)):
        assert Loss("b", said, tail).certificate("r1", 0, 1, 70.0, OPEN).tail == ""
    unclear = Loss("b", replace(said, clock=0.0)).certificate("r1", 0, 1, 70.0, OPEN)
    assert (unclear.ended, unclear.seconds) == (70.0, None)


def test_workers_are_counted_by_queue_and_those_that_leave_are_not(store: SlowStore) -> None:
    store.register(worker_record("w1"), LEASE)
    store.register(replace(worker_record("w2"), queues=("big", "big")), LEASE)
    store.register(replace(worker_record("w3"), draining=True), LEASE)
    known = Attendance(store)
    assert known.on("big") == 0
    known.look_when_due(store.now())
    assert (known.on("default"), known.on("big"), known.on("other")) == (1, 2, 0)
    assert known.host_of("w3") == "host"
    assert store.reads == 1


def test_the_list_is_read_again_for_a_worker_that_is_not_known(store: SlowStore) -> None:
    known = Attendance(store)
    known.look_when_due(store.now())
    store.register(worker_record("w1"), LEASE)
    assert known.host_of("w1") == "host"
    assert known.host_of("w2") is None
    assert store.reads == 3


def test_a_list_that_takes_long_is_read_seldom_whoever_is_seen(store: SlowStore) -> None:
    """Row 54: ten thousand workers that start one after the other would have it read for each of them."""
    known = Attendance(store)
    known.look_when_due(store.now())
    began = store.time
    while store.reads < 2:
        known.saw("stranger")
        known.look_when_due(store.now())
        store.time += 0.1
    assert store.time - began >= LEAST_SHARE * store.seconds


def test_a_quick_list_is_read_at_once_for_a_stranger_and_else_at_intervals(store: SlowStore) -> None:
    store.seconds = 0.001
    known = Attendance(store)
    known.look_when_due(store.now())
    store.time += WORKERS_SECONDS / 2
    known.look_when_due(store.now())
    assert store.reads == 1
    known.saw("stranger")
    known.look_when_due(store.now())
    assert store.reads == 2
    store.time += WORKERS_SECONDS
    known.look_when_due(store.now())
    assert store.reads == 3
