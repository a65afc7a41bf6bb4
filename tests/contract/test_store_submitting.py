"""The contract of the store towards a client that puts a run in place and steers it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overnight.core.events import Charge
from overnight.core.states import RunPhase, TaskState
from overnight.errors import AddedMeanwhile, Refused, UnknownRun
from overnight.store.codec import next_made
from overnight.store.records import Adopted, ClaimRefused, Happening, Opening, Request, Verdict
from tests.support.stores import (
    ACCEPTED,
    SUPERSEDED,
    Night,
    Store,
    addition,
    batch_of,
    begin,
    digest_of,
    failure,
    run_record,
    success,
)


def test_a_new_run_is_submitting_and_holds_nothing(store: Store) -> None:
    opened = store.open_run(run_record(resource_limits={"gpu": 2.0}, status_dir="/s"), b"context")
    assert opened.opening is Opening.CREATED
    assert opened.run.phase is RunPhase.SUBMITTING
    assert opened.run.created_at > 0
    assert (opened.run.resource_limits, opened.run.status_dir, opened.run.added) == ({"gpu": 2.0}, "/s", 0)
    assert store.run("r1") == opened.run
    assert store.context("r1") == b"context"
    assert store.states("r1") == b""
    assert store.active_runs() == ["r1"]


def test_the_same_submission_twice_is_one_run(store: Store) -> None:
    first = store.open_run(run_record(), b"context")
    assert store.open_run(run_record(), b"other context") == first
    assert store.context("r1") == b"context"
    assert store.active_runs() == ["r1"]


def test_another_submission_of_the_same_graph_attaches(store: Store) -> None:
    """ADVERSITY 7, number 41."""
    store.open_run(run_record("r1"), b"")
    opened = store.open_run(run_record("r2"), b"")
    assert (opened.opening, opened.run.run_id) == (Opening.ATTACHED, "r1")
    assert [run.run_id for run in store.runs()] == ["r1"]


def test_another_graph_in_the_same_place_is_told_who_uses_it(store: Store) -> None:
    """ADVERSITY 7, number 41."""
    store.open_run(run_record("r1", key="a"), b"")
    opened = store.open_run(run_record("r2", key="b"), b"")
    assert (opened.opening, opened.run.run_id) == (Opening.BUSY, "r1")


def test_runs_without_key_and_place_do_not_meet(store: Store) -> None:
    for run_id in ("r1", "r2"):
        assert store.open_run(run_record(run_id, key="", place=""), b"").opening is Opening.CREATED
    assert store.active_runs() == ["r1", "r2"]
    assert [run.run_id for run in store.runs()] == ["r2", "r1"]


def test_an_ended_run_is_in_nobodys_way(store: Store) -> None:
    assert begin(store, 1, adopted=[0]).end(RunPhase.SUCCEEDED)
    assert store.open_run(run_record("r2"), b"").opening is Opening.CREATED


def test_tasks_are_added_pending_and_adopted_ones_cached(store: Store) -> None:
    night = begin(store, 3, adopted=[1])
    snapshot = store.load_run("r1")
    assert snapshot.states == b"p\0c\0p\0"
    assert snapshot.digests == bytes(32) + digest_of("flag 1") + bytes(32)
    assert (snapshot.specs, snapshot.run.added) == ([b"spec 0"], 3)
    assert store.read_results("r1", range(3)) == {1: b"located 1"}
    assert night.store.read_digests("r1", [1, 0]) == [digest_of("flag 1"), bytes(32)]


def test_an_addition_twice_counts_once(store: Store) -> None:
    night = begin(store, 2)
    store.add_tasks("r1", addition(2, 2))
    cursor = night.cursor()
    store.add_tasks("r1", addition(2, 2))
    store.add_tasks("r1", addition(0, 2))
    assert night.states() == "pppp"
    assert store.follow("r1", cursor, 0) == []


def test_of_two_clients_that_add_at_the_same_place_one_is_told_that_the_other_was_faster(store: Store) -> None:
    """P2, P9: it would take the other's tasks for its own, whose numbers they have."""
    night = begin(store, 2)
    store.add_tasks("r1", addition(2, 2))
    with pytest.raises(AddedMeanwhile, match="holds 4 tasks"):
        store.add_tasks("r1", replace(addition(2, 3), spec=b"another spec"))
    assert (night.states(), store.specs("r1")) == ("pppp", [b"spec 0", b"spec 2"])


def test_a_run_is_named_by_what_was_added_to_it_in_its_order(store: Store) -> None:
    begin(store, 2)
    assert store.run("r1").made == next_made("", b"spec 0")
    store.add_tasks("r1", addition(2, 2))
    store.add_tasks("r1", addition(2, 2))
    assert store.run("r1").made == next_made(next_made("", b"spec 0"), b"spec 2")


def test_a_run_of_which_tasks_were_lost_is_not_complete(store: Store) -> None:
    """P1: a server that fell back between ADD and ACTIVATE does not hold what was added."""
    store.open_run(run_record(total=4), b"")
    store.add_tasks("r1", addition(0, 3))
    with pytest.raises(UnknownRun, match="r1"):
        store.activate("r1", 4)
    assert store.run("r1").phase is RunPhase.SUBMITTING
    store.activate("r1", 3)
    assert store.run("r1").phase is RunPhase.ACTIVE


def test_tasks_whose_functions_were_lost_are_not_added(store: Store) -> None:
    """P1, P9: a server that fell back between two calls holds the run, and not the blobs that had been put."""
    store.open_run(run_record(), b"")
    store.put_blobs("r1", {"a": b"function"})
    with pytest.raises(UnknownRun, match="r1"):
        store.add_tasks("r1", replace(addition(0, 2), blobs=["a", "b"]))
    assert store.states("r1") == b""
    store.add_tasks("r1", replace(addition(0, 2), blobs=["a"]))
    assert store.run("r1").added == 2


def test_an_addition_that_leaves_a_hole_is_refused(store: Store) -> None:
    night = begin(store, 2)
    for first in (1, 3):
        with pytest.raises(Refused, match="2 tasks"):
            store.add_tasks("r1", addition(first, 2))
    assert night.states() == "pp"


def test_a_large_addition_goes_in_pieces(store: Store) -> None:
    night = begin(store, 1201, adopted=range(600, 1200))
    assert night.states() == "p" * 600 + "c" * 600 + "p"
    assert len(store.read_results("r1", range(1201))) == 600
    night.start("b", [0, 599, 1200])
    assert store.runs()[0].total == 1201


def test_specs_are_read_in_order_and_from_an_index_on(store: Store) -> None:
    begin(store, 2)
    for first in (2, 4):
        store.add_tasks("r1", addition(first, 2))
    assert store.specs("r1") == [b"spec 0", b"spec 2", b"spec 4"]
    assert store.read_specs("r1", 2) == [b"spec 2", b"spec 4"]
    assert store.run("r1").total == 6


def test_an_addition_to_an_ended_run_makes_it_active_again(store: Store) -> None:
    night = begin(store, 1, adopted=[0])
    assert night.end(RunPhase.SUCCEEDED)
    store.active_runs()
    store.add_tasks("r1", addition(1, 1))
    run = store.run("r1")
    assert (run.phase, run.ended_at) == (RunPhase.ACTIVE, None)
    assert store.active_runs() == ["r1"]
    assert not night.end(RunPhase.SUCCEEDED)
    night.start("b", [1])
    night.commit("b", success(1))
    assert night.end(RunPhase.SUCCEEDED)


def test_an_ended_run_stays_ended_while_another_has_taken_its_place(store: Store) -> None:
    night = begin(store, 2, adopted=[0])
    night.settle(Verdict(1, TaskState.FAILED))
    assert night.end()
    store.open_run(run_record("r2", key="other"), b"")
    for again in (
        lambda: store.add_tasks("r1", addition(2, 1)),
        lambda: store.invalidate("r1", [0]),
        lambda: store.request("r1", Request.RETRY),
    ):
        with pytest.raises(Refused, match="r2"):
            again()
    assert store.run("r1").phase is RunPhase.FAILED
    assert night.states() == "cf"


def test_blobs_are_kept_once_by_digest(store: Store) -> None:
    store.open_run(run_record(), b"")
    store.put_blobs("r1", {"a": b"1", "b": b"2"})
    store.put_blobs("r1", {"a": b"other", "c": b"3"})
    assert store.read_blobs("r1", ["a", "b", "c", "d"]) == {"a": b"1", "b": b"2", "c": b"3"}
    assert store.missing_blobs("r1", ["d", "a", "e"]) == ["d", "e"]


def test_pending_tasks_are_adopted_and_a_repeat_answers_the_same(night: Night) -> None:
    night.start("b", [0])
    flags = {task: Adopted(digest_of(f"flag {task}"), b"located") for task in (0, 1, 2)}
    assert sorted(night.store.adopt("r1", flags)) == [1, 2]
    cursor = night.cursor()
    assert sorted(night.store.adopt("r1", flags)) == [1, 2]
    assert night.store.adopt("r1", {1: Adopted(digest_of("another"), b"elsewhere")}) == []
    assert night.store.follow("r1", cursor, 0) == []
    assert night.states() == "xccp"
    assert night.store.read_digests("r1", [1]) == [digest_of("flag 1")]


def test_a_result_moves_only_if_its_digest_stays(night: Night) -> None:
    night.start("b", [0])
    night.commit("b", success(0))
    assert night.store.rewrite_result("r1", 0, b"moved", digest_of("value 0"))
    assert not night.store.rewrite_result("r1", 0, b"wrong", digest_of("other"))
    assert not night.store.rewrite_result("r1", 1, b"wrong", bytes(32))
    assert night.store.read_results("r1", [0, 1]) == {0: b"moved"}


def test_restoring_digests_changes_none_that_is_known_and_none_of_an_open_task(night: Night) -> None:
    night.start("b", [0])
    night.commit("b", success(0))
    night.store.restore_digests("r1", {0: digest_of("another"), 1: digest_of("value 1")})
    assert night.store.read_digests("r1", [0, 1]) == [digest_of("value 0"), bytes(32)]


def test_invalidated_results_are_forgotten_and_run_again(night: Night) -> None:
    night.start("b", [0, 1])
    night.commit("b", success(0), success(1))
    assert night.store.invalidate("r1", [1, 2, 1, 0, 99]) == [1, 0]
    assert night.store.invalidate("r1", [0, 1]) == []
    assert (night.states(), night.attempts()) == ("pppp", [1, 1, 0, 0])
    assert night.store.read_results("r1", range(4)) == {}
    assert night.store.load_run("r1").digests == bytes(128)
    reply = night.commit("b", success(0))
    assert (reply.acceptances, reply.known) == ((SUPERSEDED,), False)


def test_what_is_in_flight_computes_from_an_invalidated_result_in_vain(night: Night) -> None:
    """P4."""
    night.start("b1", [0])
    night.commit("b1", success(0))
    night.start("b2", [1])
    assert night.store.invalidate("r1", [0, 1]) == [0]
    assert night.commit("b2", success(1)).acceptances == (SUPERSEDED,)
    assert night.states() == "pppp"
    night.start("b3", [1], attempt=2)
    assert night.commit("b2", success(1)).acceptances == (ACCEPTED,), "the lineage is that of the new dispatch"


def test_an_invalidation_wakes_an_ended_run(store: Store) -> None:
    night = begin(store, 1, adopted=[0])
    night.end(RunPhase.SUCCEEDED)
    assert store.invalidate("r1", [0]) == [0]
    assert store.active_runs() == ["r1"]
    assert store.run("r1").phase is RunPhase.ACTIVE


def test_a_cancelled_run_takes_successes_and_starts_nothing(night: Night) -> None:
    night.start("b1", [0, 1])
    night.dispatch(batch_of("b2", [2]))
    night.store.request("r1", Request.CANCEL)
    assert night.store.run("r1").phase is RunPhase.CANCELLING
    assert night.store.claim("r1", "b2", "w2", 1, 60) == ClaimRefused("cancelled")
    assert night.states() == "xxpp"
    reply = night.commit("b1", success(0))
    assert (reply.acceptances, reply.stop) == ((ACCEPTED,), True)


def test_a_paused_run_hands_out_nothing_until_it_is_resumed(night: Night) -> None:
    night.dispatch(batch_of("b1", [0]), batch_of("b2", [1]))
    night.claim("b2")
    night.store.request("r1", Request.PAUSE)
    assert night.store.run("r1").paused
    assert night.store.claim("r1", "b1", "w1", 2, 60) == ClaimRefused("paused")
    reply = night.commit("b2", success(1))
    assert (reply.acceptances, reply.stop) == ((ACCEPTED,), False)
    night.store.request("r1", Request.RESUME)
    night.start("b3", [0], attempt=2)
    assert night.states() == "xdpp"


def test_a_request_twice_is_told_once(night: Night) -> None:
    cursor = night.cursor()
    for request in (Request.PAUSE, Request.PAUSE, Request.RESUME, Request.RESUME, Request.CANCEL, Request.CANCEL):
        night.store.request("r1", request)
    told = night.store.follow("r1", cursor, 0)
    assert [event.request for event in told] == [Request.PAUSE, Request.RESUME, Request.CANCEL]


def test_nothing_can_be_asked_of_an_ended_run_but_to_retry(store: Store) -> None:
    night = begin(store, 1, adopted=[0])
    night.end(RunPhase.SUCCEEDED)
    for request in Request:
        store.request("r1", request)
    assert store.run("r1").phase is RunPhase.SUCCEEDED
    assert not store.run("r1").paused


def test_a_retry_takes_the_failed_with_what_was_skipped_for_them(night: Night) -> None:
    night.start("b", [0, 1])
    night.commit("b", failure(0), failure(1))
    night.settle(
        Verdict(0, TaskState.FAILED, Charge(1)),
        Verdict(1, TaskState.FAILED, Charge(1)),
        Verdict(2, TaskState.SKIPPED, cause=0),
        Verdict(3, TaskState.SKIPPED, cause=1),
    )
    assert night.end()
    cursor = night.cursor()
    night.store.request("r1", Request.RETRY, [0])
    assert night.states() == "pfps"
    assert night.store.active_runs() == ["r1"]
    (told,) = night.store.follow("r1", cursor, 0)
    assert (told.what, told.request, told.tasks) == (Happening.REQUESTED, Request.RETRY, (0,))
    assert night.store.tasks("r1", [0])[0].charge == Charge()
    night.store.request("r1", Request.RETRY)
    assert night.states() == "pppp"
    night.store.request("r1", Request.RETRY)
    assert night.store.run("r1").retried == 2, "nothing was left to be retried by the third"


def test_the_time_in_which_a_run_was_over_is_none_of_the_time_it_took(night: Night) -> None:
    """P11: what failed in the night is retried in the morning."""
    skipped = [Verdict(task, TaskState.SKIPPED, cause=0) for task in (1, 2, 3)]
    least = most = 0.0
    for _ in range(2):
        night.settle(Verdict(0, TaskState.FAILED, Charge(1)), *skipped)
        assert night.end()
        over = night.store.run("r1")
        assert over.ended_at is not None
        least += night.store.now() - over.ended_at
        night.store.request("r1", Request.RETRY)
        most += night.store.now() - over.ended_at
        again = night.store.run("r1")
        assert least <= again.rested <= most
        assert over.seconds(night.store.now()) == over.ended_at - over.created_at - over.rested
        assert again.seconds(again.created_at + 60) == 60 - again.rested


def test_a_retry_of_what_was_skipped_takes_along_what_it_was_skipped_for(night: Night) -> None:
    """P11: who asks read the states before that had failed; the task alone would wait for what never runs again."""
    night.start("b", [0, 3])
    night.commit("b", failure(0), failure(3))
    night.settle(
        Verdict(0, TaskState.FAILED, Charge(1)),
        *(Verdict(task, TaskState.SKIPPED, cause=0) for task in (1, 2)),
        Verdict(3, TaskState.FAILED, Charge(1)),
    )
    cursor = night.cursor()
    night.store.request("r1", Request.RETRY, [2])
    assert night.states() == "pppf"
    (told,) = night.store.follow("r1", cursor, 0)
    assert told.tasks == (0,)


def test_a_run_that_is_being_cancelled_is_not_retried(night: Night) -> None:
    night.settle(Verdict(0, TaskState.FAILED))
    night.store.request("r1", Request.CANCEL)
    with pytest.raises(Refused, match="cancelled"):
        night.store.request("r1", Request.RETRY)


def test_what_was_cancelled_is_not_mended(night: Night) -> None:
    """P15: a client that finds a result lost would bring back what somebody has just stopped."""
    night.start("b", [0, 1])
    night.commit("b", success(0), failure(1))
    night.settle(Verdict(1, TaskState.FAILED), Verdict(2, TaskState.SKIPPED, cause=1))
    night.store.request("r1", Request.CANCEL)
    night.store.mend("r1", [1])
    night.settle(Verdict(3, TaskState.CANCELLED))
    assert night.end(RunPhase.CANCELLED)
    night.store.mend("r1", [1])
    assert night.store.invalidate("r1", [0]) == []
    assert (night.states(), night.store.run("r1").phase) == ("dfsk", RunPhase.CANCELLED)
    night.store.request("r1", Request.RETRY, [1])
    assert (night.states(), night.store.run("r1").phase) == ("dppk", RunPhase.ACTIVE)


def test_what_failed_for_want_of_an_input_is_tried_again(night: Night) -> None:
    night.start("b", [0])
    night.commit("b", failure(0))
    night.settle(Verdict(0, TaskState.FAILED), *(Verdict(task, TaskState.SKIPPED, cause=0) for task in (1, 2, 3)))
    assert night.end(RunPhase.FAILED)
    night.store.mend("r1", [0])
    assert (night.states(), night.store.run("r1").phase) == ("pppp", RunPhase.ACTIVE)
