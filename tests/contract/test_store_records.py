"""The contract of the store towards those who tell people of a whole run: facts, errors, causes, certificates."""

from __future__ import annotations

from overnight.certificates import KEPT_ATTEMPTS
from overnight.core.events import Charge
from overnight.core.states import TaskState
from overnight.store.records import Happening, Verdict
from tests.support.stores import LEASE, NO_TIME, Night, Store, failure, success, worker_record


def test_records_of_one_kind_are_read_for_many_tasks_and_missing_ones_are_left_out(night: Night) -> None:
    night.start("b", [0, 1])
    night.commit("b", success(0), failure(1, certificate=b"why"))
    night.settle(Verdict(1, TaskState.FAILED), Verdict(2, TaskState.SKIPPED, cause=1))
    store, everyone = night.store, [0, 1, 2, 3]
    assert store.read_facts("r1", everyone) == {0: b'{"worker":"w"}', 1: b'{"worker":"w"}'}
    assert store.read_errors("r1", everyone) == {1: b"error 1"}
    assert store.read_causes("r1", everyone) == {2: 1}
    assert store.read_certificates("r1", everyone) == {1: [b"why"]}


def test_the_certificate_of_an_attempt_outlives_the_success_of_the_next(night: Night) -> None:
    """Unlike the error, which is that of a task that has failed."""
    night.start("b1", [0])
    night.commit("b1", failure(0, certificate=b"first"))
    night.settle(Verdict(0, TaskState.PENDING, Charge(1)))
    night.start("b2", [0], attempt=2)
    night.commit("b2", success(0))
    assert night.store.read_errors("r1", [0]) == {}
    assert night.store.read_certificates("r1", [0]) == {0: [b"first"]}


def test_of_many_attempts_the_latest_are_kept(night: Night) -> None:
    for attempt in range(1, KEPT_ATTEMPTS + 3):
        night.start(f"b{attempt}", [0], attempt=attempt)
        night.commit(f"b{attempt}", failure(0, certificate=b"%d" % attempt))
        night.settle(Verdict(0, TaskState.PENDING, Charge(attempt)))
    [kept] = night.store.read_certificates("r1", [0]).values()
    assert sorted(map(int, kept)) == list(range(3, KEPT_ATTEMPTS + 3))


def test_a_commit_that_is_repeated_keeps_one_certificate_and_a_superseded_one_keeps_none(night: Night) -> None:
    night.start("b1", [0, 1])
    for _ in range(2):
        night.commit("b1", failure(0, certificate=b"one"))
    night.commit("b1", failure(1, certificate=b"of somebody else"), worker="w2")
    assert night.store.read_certificates("r1", [0, 1]) == {0: [b"one"]}


def test_a_batch_of_successes_and_failures_keeps_each_certificate_with_its_task(night: Night) -> None:
    night.start("b", [0, 1, 2, 3])
    night.commit("b", failure(0, certificate=b"c0"), success(1), failure(2), failure(3, certificate=b"c3"))
    assert night.store.read_certificates("r1", [0, 1, 2, 3]) == {0: [b"c0"], 3: [b"c3"]}


def test_a_verdict_on_a_lost_worker_brings_its_certificate_and_reap_names_the_worker(night: Night) -> None:
    night.start("b", [0], seconds=NO_TIME)
    cursor = night.cursor()
    night.store.reap(night.epoch)
    (told,) = night.store.follow("r1", cursor, 0)
    assert (told.what, told.worker) == (Happening.REAPED, "w1")
    night.settle(Verdict(0, TaskState.PENDING, Charge(0, 1), certificate=b"lost"))
    assert night.store.read_certificates("r1", [0]) == {0: [b"lost"]}


def test_last_lines_stay_until_others_are_told_and_go_with_their_worker(store: Store) -> None:
    assert store.read_tail("w1") == b""
    store.heartbeat(worker_record("w1"), LEASE, [], b"first")
    store.heartbeat(worker_record("w2"), NO_TIME, [], b"of another")
    assert [store.read_tail(name) for name in ("w1", "w2")] == [b"first", b"of another"]
    store.heartbeat(worker_record("w1"), LEASE, [])
    assert [store.read_tail(name) for name in ("w1", "w2")] == [b"first", b""]
    store.heartbeat(worker_record("w1"), LEASE, [], b"second")
    assert store.read_tail("w1") == b"second"
    store.heartbeat(worker_record("w1"), LEASE, [], b"")
    assert store.read_tail("w1") == b""
    store.heartbeat(worker_record("w1"), LEASE, [], b"third")
    store.unregister("w1")
    assert store.read_tail("w1") == b""
