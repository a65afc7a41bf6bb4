"""The contract of the store towards workers: claims, commits, leases, what is given back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overnight.core.states import TaskState
from overnight.store.records import ClaimRefused, CommitReply, Happening, LeaseReply, Verdict
from tests.support.stores import (
    ACCEPTED,
    LEASE,
    NO_TIME,
    SUPERSEDED,
    Night,
    Store,
    batch_of,
    begin,
    digest_of,
    failure,
    lineage,
    success,
    worker_record,
)


def test_a_claim_holds_all_that_the_worker_needs(night: Night) -> None:
    batch = replace(batch_of("b", [2, 0]), queue="big")
    night.dispatch(batch)
    claim = night.claim("b")
    assert (claim.batch, claim.queue, claim.lease_seconds) == ("b", "big", LEASE)
    assert (claim.tasks, claim.attempts) == ((2, 0), (1, 1))
    assert claim.messages == (b"message 2", b"message 0")
    assert claim.lineages == (lineage(2), lineage(0))
    assert claim.context == b"context"
    assert claim.run == night.store.run("r1")
    assert night.states() == "xpxp"


def test_the_same_claim_twice_gets_the_same_answer(night: Night) -> None:
    claim = night.start("b", [0, 1])
    cursor = night.cursor()
    assert night.claim("b") == claim
    assert night.store.follow("r1", cursor, 0) == []


def test_a_batch_has_one_holder(night: Night) -> None:
    """A second delivery ends without running anything (ADVERSITY 1)."""
    night.start("b", [0])
    assert night.store.claim("r1", "b", "w2", 1, LEASE) == ClaimRefused("held")
    assert night.store.claim("r1", "b", "w1", 2, LEASE) == ClaimRefused("held")
    night.commit("b", success(0))
    assert night.store.claim("r1", "b", "w1", 1, LEASE) == ClaimRefused("finished, withdrawn or unknown")


def test_only_what_is_still_queued_is_handed_out(night: Night) -> None:
    night.start("b1", [0, 1, 2], seconds=NO_TIME)
    night.store.reap(night.epoch)
    night.dispatch(batch_of("b2", [0, 1], 2), batch_of("b3", [2], 2))
    night.commit("b1", success(1), success(2))
    assert night.claim("b2").tasks == (0,)
    assert night.store.claim("r1", "b3", "w1", 1, LEASE) == ClaimRefused("finished")
    assert not night.commit("b2", success(0)).lease_lost
    assert night.store.load_run("r1").flights == []


def test_a_commit_records_and_a_repeat_answers_the_same(night: Night) -> None:
    night.start("b", [0, 1, 2])
    reply = night.commit("b", success(0), failure(1))
    assert reply == CommitReply((ACCEPTED, ACCEPTED))
    cursor = night.cursor()
    assert night.commit("b", success(0), failure(1)) == reply
    last = night.commit("b", success(2))
    assert night.commit("b", success(2)) == last == CommitReply((ACCEPTED,))
    assert [event.what for event in night.store.follow("r1", cursor, 0)] == [Happening.COMMITTED]
    assert night.states() == "dtdp"
    assert night.store.read_results("r1", range(4)) == {0: b"value 0", 2: b"value 2"}
    assert night.store.read_digests("r1", [2, 1]) == [digest_of("value 2"), bytes(32)]


def test_followers_hear_what_was_committed(night: Night) -> None:
    night.start("b", [0, 1])
    cursor = night.cursor()
    night.commit("b", success(0), failure(1, hopeless=True))
    (told,) = night.store.follow("r1", cursor, 0)
    assert (told.what, told.batch, told.worker) == (Happening.COMMITTED, "b", "w1")
    done, tried = told.reports
    assert (done.task, done.ok, done.digest, done.seconds, done.hopeless) == (
        0,
        True,
        digest_of("value 0"),
        0.25,
        False,
    )
    assert (tried.task, tried.ok, tried.digest, tried.seconds, tried.hopeless) == (1, False, b"", None, True)


def test_a_repeat_is_recognised_after_the_verdict(night: Night) -> None:
    night.start("b", [0])
    night.commit("b", failure(0))
    night.settle(Verdict(0, TaskState.PENDING))
    assert night.commit("b", failure(0)).acceptances == (ACCEPTED,)
    assert night.states() == "pppp"
    night.start("b2", [0], attempt=2)
    assert night.commit("b", failure(0)).acceptances == (ACCEPTED,)
    assert night.states() == "xppp"


def test_another_value_from_the_accepted_batch_is_superseded(night: Night) -> None:
    night.start("b", [0, 1])
    night.commit("b", success(0))
    assert night.commit("b", success(0, of="other")).acceptances == (SUPERSEDED,)
    assert night.commit("b", success(1), success(1)).acceptances == (ACCEPTED, SUPERSEDED)


def test_a_success_of_another_lineage_is_superseded_and_runs_again(night: Night) -> None:
    """P4."""
    night.start("b", [0, 1])
    cursor = night.cursor()
    reply = night.commit("b", success(0, used=lineage(9)), success(1))
    assert reply == CommitReply((SUPERSEDED, ACCEPTED))
    assert night.states() == "pdpp"
    told = night.store.follow("r1", cursor, 0)
    assert [(event.what, event.tasks) for event in told] == [(Happening.COMMITTED, ()), (Happening.RETURNED, (0,))]


def test_a_late_success_of_another_lineage_changes_nothing(night: Night) -> None:
    """P4."""
    night.start("b1", [0], seconds=NO_TIME)
    night.store.reap(night.epoch)
    night.start("b2", [0], attempt=2, lineages=[lineage(7)])
    assert night.commit("b1", success(0)).acceptances == (SUPERSEDED,)
    assert night.states() == "xppp"
    assert night.commit("b2", success(0, used=lineage(7))).acceptances == (ACCEPTED,)


def test_a_failure_counts_only_from_the_holder_of_the_current_batch(night: Night) -> None:
    """P2."""
    night.start("b1", [0], seconds=NO_TIME)
    assert night.commit("b1", failure(0), worker="w2").acceptances == (SUPERSEDED,)
    night.store.reap(night.epoch)
    assert night.commit("b1", failure(0)).acceptances == (SUPERSEDED,)
    night.start("b2", [0], attempt=2)
    assert night.commit("b1", failure(0)).acceptances == (SUPERSEDED,)
    assert night.states() == "xppp"


def test_a_success_after_the_failure_of_the_same_task_counts_while_it_is_open(night: Night) -> None:
    night.start("b1", [0], seconds=NO_TIME)
    night.store.reap(night.epoch)
    night.start("b2", [0], attempt=2)
    night.commit("b2", failure(0))
    assert night.commit("b1", success(0)).acceptances == (ACCEPTED,)
    assert night.states() == "dppp"
    assert night.store.tasks("r1", [0])[0].error is None


@pytest.mark.parametrize("state", [TaskState.FAILED, TaskState.SKIPPED, TaskState.CANCELLED])
def test_a_success_of_a_task_that_was_given_up_is_superseded(night: Night, state: TaskState) -> None:
    night.start("b1", [0], seconds=NO_TIME)
    night.store.reap(night.epoch)
    night.settle(Verdict(0, state, cause=1 if state is TaskState.SKIPPED else None))
    reply = night.commit("b1", success(0))
    assert (reply.acceptances, reply.known) == ((SUPERSEDED,), True)


def test_a_chain_in_one_batch_commits_after_its_predecessors(night: Night) -> None:
    """P5."""
    night.start("b", [0, 1, 2], lineages=[lineage(0), b"", b""])
    assert night.commit("b", success(0)).acceptances == (ACCEPTED,)
    assert night.commit("b", success(1), success(2)).acceptances == (ACCEPTED, ACCEPTED)
    assert night.states() == "dddp"


@pytest.mark.parametrize("at_once", [True, False], ids=["in one call", "one by one"])
def test_a_chain_whose_first_member_is_refused_commits_nothing_of_the_rest(night: Night, at_once: bool) -> None:
    """P5: nor after another result of its predecessor, which came meanwhile from an earlier batch."""
    night.start("b1", [0], seconds=NO_TIME)
    night.store.reap(night.epoch)
    assert night.dispatch(replace(batch_of("b2", [0, 1, 2]), attempts=(2, 1, 1), lineages=(lineage(0), b"", b"")))
    night.claim("b2")
    assert night.commit("b1", success(0)).acceptances == (ACCEPTED,)
    reports = [success(0, of="later"), success(1), success(2)]
    calls = [reports] if at_once else [[report] for report in reports]
    assert {one for call in calls for one in night.commit("b2", *call).acceptances} == {SUPERSEDED}
    assert night.states() == "dppp"
    assert night.store.read_digests("r1", [0]) == [digest_of("value 0")]


def test_a_chain_member_is_never_taken_from_a_batch_that_lost_its_lease(night: Night) -> None:
    """P5."""
    night.start("b", [0, 1], lineages=[lineage(0), b""], seconds=NO_TIME)
    night.store.reap(night.epoch)
    assert night.commit("b", success(0), success(1)).acceptances == (ACCEPTED, SUPERSEDED)
    assert night.states() == "dppp"


def test_a_chain_member_after_a_failure_goes_back(night: Night) -> None:
    night.start("b", [0, 1], lineages=[lineage(0), b""])
    assert night.commit("b", failure(0), success(1)).acceptances == (ACCEPTED, SUPERSEDED)
    assert night.states() == "tppp"


def test_a_commit_to_a_run_or_dispatch_that_is_gone_is_to_be_offered_again(night: Night) -> None:
    reply = night.store.commit("gone", "b", "w1", [success(0)], LEASE)
    assert (reply.known, reply.acceptances, reply.lease_lost) == (False, (SUPERSEDED,), True)
    reply = night.commit("never dispatched", success(0))
    assert (reply.known, reply.acceptances) == (False, (SUPERSEDED,))
    assert not night.commit("b", success(77)).known
    assert night.states() == "pppp"


def test_a_commit_without_reports_renews_the_lease(night: Night) -> None:
    night.start("b", [0], seconds=NO_TIME)
    assert night.commit("b") == CommitReply(())
    assert night.store.reap(night.epoch) == []
    assert night.commit("b", worker="w2") == CommitReply((), lease_lost=True)


def test_a_result_has_a_digest(night: Night) -> None:
    night.start("b", [0])
    with pytest.raises(ValueError, match="32 bytes"):
        night.commit("b", success(0)._replace(digest=b"short"))


def test_hundreds_of_reports_go_in_one_call(store: Store) -> None:
    night = begin(store, 1100)
    for start in range(0, 1100, 275):
        night.start(f"b{start}", range(start, start + 275))
    reports = [success(task) for task in range(275)]
    assert night.commit("b0", *reports).acceptances == (ACCEPTED,) * 275
    reply = night.commit("b275", *[success(task) for task in range(275, 1100)])
    assert reply.acceptances == (ACCEPTED,) * 825, "the lineage fits, so the batch does not matter"
    assert night.states() == "d" * 1100


def test_tasks_given_back_run_again_uncharged(night: Night) -> None:
    """P15."""
    night.start("b", [0, 1, 2])
    night.commit("b", success(0))
    cursor = night.cursor()
    for _ in range(2):
        night.store.give_back("r1", "b", "w1", [2, 0])
    (told,) = night.store.follow("r1", cursor, 0)
    assert (told.what, told.batch, told.tasks) == (Happening.RETURNED, "b", (2,))
    assert night.states() == "dxpp"
    night.store.give_back("r1", "b", "w1", [1])
    assert night.store.load_run("r1").flights == []
    assert night.store.load_run("r1").charges == {}
    assert night.store.heartbeat(worker_record(), LEASE, [("r1", "b")])[0].lost


def test_only_the_holder_gives_back(night: Night) -> None:
    night.start("b", [0])
    night.store.give_back("r1", "b", "w2", [0])
    night.store.give_back("r1", "unknown", "w1", [0])
    assert night.states() == "xppp"


def test_a_lease_is_renewed_for_its_holder_alone(night: Night) -> None:
    night.start("b", [0])
    asked = [("r1", "b"), ("r1", "unknown"), ("gone", "b")]
    kept, lost, gone = LeaseReply(lost=False, stop=False), LeaseReply(lost=True, stop=False), LeaseReply(True, True)
    assert night.store.heartbeat(worker_record("w1"), LEASE, asked) == [kept, lost, gone]
    assert night.store.heartbeat(worker_record("w2"), LEASE, asked) == [lost, lost, gone]


def test_workers_are_known_while_they_announce_themselves(store: Store) -> None:
    store.register(worker_record("w1"), LEASE)
    store.heartbeat(worker_record("w2"), NO_TIME, [])
    (seen,) = store.workers()
    assert replace(seen, seen_at=0.0) == worker_record("w1")
    assert seen.seen_at > 0
    store.register(replace(worker_record("w1"), draining=True), LEASE)
    assert [worker.draining for worker in store.workers()] == [True]
    store.unregister("w1")
    store.unregister("w1")
    assert store.workers() == []
