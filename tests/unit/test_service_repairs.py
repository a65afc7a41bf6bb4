"""How a scheduler has a lost result computed again, and what is left of that when it dies in between (P12)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from overnight.core.events import Charge
from overnight.core.repairs import MOST_REPAIRS
from overnight.core.states import RunPhase
from overnight.messages import SpecChunk, StoredError
from overnight.service.perform import Diverged
from overnight.store.memory import MemoryStore
from overnight.store.records import Acceptance, Addition, Request, TaskView
from tests.support.one_scheduler import KEYRING, OneScheduler
from tests.support.stores import Night, epoch_of, lacking, run_record, success


def night_of(*dependencies: Sequence[int]) -> Night:
    """A run of tasks `t0`, `t1`, ... in memory."""
    store, total = MemoryStore(), len(dependencies)
    store.open_run(run_record(total=total), b"context")
    ids = [f"t{number}" for number in range(total)]
    chunk = SpecChunk(0, ids, ["f"], [0] * total, [list(needed) for needed in dependencies], {})
    messages = dict.fromkeys(range(total), b"message")
    store.add_tasks("r1", Addition(0, total, chunk.sealed("r1", KEYRING), messages))
    store.activate("r1")
    return Night(store, epoch_of(store), "r1")


def night_with_a_lack() -> Night:
    """Task 0 is done; 1 and 2 need it, and 1 has lacked it."""
    night = night_of((), (0,), (0,))
    night.start("b0", [0])
    night.commit("b0", success(0))
    night.start("b1", [1])
    night.start("b2", [2])
    return night


def view(night: Night, task: int) -> TaskView:
    (found,) = night.store.tasks("r1", [task])
    return found


def test_a_lost_result_is_forgotten_and_nobody_is_charged() -> None:
    night = night_with_a_lack()
    scheduler = OneScheduler(night)
    night.commit("b1", lacking(1, 0))
    scheduler.perform(scheduler.hear())
    assert night.states() == "ppx"
    assert view(night, 1).charge == Charge()
    assert night.store.load_run("r1").repairs == {0: 1}


def test_nothing_is_dispatched_before_what_was_forgotten_is_heard_of() -> None:
    """P4: the success of one that computed from it may still be on the way, and is gone."""
    night = night_with_a_lack()
    scheduler = OneScheduler(night)
    night.commit("b1", lacking(1, 0))
    actions = scheduler.hear()
    scheduler.perform(actions)
    assert scheduler.offers() == []
    scheduler.perform(scheduler.hear())
    assert scheduler.offers() == [scheduler.run]


def test_a_scheduler_that_dies_before_it_gave_its_verdict_leaves_one_repair_and_no_charge() -> None:
    """The window of the failpoint `scheduler.after_repair`."""
    night = night_with_a_lack()
    scheduler = OneScheduler(night)
    night.commit("b1", lacking(1, 0))
    [repair] = [action for action in scheduler.hear() if type(action).__name__ == "Repair"]
    scheduler.perform([repair])
    assert night.states() == "ptx"
    heir = OneScheduler(night)
    heir.perform(heir.due)
    assert night.states() == "ppx"
    assert (view(night, 1).charge, night.store.load_run("r1").repairs) == (Charge(), {0: 1})


def test_a_scheduler_that_dies_before_it_heard_of_the_lack_leaves_it_to_the_next() -> None:
    night = night_with_a_lack()
    night.commit("b1", lacking(1, 0))
    heir = OneScheduler(night)
    heir.perform(heir.due)
    assert night.states() == "ppx"
    assert (view(night, 1).charge, night.store.load_run("r1").repairs) == (Charge(), {0: 1})


def test_what_a_client_has_mended_meanwhile_is_left_alone() -> None:
    night = night_with_a_lack()
    scheduler = OneScheduler(night)
    night.commit("b1", lacking(1, 0))
    actions = scheduler.hear()
    night.store.invalidate("r1", [0, 1, 2])
    with pytest.raises(Diverged):
        scheduler.perform(actions)
    heir = OneScheduler(night)
    heir.perform(heir.due)
    assert (night.states(), night.store.load_run("r1").repairs) == ("ppx", {})
    assert view(night, 1).charge == Charge()


def test_a_second_report_of_the_same_loss_comes_to_nothing() -> None:
    night = night_with_a_lack()
    scheduler = OneScheduler(night)
    night.commit("b1", lacking(1, 0))
    scheduler.perform(scheduler.hear())
    assert night.commit("b2", lacking(2, 0)).acceptances == (Acceptance.SUPERSEDED,)
    scheduler.perform(scheduler.hear())
    assert (night.states(), night.store.load_run("r1").repairs) == ("ppp", {0: 1})
    assert view(night, 2).charge == Charge()


def test_a_cancel_that_was_not_heard_of_is_not_undone() -> None:
    night = night_with_a_lack()
    scheduler = OneScheduler(night)
    night.commit("b1", lacking(1, 0))
    actions = scheduler.hear()
    night.store.request("r1", Request.CANCEL)
    with pytest.raises(Diverged):
        scheduler.perform(actions)
    heir = OneScheduler(night)
    heir.perform(heir.due)
    assert night.states() == "dkx"
    assert night.store.run("r1").phase is RunPhase.CANCELLING


def test_the_bound_holds_over_a_change_of_scheduler_and_is_told_in_one_sentence() -> None:
    night = night_of((), (0,))
    attempt = 0
    for number in range(MOST_REPAIRS + 1):
        attempt = number + 1
        night.start(f"of0 {number}", [0], attempt)
        night.commit(f"of0 {number}", success(0))
        night.start(f"of1 {number}", [1], attempt)
        night.commit(f"of1 {number}", lacking(1, 0))
        heir = OneScheduler(night)
        heir.perform(heir.due)
    found = view(night, 1)
    assert (night.states(), found.attempt) == ("df", MOST_REPAIRS + 1)
    assert found.error is not None
    error = StoredError.opened(found.error, "r1", 1, KEYRING)
    assert error.type_name == "overnight.errors.InputLost"
    assert error.message.startswith(
        "The result of 't0' was lost or damaged again after it had been computed again 3 times; "
    )
