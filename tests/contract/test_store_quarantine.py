"""The contract of the store about hosts in quarantine (ADVERSITY P10)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from overnight.core.suspicion import EVIDENCE_SECONDS
from overnight.store.memory import MemoryStore
from overnight.store.records import Claim, ClaimRefused, Happening
from overnight.store.redis import RedisStore
from tests.support.stores import LEASE, Clock, Night, Store, batch_of, begin, failure, success, worker_record

HOUR = 3600.0


def meet(store: Store, instance: str, host: str, queues: Sequence[str] = ("default",), **more: object) -> None:
    """Register a worker."""
    worker = replace(worker_record(instance), host=host, queues=tuple(queues), **more)  # type: ignore[arg-type]
    store.register(worker, LEASE)


def condemn(store: Store, host: str, seconds: float = HOUR) -> None:
    """Hold so much against a host that it goes into quarantine."""
    for task in range(3):
        store.accuse(host, "r1", task, seconds)


def test_three_tasks_put_a_host_into_quarantine_for_so_long(store: Store) -> None:
    assert store.accuse("sick", "r1", 7, HOUR) == (1, 0.0)
    assert store.accuse("sick", "r2", 7, HOUR) == (2, 0.0)
    assert store.quarantines() == []
    number, seconds = store.accuse("sick", "r1", 8, HOUR)
    assert number == 3
    assert HOUR - 5 < seconds <= HOUR
    (found,) = store.quarantines()
    assert (found.host, found.tasks) == ("sick", (("r1", 7), ("r2", 7), ("r1", 8)))
    assert HOUR - 5 < found.seconds <= HOUR


def test_the_same_evidence_counts_once(store: Store) -> None:
    for _ in range(5):
        assert store.accuse("sick", "r1", 7, HOUR) == (1, 0.0)


def test_more_evidence_does_not_lengthen_a_quarantine(store: Store) -> None:
    condemn(store, "sick")
    number, seconds = store.accuse("sick", "r1", 9, 10 * HOUR)
    assert number == 4
    assert seconds <= HOUR


def test_a_host_in_quarantine_takes_nothing_that_others_serve(night: Night) -> None:
    meet(night.store, "w1", "sick", ("default", "big"))
    meet(night.store, "w2", "well")
    condemn(night.store, "sick")
    assert night.store.barred("w1") == ["default"]
    assert night.store.barred("w2") == []
    night.dispatch(batch_of("b", [0]), replace(batch_of("c", [1]), queue="big"))
    cursor = night.cursor()
    assert night.store.claim("r1", "b", "w1", 1, LEASE) == ClaimRefused("quarantined")
    assert night.store.follow("r1", cursor, 0) == []
    assert isinstance(night.store.claim("r1", "c", "w1", 2, LEASE), Claim)
    assert isinstance(night.store.claim("r1", "b", "w2", 1, LEASE), Claim)


def test_what_a_worker_holds_already_it_may_finish(night: Night) -> None:
    meet(night.store, "w1", "sick")
    meet(night.store, "w2", "well")
    claim = night.start("b", [0])
    condemn(night.store, "sick")
    assert night.claim("b") == claim
    assert night.commit("b", success(0)).lease_lost is False


def test_a_queue_is_never_left_without_a_worker(night: Night) -> None:
    """P11: a run ends, whatever is held against the only hosts that there are."""
    meet(night.store, "w1", "sick")
    condemn(night.store, "sick")
    assert night.store.barred("w1") == []
    meet(night.store, "w2", "ill")
    condemn(night.store, "ill")
    assert night.store.barred("w1") == night.store.barred("w2") == []
    night.start("b", [0])


@pytest.mark.parametrize(
    "lack", [{"draining": True}, {"python": "3.12.1"}, {"protocol": 2}, {"queues": ("big",)}, {"host": "sick"}]
)
def test_one_that_cannot_stand_in_does_not_count(store: Store, lack: dict[str, object]) -> None:
    meet(store, "w1", "sick", python="3.11.4")
    condemn(store, "sick")
    meet(store, "w2", **{"host": "well", "python": "3.11.9", **lack})  # type: ignore[arg-type]
    assert store.barred("w1") == []
    meet(store, "w2", "well", python="3.11.9")
    assert store.barred("w1") == ["default"]


def test_a_stand_in_that_is_gone_does_not_count(store: Store) -> None:
    meet(store, "w1", "sick")
    condemn(store, "sick")
    meet(store, "w2", "well")
    store.unregister("w2")
    assert store.barred("w1") == []


def test_a_worker_that_is_not_registered_is_not_barred(store: Store) -> None:
    meet(store, "w2", "well")
    condemn(store, "sick")
    assert store.barred("nobody") == []


def test_a_person_can_end_it_and_nothing_is_held_against_the_host_then(store: Store) -> None:
    meet(store, "w1", "sick")
    meet(store, "w2", "well")
    condemn(store, "sick")
    assert store.release("sick") is True
    assert store.release("sick") is False
    assert store.quarantines() == []
    assert store.barred("w1") == []
    assert store.accuse("sick", "r1", 9, HOUR) == (1, 0.0)


def test_it_ends_by_itself_and_what_led_to_it_is_spent(store: Store) -> None:
    meet(store, "w1", "sick")
    meet(store, "w2", "well")
    condemn(store, "sick", 0.000_001)
    assert store.quarantines() == []
    assert store.barred("w1") == []
    assert store.accuse("sick", "r1", 9, HOUR) == (1, 0.0)


def test_evidence_lapses() -> None:
    clock = Clock()
    store = MemoryStore(now=clock)
    store.accuse("sick", "r1", 1, HOUR)
    store.accuse("sick", "r1", 2, HOUR)
    clock.time += EVIDENCE_SECONDS
    assert store.accuse("sick", "r1", 3, HOUR) == (1, 0.0)


def test_evidence_lapses_on_a_server(server_store: RedisStore) -> None:
    """The server's clock cannot be moved, so the evidence is written as old as it has to be."""
    server_store.accuse("sick", "r1", 1, HOUR)
    server_store.accuse("ill", "r1", 1, HOUR)
    client, key = server_store.server.client, server_store.server.keys.shared("quarantine")
    old = server_store.now() - EVIDENCE_SECONDS
    client.hset(key, "sick", json.dumps({"until": 0, "evidence": {"r1 1": old, "r1 2": old}}))
    client.hset(key, "ill", json.dumps({"until": 0, "evidence": {"r1 1": old}}))
    assert server_store.accuse("sick", "r1", 3, HOUR) == (1, 0.0)
    assert client.hkeys(key) == [b"sick"]


@pytest.mark.parametrize("record", ["", "nonsense", "[]", '{"until":"soon"}', '{"until":9e99,"evidence":3}', "\x00"])
def test_a_damaged_record_counts_as_missing(server_store: RedisStore, record: str) -> None:
    """P12."""
    meet(server_store, "w1", "sick")
    meet(server_store, "w2", "well")
    condemn(server_store, "sick")
    server_store.server.client.hset(server_store.server.keys.shared("quarantine"), "sick", record)
    assert server_store.quarantines() == []
    assert server_store.barred("w1") == []
    assert server_store.accuse("sick", "r1", 9, HOUR) == (1, 0.0)


def test_followers_hear_that_a_process_died(night: Night) -> None:
    night.start("b", [0, 1])
    cursor = night.cursor()
    night.commit("b", failure(0)._replace(died=True), failure(1))
    (told,) = night.store.follow("r1", cursor, 0)
    assert told.what is Happening.COMMITTED
    assert [(report.task, report.died, report.hopeless) for report in told.reports] == [
        (0, True, False),
        (1, False, False),
    ]


def test_rubbish_among_the_workers_keeps_none_from_claiming(server_store: RedisStore) -> None:
    """A2: a quarantine has CLAIM read what all workers say of themselves, and anyone may have written that."""
    night, client = begin(server_store), server_store.server.client
    meet(server_store, "w1", "sick")
    condemn(server_store, "sick")
    junk = (b"", b"junk", b"1 ", b"1 {}", b"1 []", b"1 7", b'1 {"host":"a","python":7,"queues":["default"]}',
            b'1 {"host":"a","python":"3.11","queues":7}', b'1 {"host":{},"python":"3.11","queues":[]}',
            b'1 {"host":"a","python":"3.11","queues":[{}],"protocol":{}}')  # fmt: skip
    for at, text in enumerate(junk):
        client.hset("{test}:workers:records", f"junk{at}", text)
        client.zadd("{test}:workers", {f"junk{at}": 4e9})
    night.dispatch(batch_of("b", [0]))
    assert server_store.barred("junk0") == []
    assert isinstance(server_store.claim("r1", "b", "w1", 1, LEASE), Claim)


@pytest.mark.parametrize("junk", [b"", b"junk", b"[]", b"7", b"{}", b'{"until":0,"evidence":{"x":"y"}}',
                                  b'{"until":0,"evidence":[[]]}', b'{"until":"x","evidence":{}}'])  # fmt: skip
def test_rubbish_in_the_place_of_evidence_is_none(server_store: RedisStore, junk: bytes) -> None:
    """A2."""
    server_store.server.client.hset("{test}:quarantine", "sick", junk)
    server_store.server.client.hset("{test}:quarantine", "other", junk)
    assert server_store.accuse("sick", "r1", 7, HOUR) == (1, 0.0)
    assert server_store.quarantines() == []
