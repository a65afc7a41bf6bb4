"""A run that is read again is what the store says, and what was decided of it and not recorded stays due."""

from __future__ import annotations

from overnight.core.states import RunPhase, TaskState
from overnight.keyring import Keyring
from overnight.messages import SpecChunk
from overnight.service.learned import LearnedDurations
from overnight.service.recover import read_again, take_over
from overnight.store.memory import MemoryStore
from overnight.store.records import Addition, Verdict
from tests.support.stores import Night, epoch_of, failure, run_record

KEYRING = Keyring()


def test_the_end_of_a_run_stays_due_when_it_is_read_again_before_the_end_is_on_record() -> None:
    """P11: a scheduler frozen for two leases between the last verdict and FINISH reads the run again."""
    store = MemoryStore()
    store.open_run(run_record(total=1), b"context")
    chunk = SpecChunk(0, ["t0"], ["f"], [0], [[]], {})
    store.add_tasks("r1", Addition(0, 1, chunk.sealed("r1", KEYRING), {0: b"message"}, {}))
    store.activate("r1")
    night = Night(store, epoch_of(store), "r1")
    night.start("b1", [0])
    night.commit("b1", failure(0))
    night.settle(Verdict(0, TaskState.FAILED))
    run, _ = take_over(store.load_run("r1"), KEYRING, LearnedDurations(), 0.0)
    read_again(run, store.load_run("r1"), 10.0)
    assert run.over is RunPhase.FAILED
