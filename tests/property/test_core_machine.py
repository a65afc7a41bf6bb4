"""A random machine against the core: whatever the channel does to the events, its promises hold (P1, P2, P5, P11)."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.support.stored_truth import Surroundings

SEEDS = 400
RANDOMS = st.randoms(use_true_random=False)


class CoreMachine(RuleBasedStateMachine):
    """One rule for each thing that can happen around the core."""

    @initialize(rng=RANDOMS, tasks=st.integers(1, 12), fail_fast=st.booleans(), faultless=st.booleans())
    def begin(self, rng: Random, tasks: int, fail_fast: bool, faultless: bool) -> None:
        self.around = Surroundings(rng, fail_fast=fail_fast, faultless=faultless)
        self.around.add_tasks(tasks)

    @rule()
    def offer(self) -> None:
        self.around.offer()

    @rule(steps=st.integers(1, 6))
    def work(self, steps: int) -> None:
        for _ in range(steps):
            self.around.work()

    @rule(events=st.integers(1, 6))
    def deliver(self, events: int) -> None:
        for _ in range(events):
            self.around.deliver_one()

    @rule()
    def kill_worker(self) -> None:
        self.around.kill_worker()

    @rule()
    def drain_worker(self) -> None:
        self.around.drain_worker()

    @rule()
    def pass_time(self) -> None:
        self.around.pass_time()

    @rule(number=st.integers(1, 4))
    def add_tasks(self, number: int) -> None:
        self.around.add_tasks(number)

    @rule()
    def cancel(self) -> None:
        self.around.cancel()

    @rule()
    def retry_all(self) -> None:
        self.around.retry()

    @rule(task=st.integers(0, 11))
    def retry_one(self, task: int) -> None:
        self.around.retry((task % len(self.around.states),))

    @rule(task=st.integers(0, 11))
    def invalidate(self, task: int) -> None:
        self.around.invalidate(task % len(self.around.states))

    @rule(task=st.integers(0, 11))
    def adopt(self, task: int) -> None:
        self.around.adopt(task % len(self.around.states))

    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        self.around.pause(paused=paused)

    @precondition(lambda self: not self.around.faultless)
    @rule()
    def repair(self) -> None:
        self.around.repair()

    @rule()
    def restart_core(self) -> None:
        self.around.restart_core()

    def teardown(self) -> None:
        if hasattr(self, "around"):
            self.around.quieten()


TestCoreMachine = CoreMachine.TestCase
TestCoreMachine.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


def storm(seed: int) -> None:
    """Run one seed: which faults strike, and how often, is part of it."""
    rng = Random(seed)
    around = Surroundings(rng, fail_fast=rng.random() < 0.25, faultless=rng.random() < 0.25)
    around.add_tasks(rng.randint(1, 25))
    rare: dict[Callable[[], None], float] = {
        around.kill_worker: rng.choice((0, 0.02, 0.1, 0.3)),
        around.drain_worker: rng.choice((0, 0.02, 0.1)),
        around.cancel: rng.choice((0, 0, 0.01, 0.05)),
        around.retry: rng.choice((0, 0.01, 0.05)),
        lambda: around.pause(paused=rng.random() < 0.5): rng.choice((0, 0.05)),
        around.pass_time: rng.choice((0.02, 0.2)),
        around.restart_core: rng.choice((0, 0.01, 0.05)),
        around.repair: 0 if around.faultless else rng.choice((0, 0.02, 0.1)),
        lambda: around.invalidate(rng.randrange(len(around.states))): rng.choice((0, 0.02, 0.1)),
        lambda: around.retry((rng.randrange(len(around.states)),)): rng.choice((0, 0.02)),
        lambda: around.adopt(rng.randrange(len(around.states))): rng.choice((0, 0.02)),
        lambda: around.add_tasks(rng.randint(1, 3)): rng.choice((0, 0.02)),
    }
    for _ in range(rng.randint(20, 150)):
        rng.choice((around.offer, around.work, around.work, around.deliver_one, around.deliver_one))()
        for happen, rate in rare.items():
            if rng.random() < rate:
                happen()
    around.quieten()


@pytest.mark.parametrize("first", range(0, SEEDS, 50))
def test_every_promise_holds_in_every_storm(first: int) -> None:
    """P1, P2, P5, P11, O3, O6, O7, B8."""
    for seed in range(first, first + 50):
        try:
            storm(seed)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
