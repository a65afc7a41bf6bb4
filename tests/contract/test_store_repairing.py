"""The contract of the store for results that are lost: who lacks them, and how they are forgotten (P12)."""

from __future__ import annotations

import pytest

from overnight.core.events import Charge
from overnight.core.states import TaskState
from overnight.errors import Fenced, UnknownRun
from overnight.store.records import Epoch, Happening, Request, Verdict
from tests.support.stores import ACCEPTED, SUPERSEDED, Night, begin, lacking, success


def lacked(night: Night) -> dict[int, tuple[int, ...]]:
    return {task: tuple(lost) for task, lost in night.store.load_run("r1").lacking.items()}


def repair(night: Night, lost: list[int], tasks: list[int], invalidations: int = 0) -> int | None:
    return night.store.repair(night.epoch, "r1", lost, tasks, invalidations)


def with_a_lack(night: Night) -> Night:
    """Task 0 is done; task 1 has lacked its result, and task 2 is in flight."""
    night.start("b0", [0])
    night.commit("b0", success(0))
    night.start("b1", [1])
    night.start("b2", [2])
    assert night.commit("b1", lacking(1, 0, 3)).acceptances == (ACCEPTED,)
    return night


def test_what_a_task_lacked_is_told_and_kept_until_it_is_dispatched_again(night: Night) -> None:
    with_a_lack(night)
    told = [event for event in night.store.follow("r1", "0", 0) if event.what is Happening.COMMITTED][-1]
    assert [(report.task, report.ok, tuple(report.lost)) for report in told.reports] == [(1, False, (0, 3))]
    assert (night.states(), lacked(night)) == ("dtxp", {1: (0, 3)})
    night.settle(Verdict(1, TaskState.PENDING, Charge()))
    assert lacked(night) == {}
    night.start("b3", [1], attempt=2)
    assert night.commit("b3", success(1)).acceptances == (ACCEPTED,)


def test_the_same_report_again_is_accepted_again(night: Night) -> None:
    with_a_lack(night)
    assert night.commit("b1", lacking(1, 0, 3)).acceptances == (ACCEPTED,)
    assert lacked(night) == {1: (0, 3)}


def test_a_repair_forgets_results_counts_the_lost_ones_and_voids_what_computes_from_them(night: Night) -> None:
    with_a_lack(night)
    assert repair(night, [0], [2, 1, 0]) == 1
    snapshot = night.store.load_run("r1")
    assert (night.states(), dict(snapshot.repairs), lacked(night)) == ("ptxp", {0: 1}, {1: ()})
    assert night.store.read_results("r1", [0]) == {}
    told = [event for event in night.store.follow("r1", "0", 0) if event.what is Happening.INVALIDATED]
    assert [(event.tasks, event.invalidations) for event in told] == [((0,), 1)]
    assert night.commit("b2", success(2)).acceptances == (SUPERSEDED,)
    assert night.states() == "ptpp"


def test_a_task_that_lacks_what_was_invalidated_since_its_dispatch_just_goes_back(night: Night) -> None:
    """Its report is late: the result may have been computed again by then, with the same bytes."""
    with_a_lack(night)
    repair(night, [0], [2, 1, 0])
    night.start("b4", [0], attempt=2)
    night.commit("b4", success(0))
    assert night.commit("b2", lacking(2, 0)).acceptances == (SUPERSEDED,)
    assert (night.states(), lacked(night)) == ("dtpp", {1: ()})
    night.start("b5", [2], attempt=2)
    assert night.commit("b5", lacking(2, 0)).acceptances == (ACCEPTED,)
    assert lacked(night) == {1: (), 2: (0,)}


def test_only_the_lost_ones_that_had_a_result_are_counted(night: Night) -> None:
    with_a_lack(night)
    assert repair(night, [0], [0]) == 1
    assert repair(night, [0, 1], [0, 1], 1) == 1
    assert dict(night.store.load_run("r1").repairs) == {0: 1}


def test_a_repair_that_does_not_know_of_all_invalidations_changes_nothing(night: Night) -> None:
    """A client was first, or the reply was lost and it is sent again."""
    with_a_lack(night)
    assert night.store.invalidate("r1", [0]) == [0]
    night.start("b4", [0], attempt=2)
    night.commit("b4", success(0))
    assert repair(night, [0], [1, 0]) is None
    assert (night.states(), dict(night.store.load_run("r1").repairs)) == ("dtxp", {})
    assert repair(night, [0], [1, 0], 1) == 2
    assert repair(night, [0], [1, 0], 1) is None
    assert dict(night.store.load_run("r1").repairs) == {0: 1}


def test_a_run_that_is_cancelled_stays_so(night: Night) -> None:
    with_a_lack(night)
    night.store.request("r1", Request.CANCEL)
    assert repair(night, [0], [1, 0]) is None
    assert night.states() == "dtxp"


def test_a_scheduler_that_was_fenced_off_repairs_nothing(night: Night) -> None:
    """P7."""
    with_a_lack(night)
    with pytest.raises(Fenced):
        night.store.repair(Epoch(night.epoch.number, "another"), "r1", [0], [0], 0)
    with pytest.raises(UnknownRun):
        night.store.repair(night.epoch, "nope", [0], [0], 0)
    assert night.states() == "dtxp"


def test_a_retry_begins_to_count_anew(night: Night) -> None:
    with_a_lack(night)
    repair(night, [0], [1, 0])
    night.settle(Verdict(1, TaskState.FAILED))
    night.store.request("r1", Request.RETRY, [1])
    assert dict(night.store.load_run("r1").repairs) == {}


def test_a_late_success_does_not_end_a_task_that_lacks_an_input(night: Night) -> None:
    """What an earlier attempt computed from may be what was lost."""
    night.start("b0", [0])
    night.commit("b0", success(0))
    night.start("b1", [1])
    night.store.give_back("r1", "b1", "w1", [1])
    night.start("b2", [1], attempt=2)
    night.commit("b2", lacking(1, 0))
    assert night.commit("b1", success(1)).acceptances == (SUPERSEDED,)


def test_more_tasks_than_one_step_takes_are_forgotten_in_the_given_order(night: Night) -> None:
    begin(night.store, 1100, "r2", adopted=range(1100), key="other", place="/other")
    order = list(range(1099, -1, -1))
    after = night.store.repair(night.epoch, "r2", [0], order, 0)
    told = [event for event in night.store.follow("r2", "0", 0) if event.what is Happening.INVALIDATED]
    assert [task for event in told for task in event.tasks] == order
    assert told[-1].invalidations == after
    assert dict(night.store.load_run("r2").repairs) == {0: 1}
