"""How runs share workers, and the resources that bound all of them together (O6)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from overnight.core.actions import Action, Dispatch
from overnight.core.events import NewTask, TaskRules, TasksAdded, TaskSucceeded
from overnight.core.invariants import check
from overnight.core.run_state import RunState
from overnight.keyring import Keyring
from overnight.messages import SpecChunk
from overnight.service.active_run import ActiveRun
from overnight.service.learned import LearnedDurations
from overnight.service.sharing import Sharing
from tests.support.stores import run_record

QUEUE, WORKERS = "default", 2
SHORT_SECONDS = 0.001


def active(
    tasks: int, *, weight: float = 1.0, resources: tuple[tuple[str, float], ...] = (), seconds: float = SHORT_SECONDS
) -> ActiveRun:
    """Return a run of independent tasks of one function, whose duration is known."""
    run = ActiveRun(replace(run_record(), weight=weight), RunState(by_paths=True), LearnedDurations())
    run.queues.add(QUEUE)
    rules = TaskRules(queue=QUEUE, resources=resources)
    run.core.handle(TasksAdded(0, [NewTask((), rules)] * tasks))
    run.core.durations.load({0: (seconds, 10)})
    return run


def turns(sharing: Sharing, runs: Sequence[ActiveRun]) -> list[tuple[ActiveRun, Dispatch]]:
    """Let the runs have what they are offered; return the batches."""
    batches = []
    for turn in sharing.turns(QUEUE, WORKERS, runs, 0.0):
        actions: list[Action] = sharing.served(turn, turn.run.core.handle(turn.event))
        batches += [(turn.run, action) for action in actions if isinstance(action, Dispatch)]
    return batches


def finish(run: ActiveRun, batch: Dispatch) -> None:
    for task in batch.tasks:
        run.core.handle(TaskSucceeded(task))


def test_a_small_run_beside_a_large_one_is_done_after_its_first_batch_which_goes_to_the_front() -> None:
    large, small = active(2_000), active(10, seconds=0.0001)
    sharing = Sharing({})
    waiting = turns(sharing, [large])
    assert len(waiting) == 2 * WORKERS
    finish(*waiting.pop(0))
    (came,) = turns(sharing, [large, small])
    assert (came[0], len(came[1].tasks), came[1].urgent) == (small, 10, True)


def test_a_small_run_waits_for_no_place_in_a_full_window() -> None:
    large, small, other, third = active(2_000), active(10), active(10), active(10)
    sharing = Sharing({})
    assert len(turns(sharing, [large])) == 2 * WORKERS
    (came,) = turns(sharing, [large, small])
    assert (came[0], len(came[1].tasks), came[1].urgent) == (small, 10, True)
    # There are no more such batches than workers: a third run has its turn when there is room.
    assert [run for run, _ in turns(sharing, [large, small, other, third])] == [other]
    assert turns(sharing, [large, small, other, third]) == []


def test_a_run_that_was_served_more_than_others_waits_for_its_turn() -> None:
    large, chain = active(2_000, seconds=0.01), active(2_000, seconds=1.0)
    sharing = Sharing({})
    turns(sharing, [large])
    (first,) = turns(sharing, [large, chain])
    assert first[0] is chain
    finish(*first)
    assert turns(sharing, [large, chain]) == []


@pytest.mark.parametrize(("weight", "share"), [(1.0, 0.5), (3.0, 0.75)])
def test_runs_get_time_by_weight_whatever_their_batches_hold(weight: float, share: float) -> None:
    heavy, light = active(20_000, weight=weight), active(1_000, seconds=0.05)
    sharing = Sharing({})
    waiting: list[tuple[ActiveRun, Dispatch]] = []
    seconds: Counter[int] = Counter()
    for _ in range(60):
        waiting += turns(sharing, [heavy, light])
        run, batch = waiting.pop(0)
        seconds[id(run)] += len(batch.tasks) * (SHORT_SECONDS if run is heavy else 0.05)  # type: ignore[assignment]  # a float
        finish(run, batch)
    assert seconds[id(heavy)] / seconds.total() == pytest.approx(share, abs=0.08)


def test_a_run_that_had_nothing_to_do_makes_up_for_nothing() -> None:
    old, late = active(20_000), active(20_000)
    sharing = Sharing({})
    waiting = turns(sharing, [old])
    for _ in range(40):
        finish(*waiting.pop(0))
        waiting += turns(sharing, [old])
    before = old.served
    for _ in range(20):
        finish(*waiting.pop(0))
        waiting += turns(sharing, [old, late])
    assert late.served > before > 5
    assert old.served - before == pytest.approx(late.served - before, abs=0.6)


def test_what_all_runs_hold_of_a_resource_stays_within_the_schedulers_limit() -> None:
    runs = [active(20, resources=(("db", 1.0),)), active(20, resources=(("db", 2.0),)), active(20)]
    sharing = Sharing({"db": 3.0})
    waiting: list[tuple[ActiveRun, Dispatch]] = []
    most = 0.0
    for _ in range(200):
        waiting += turns(sharing, runs)
        held = sum(run.core.held("db") for run in runs)
        assert held <= 3.0
        for run in runs:
            check(run.core)
        most = max(most, held)
        if not waiting:
            break
        finish(*waiting.pop(0))
    assert most == 3.0
    assert all(run.core.phase.is_over for run in runs)


def test_a_run_that_asks_for_more_than_there_is_says_which_task_does() -> None:
    sharing = Sharing({"db": 2.0})
    run = ActiveRun(run_record(), RunState(by_paths=True), LearnedDurations())
    rules = {0: TaskRules(resources=(("db", 1.0),)), 1: TaskRules(resources=(("db", 3.0),))}
    run.add(SpecChunk(0, ["a", "b"], ["f"], [0, 0], [[], []], rules).sealed(run.run_id, Keyring()), Keyring())
    assert sharing.excess(run).startswith("Task b needs 3 of 'db', and this scheduler has only 2 for all runs: ")
    assert not sharing.excess(active(1, resources=(("db", 2.0), ("gpu", 9.0))))
    assert "needs 3 of 'db', and this scheduler has only 2" in sharing.excess(active(1, resources=(("db", 3.0),)))
