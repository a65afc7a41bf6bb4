"""The contract of the store towards the scheduler: epochs, dispatching, verdicts, reaping, the end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overnight.core.events import Charge, Flight
from overnight.core.states import RunPhase, TaskState
from overnight.errors import Fenced, UnknownRun
from overnight.store.records import (
    ClaimRefused,
    Epoch,
    EpochHeld,
    Happening,
    LeaseReply,
    Opening,
    Reaped,
    Request,
    Verdict,
)
from overnight.store.redis import RedisStore
from tests.support.stores import (
    ACCEPTED,
    LEASE,
    NO_TIME,
    SUPERSEDED,
    Night,
    Store,
    batch_of,
    begin,
    failure,
    run_record,
    success,
    worker_record,
)


def test_one_scheduler_holds_the_epoch_and_may_renew_it(store: Store) -> None:
    epoch = store.take_epoch("one", "host:1", LEASE)
    assert epoch == Epoch(1, "one")
    assert store.take_epoch("one", "", LEASE) == epoch
    held = store.take_epoch("two", "host:2", LEASE)
    assert isinstance(held, EpochHeld)
    assert (held.holder, held.description) == ("one", "host:1")
    assert 0 < held.seconds <= LEASE


def test_readers_see_who_holds_the_epoch(store: Store) -> None:
    """QX2."""
    assert store.scheduler() is None
    epoch = store.take_epoch("one", "host:1", LEASE)
    assert isinstance(epoch, Epoch)
    held = store.scheduler()
    assert held is not None
    assert (held.holder, held.description) == ("one", "host:1")
    assert 0 < held.seconds <= LEASE
    store.leave_epoch(epoch)
    assert store.scheduler() is None


def test_an_epoch_that_ran_out_is_taken_over_with_the_next_number(store: Store) -> None:
    """P7."""
    first = store.take_epoch("one", "", NO_TIME)
    assert store.take_epoch("two", "", LEASE) == Epoch(2, "two")
    assert isinstance(first, Epoch)
    store.leave_epoch(first)
    assert isinstance(store.take_epoch("one", "", LEASE), EpochHeld)


def test_an_epoch_from_before_the_clock_was_moved_back_runs_out_after_a_few_terms(store: Store) -> None:
    """P7, P14: its holder is dead, or renews it long before."""
    first = store.take_epoch("one", "", 24 * 3600)
    held = store.take_epoch("two", "", 2.0)
    assert isinstance(held, EpochHeld)
    assert held.seconds <= 8.1
    held = store.take_epoch("two", "", 20.0)
    assert isinstance(held, EpochHeld)
    assert held.seconds <= 8.1
    assert store.take_epoch("one", "", 24 * 3600) == first


def test_an_epoch_given_up_is_free_at_once(store: Store) -> None:
    store.take_epoch("one", "", LEASE)
    store.leave_epoch(Epoch(0, "one"))
    assert store.take_epoch("two", "", LEASE) == Epoch(2, "two")


def test_every_write_of_a_fenced_scheduler_is_refused(night: Night) -> None:
    """P7."""
    night.start("b", [0], seconds=NO_TIME)
    night.dispatch(batch_of("b2", [1]))
    before = night.store.load_run("r1")
    night.store.leave_epoch(night.epoch)
    assert isinstance(night.store.take_epoch("scheduler 2", "", LEASE), Epoch)
    for stale in (night.epoch, Epoch(2, "scheduler 1"), Epoch(1, "scheduler 2")):
        for write in (
            lambda e: night.store.dispatch(e, "r1", [batch_of("b3", [2])]),
            lambda e: night.store.withdraw(e, "r1", ["b2"]),
            lambda e: night.store.settle(e, "r1", [Verdict(3, TaskState.FAILED)]),
            lambda e: night.store.finish(e, "r1", RunPhase.FAILED),
            lambda e: night.store.note(e, "r1", "a word"),
            night.store.reap,
        ):
            with pytest.raises(Fenced):
                write(stale)
    assert night.store.load_run("r1") == before


def test_an_unknown_run_is_named_to_the_scheduler(night: Night) -> None:
    for ask in (
        lambda: night.store.dispatch(night.epoch, "nope", [batch_of("b", [0])]),
        lambda: night.store.withdraw(night.epoch, "nope", ["b"]),
        lambda: night.store.settle(night.epoch, "nope", [Verdict(0, TaskState.FAILED)]),
        lambda: night.store.finish(night.epoch, "nope", RunPhase.FAILED),
        lambda: night.store.note(night.epoch, "nope", "a word"),
        lambda: night.store.read_specs("nope", 0),
    ):
        with pytest.raises(UnknownRun, match="nope"):
            ask()


def test_what_a_scheduler_has_to_say_of_a_run_stays_with_it_until_it_is_taken_back(night: Night) -> None:
    before = night.store.run("r1")
    assert before.note == ""
    for _ in range(2):
        night.store.note(night.epoch, "r1", "no key é")
        assert night.store.run("r1") == night.store.load_run("r1").run == replace(before, note="no key é")
    for _ in range(2):
        night.store.note(night.epoch, "r1", "")
        assert night.store.run("r1") == before


def test_a_dispatched_batch_is_queued_and_a_repeat_is_accepted(night: Night) -> None:
    batches = batch_of("b1", [0, 1]), batch_of("b2", [3])
    assert night.dispatch(*batches) == [True, True]
    assert night.dispatch(*batches) == [True, True]
    assert (night.states(), night.attempts()) == ("qqpq", [1, 1, 0, 1])
    flights = {flight.batch: flight for flight in night.store.load_run("r1").flights}
    assert flights["b1"] == Flight("b1", "default", (0, 1), claimed=False)
    night.claim("b1")
    assert night.dispatch(*batches) == [True, True]
    night.commit("b1", success(0), failure(1))
    assert night.dispatch(*batches) == [True, True], "its reports prove that it was accepted"
    assert night.states() == "dtpq"


def test_a_batch_is_refused_whole(night: Night) -> None:
    night.dispatch(batch_of("b1", [1]))
    assert night.dispatch(batch_of("b2", [0, 1]), batch_of("b3", [2], attempt=2), batch_of("b4", [3, 9])) == [False] * 3
    assert night.dispatch(batch_of("b5", [2]), batch_of("b6", [2, 3])) == [True, False]
    assert night.states() == "pqqp"


def test_a_batch_without_tasks_or_with_doubled_ones_is_no_batch(night: Night) -> None:
    for tasks in ((), (0, 0), tuple(range(501))):
        with pytest.raises(ValueError, match="distinct tasks"):
            night.dispatch(batch_of("b", tasks))


def test_many_batches_go_in_one_call(store: Store) -> None:
    night = begin(store, 1000)
    batches = [batch_of(f"b{start}", range(start, start + 100)) for start in range(0, 1000, 100)]
    assert night.dispatch(*batches) == [True] * 10
    assert night.states() == "q" * 1000


def test_attempts_stop_counting_at_255(night: Night) -> None:
    for attempt in range(1, 256):
        assert night.dispatch(batch_of(f"b{attempt}", [0], attempt)) == [True]
        assert night.store.withdraw(night.epoch, "r1", [f"b{attempt}"]) == [f"b{attempt}"]
    assert night.dispatch(batch_of("last", [0], 255)) == [True]
    assert night.attempts()[0] == 255


def test_a_batch_that_no_worker_holds_is_withdrawn(night: Night) -> None:
    night.dispatch(batch_of("b1", [0, 1]))
    night.start("b2", [2])
    cursor = night.cursor()
    assert night.store.withdraw(night.epoch, "r1", ["b1", "b2", "b3"]) == ["b1"]
    assert night.store.withdraw(night.epoch, "r1", ["b1"]) == []
    (told,) = night.store.follow("r1", cursor, 0)
    assert (told.what, told.batch, told.tasks) == (Happening.RETURNED, "b1", (0, 1))
    assert night.states() == "ppxp"
    assert night.store.claim("r1", "b1", "w1", 1, 1) == ClaimRefused("finished, withdrawn or unknown")


def test_a_lease_that_ran_out_gives_the_unfinished_tasks_back(night: Night) -> None:
    """P6."""
    night.start("b1", [0, 1, 2])
    night.commit("b1", success(0), seconds=NO_TIME)
    cursor = night.cursor()
    assert night.store.reap(night.epoch) == [Reaped("r1", "b1", (1, 2))]
    assert night.store.reap(night.epoch) == []
    (told,) = night.store.follow("r1", cursor, 0)
    assert (told.what, told.batch, told.tasks) == (Happening.REAPED, "b1", (1, 2))
    assert (night.states(), night.attempts()) == ("dppp", [1, 1, 1, 0])
    assert night.store.load_run("r1").flights == []


@pytest.mark.parametrize(("said", "begun"), [(None, False), (1, True), (2, False)])
def test_it_is_told_whether_the_first_task_that_went_back_is_known_to_have_begun(
    night: Night, said: int | None, begun: bool
) -> None:
    """P10, O7: only the holder's own word about this batch counts, and a commit in between does not wipe it out."""
    night.start("b1", [0, 1, 2])
    night.start("b2", [3])
    lease = [("r1", "b1")]
    mine = replace(worker_record(), run_id="r1", batch="b1", task=None)
    night.store.heartbeat(replace(mine, batch="b2", task=1), LEASE, lease)
    night.store.heartbeat(replace(worker_record("w2"), run_id="r1", batch="b1", task=1), LEASE, lease)
    night.store.heartbeat(replace(mine, task=said), LEASE, lease)
    night.store.heartbeat(mine, LEASE, lease)
    cursor = night.cursor()
    night.commit("b1", success(0), seconds=NO_TIME)
    assert night.store.reap(night.epoch) == [Reaped("r1", "b1", (1, 2))]
    told = night.store.follow("r1", cursor, 0)[-1]
    assert (told.what, told.tasks, told.begun) == (Happening.REAPED, (1, 2), begun)


def test_a_lease_that_was_renewed_is_not_reaped(night: Night) -> None:
    night.start("b1", [0], seconds=NO_TIME)
    assert night.store.heartbeat(worker_record(), LEASE, [("r1", "b1")]) == [LeaseReply(lost=False, stop=False)]
    assert night.store.reap(night.epoch) == []
    assert night.states() == "xppp"


def test_what_was_committed_before_the_reaper_came_stays_committed(night: Night) -> None:
    """ADVERSITY 3: REAP never acts on a snapshot."""
    night.start("b1", [0], seconds=NO_TIME)
    night.start("b2", [1, 2], seconds=NO_TIME)
    night.commit("b1", success(0))
    night.commit("b2", success(1), failure(2))
    assert night.store.reap(night.epoch) == []
    assert night.states() == "ddtp"


def test_reaping_takes_no_more_than_asked(night: Night) -> None:
    for task in range(3):
        night.start(f"b{task}", [task], seconds=NO_TIME)
    assert len(night.store.reap(night.epoch, most=2)) == 2
    assert len(night.store.reap(night.epoch, most=2)) == 1


def test_a_verdict_again_puts_a_tried_task_back_with_its_charge(night: Night) -> None:
    night.start("b", [0])
    night.commit("b", failure(0))
    verdict = Verdict(0, TaskState.PENDING, Charge(1, 0, 12.5))
    night.settle(verdict)
    cursor = night.cursor()
    night.settle(verdict)
    assert night.store.follow("r1", cursor, 0) == []
    assert night.states() == "pppp"
    assert night.store.load_run("r1").charges == {0: Charge(1, 0, 12.5)}
    night.start("b2", [0], attempt=2)


def test_a_failure_skips_what_depends_on_it(night: Night) -> None:
    night.start("b", [0])
    night.commit("b", failure(0))
    cursor = night.cursor()
    night.settle(Verdict(0, TaskState.FAILED, Charge(1)), Verdict(1, TaskState.SKIPPED, cause=0))
    (told,) = night.store.follow("r1", cursor, 0)
    assert told.verdicts == ((0, TaskState.FAILED, None), (1, TaskState.SKIPPED, 0))
    failed, skipped = night.store.tasks("r1", [0, 1])
    assert (failed.state, failed.error, failed.facts) == (TaskState.FAILED, b"error 0", b'{"worker":"w"}')
    assert (skipped.state, skipped.cause, skipped.error) == (TaskState.SKIPPED, 0, None)


def test_the_scheduler_states_the_failure_of_a_lost_task(night: Night) -> None:
    night.settle(Verdict(0, TaskState.FAILED, Charge(0, 3), error=b"lost"))
    assert night.store.tasks("r1", [0])[0].error == b"lost"


def test_verdicts_that_come_too_late_change_nothing(night: Night) -> None:
    night.start("b", [0, 1])
    night.commit("b", success(0))
    for state in (TaskState.PENDING, TaskState.FAILED, TaskState.SKIPPED):
        night.settle(Verdict(0, state), Verdict(1, state), Verdict(99, state))
    assert night.states() == "dxpp"
    night.settle(Verdict(0, TaskState.CANCELLED), Verdict(1, TaskState.CANCELLED))
    assert night.states() == "dkpp"
    assert night.commit("b", success(1)).acceptances == (SUPERSEDED,)


def test_a_run_ends_once_when_every_task_is_terminal(night: Night) -> None:
    night.start("b", [0, 1])
    assert not night.end()
    night.commit("b", success(0), failure(1))
    night.settle(Verdict(2, TaskState.SKIPPED, cause=1), Verdict(3, TaskState.CANCELLED))
    assert not night.end()
    night.settle(Verdict(1, TaskState.FAILED))
    cursor = night.cursor()
    assert night.end()
    assert night.end()
    (told,) = night.store.follow("r1", cursor, 0)
    assert (told.what, told.phase) == (Happening.ENDED, RunPhase.FAILED)
    run = night.store.run("r1")
    assert run.phase is RunPhase.FAILED
    assert run.ended_at is not None
    assert run.ended_at >= run.created_at
    assert night.store.active_runs() == []
    assert [kept.run_id for kept in night.store.runs()] == ["r1"]


def test_a_run_does_not_end_before_its_submission_is_complete(store: Store) -> None:
    night = begin(store, 1, adopted=[0])
    store.request("r1", Request.CANCEL)
    assert night.end(RunPhase.CANCELLED)
    store.open_run(run_record("r2", total=0), b"")
    assert not store.finish(night.epoch, "r2", RunPhase.SUCCEEDED)
    store.activate("r2")
    store.activate("r2")
    assert store.finish(night.epoch, "r2", RunPhase.SUCCEEDED)


def test_a_run_ends_in_a_phase_that_is_an_end(night: Night) -> None:
    with pytest.raises(ValueError, match="active"):
        night.end(RunPhase.ACTIVE)


def test_the_end_of_a_run_takes_the_leases_of_those_who_work_in_vain(night: Night) -> None:
    night.start("b", [0], seconds=NO_TIME)
    night.settle(*(Verdict(task, TaskState.CANCELLED) for task in range(4)))
    assert night.end(RunPhase.CANCELLED)
    assert night.store.reap(night.epoch) == []
    assert night.store.heartbeat(worker_record(), LEASE, [("r1", "b")]) == [LeaseReply(lost=True, stop=True)]
    reply = night.commit("b", success(0))
    assert (reply.acceptances, reply.lease_lost, reply.stop) == ((SUPERSEDED,), True, True)


def test_a_late_success_counts_while_the_task_is_open(night: Night) -> None:
    """P2."""
    night.start("b1", [0, 1], seconds=NO_TIME)
    night.store.reap(night.epoch)
    night.start("b2", [0], attempt=2)
    reply = night.commit("b1", success(0), success(1))
    assert (reply.acceptances, reply.lease_lost) == ((ACCEPTED, ACCEPTED), True)
    assert night.commit("b2", success(0, of="later")).acceptances == (SUPERSEDED,)
    assert night.store.read_results("r1", [0]) == {0: b"value 0"}
    assert night.states() == "ddpp"


def test_a_snapshot_is_all_that_a_new_scheduler_needs(night: Night) -> None:
    night.start("b1", [2, 0])
    night.dispatch(batch_of("b2", [1]))
    night.commit("b1", success(2))
    night.settle(Verdict(3, TaskState.PENDING, Charge(0, 1)))
    snapshot = night.store.load_run("r1")
    assert snapshot.states == b"x\1q\1d\1p\0"
    assert sorted(snapshot.flights, key=lambda flight: flight.batch) == [
        Flight("b1", "default", (0,), claimed=True),
        Flight("b2", "default", (1,), claimed=False),
    ]
    assert snapshot.charges == {3: Charge(0, 1)}
    assert snapshot.digests[64:96] == night.store.read_digests("r1", [2])[0]
    assert night.store.follow("r1", snapshot.cursor, 0) == []
    assert snapshot.run == night.store.run("r1")


@pytest.mark.parametrize("lost", ["inflight", "batches"])
def test_tasks_in_flight_under_a_batch_that_was_lost_go_back(server_store: RedisStore, lost: str) -> None:
    """P1: part of the record is gone; what no batch holds is dispatched again."""
    night = begin(server_store)
    night.start("b1", [0])
    night.dispatch(batch_of("b2", [1]))
    back = [Verdict(task, TaskState.PENDING, charge=Charge()) for task in (0, 1)]
    night.settle(*back)
    assert night.states() == "xqpp"

    server_store.server.client.delete(server_store.server.keys.of_run("r1", lost))
    night.settle(*back)

    assert night.states() == "pppp"
    assert night.dispatch(batch_of("b3", [0], 2), batch_of("b4", [1], 2)) == [True, True]


def test_a_scheduler_that_has_not_heard_of_all_invalidations_dispatches_nothing(night: Night) -> None:
    """P4: the lineage that it expects may be that of results which are gone, and what was computed from those would be
    accepted again."""
    night.start("b1", [0])
    night.commit("b1", success(0))
    known = night.store.load_run("r1").invalidations
    night.store.invalidate("r1", [0])
    (told,) = [one for one in night.store.follow("r1", "0", 0) if one.what is Happening.INVALIDATED]
    now = night.store.load_run("r1").invalidations
    assert told.invalidations == now == known + 1
    for heard, accepted in ((known, False), (now + 1, False), (now, True), (known, True)):  # the last one is a repeat
        assert night.store.dispatch(night.epoch, "r1", [batch_of("b2", [1])], heard) == [accepted]


def test_a_cancelled_run_that_cannot_end_is_abandoned_and_no_other(store: Store) -> None:
    """QX7: with tasks that are open still, as a run is whose states are damaged."""
    night = begin(store, 2)
    night.start("b", [0])
    assert not store.abandon(night.epoch, "r1")
    store.request("r1", Request.CANCEL)
    assert not store.finish(night.epoch, "r1", RunPhase.CANCELLED)
    assert store.abandon(night.epoch, "r1")
    assert store.abandon(night.epoch, "r1")
    assert store.run("r1").phase is RunPhase.CANCELLED
    assert store.active_runs() == []
    assert store.reap(night.epoch) == []
    assert store.open_run(run_record("r2"), b"").opening is Opening.CREATED
