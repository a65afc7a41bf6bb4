"""Whole runs on a simulated clock, with everything going wrong (ADVERSITY 4; P1 to P5, P7, P9, P11)."""

from __future__ import annotations

import pickle
import time
from contextlib import ExitStack, suppress

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from overnight import following
from overnight.core.actions import RunEnded
from overnight.core.events import CancelRequested
from overnight.core.invariants import check
from overnight.core.run_state import RunState
from overnight.core.states import RunPhase, TaskState
from overnight.errors import OvernightError
from overnight.following import Follower
from overnight.store.memory import MemoryStore
from overnight.store.memory_data import MemoryData
from overnight.store.records import Request
from overnight.transport.memory import MemoryTransport
from tests.support.simulation.planted import planted
from tests.support.simulation.play import played, stage
from tests.support.simulation.server import Line
from tests.support.stores import Night, begin

#: A few seconds' worth on a machine with other load; `python -m tests.support.simulation` plays any number.
MOST_SEEDS = 300
SECONDS = 20.0
MOST_EXAMPLES = 20
#: Seeds that once found a defect.
KEPT = [186, 222, 263, 397, 842, 844, 2353]
#: A seed that finds each planted bug.
FOUND_BY = {
    "any-failure": 17,
    "claim-of-anything": 128,
    "continue-trusts-done": 38,
    "dispatch-of-anything": 268,
    "events-only": 103,
    "flag-after-commit": 4,
    "give-back-of-started": 2,
    "no-audit": 25,
    "no-epoch": 28,
    "no-look-first": 46,
    "no-queue-repair": 8,
    "reap-of-a-snapshot": 19,
    "torn-flag-accepted": 7,
}


def test_a_seed_plays_the_same_way_each_time() -> None:
    first, second = played(46, tracing=True), played(46, tracing=True)
    assert first.trace == second.trace
    assert first.digest == second.digest != played(47).digest


@pytest.mark.parametrize("seed", range(1, 11))
def test_a_run_without_faults_ends_as_it_should(seed: int) -> None:
    calm = played(seed, faults=False)
    assert calm.error is None
    assert calm.executions > 1
    assert not calm.struck


def test_runs_come_to_their_end_whatever_strikes() -> None:
    """P1 to P5, P9, P11. Plays until the time is up: what a slow machine does not reach, others do."""
    began, struck = time.monotonic(), 0
    for seed in range(1000, 1000 + MOST_SEEDS):
        one = played(seed)
        assert one.error is None, f"python -m tests.support.simulation --seed {seed} --trace"
        struck += sum(one.struck.values())
        if time.monotonic() - began > SECONDS:
            break
    assert struck > 0


@pytest.mark.parametrize("seed", KEPT)
def test_seeds_that_found_a_defect_find_none(seed: int) -> None:
    assert played(seed).error is None


@pytest.mark.parametrize("name", FOUND_BY)
def test_planted_bugs_are_found(name: str) -> None:
    """The simulation sees what it is there to see: the same seed finds nothing where nothing is planted."""
    seed = FOUND_BY[name]
    with planted(name):
        assert played(seed).error is not None
    assert played(seed).error is None


class EndsBetween(MemoryStore):
    """A store whose run ends between any two looks of a client."""

    def end_between(self, night: Night) -> None:
        self._night = night

    def states(self, run_id: str) -> bytes:
        found = super().states(run_id)
        if self.data.runs[run_id].phase is RunPhase.ACTIVE:
            for task in range(4):
                self.data.runs[run_id].put(task, TaskState.FAILED)
            assert self.finish(self._night.epoch, run_id, RunPhase.FAILED)
        return found


def test_a_run_that_ends_while_its_states_are_read_is_told_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """P11: whoever is told that a run is over has been told of each of its tasks."""
    monkeypatch.setattr(following, "SILENCE_SECONDS", 0.0)
    store = EndsBetween()
    night = begin(store)
    store.end_between(night)
    told: dict[int, TaskState] = {}
    over = None
    for changed in Follower(store, night.run_id).changes(0.0):
        told.update(changed.tasks)
        over = changed.over
    assert told == dict.fromkeys(range(4), TaskState.FAILED)
    assert over is RunPhase.FAILED


def test_a_run_that_is_cancelled_before_it_holds_a_task_ends() -> None:
    """P11: its client was killed in between; the same command waits for the end of the cancelled run."""
    core = RunState()
    assert core.handle(CancelRequested()) == [RunEnded(RunPhase.CANCELLED)]
    check(core)


class Machine(RuleBasedStateMachine):
    """The same world, with faults where Hypothesis wants them."""

    @initialize(seed=st.integers(0, 999))
    def begin(self, seed: int) -> None:
        self.stack = ExitStack()
        self.play = self.stack.enter_context(stage(seed, faults=False))
        self.play.world.rates = {}
        self.play.begin()

    def _all_ended(self) -> bool:
        return len(self.play.ended) == len(self.play.clients)

    @rule(ticks=st.sampled_from((0.05, 0.2, 1.0, 5.0, 30.0)))
    def time_passes(self, ticks: float) -> None:
        self.play.world.run(lambda: False, ticks)

    def _strike(self, fault: str) -> None:
        self.play.world.struck[fault] += 1
        self.play.world.last_cost = self.play.world.now + 4.0

    @rule(number=st.integers(0, 2))
    def a_worker_dies(self, number: int) -> None:
        self._strike("kill")
        self.play.world.kill(self.play.workers[number % len(self.play.workers)].actor)

    @rule()
    def a_scheduler_dies(self) -> None:
        self._strike("kill")
        self.play.world.kill(self.play.schedulers[0].actor)

    @rule()
    def a_client_dies(self) -> None:
        self._strike("kill")
        self.play.world.kill(self.play.clients[0].actor)

    @rule()
    def another_client_comes(self) -> None:
        if len(self.play.clients) < 4:
            self.play.client()

    @rule()
    def the_server_restarts(self) -> None:
        self._strike("restart")
        self.play.server.restart(None)

    @rule()
    def the_server_forgets_all(self) -> None:
        self._strike("restart")
        self.play.server.restart(pickle.dumps((MemoryData(), MemoryTransport())))

    @rule()
    def a_flag_is_damaged(self) -> None:
        if self.play.nets:
            self._strike("damage")
            self.play.damage()

    @rule(fault=st.sampled_from(("request", "reply", "repeat")), ticks=st.integers(1, 8))
    def the_line_is_bad(self, fault: str, ticks: int) -> None:
        self.play.world.rates = {fault: 1.0}
        self.play.world.run(lambda: False, ticks)
        self.play.world.rates = {}

    @rule(request=st.sampled_from((Request.CANCEL, Request.PAUSE, Request.RETRY)))
    def somebody_asks(self, request: Request) -> None:
        line = Line(self.play.server, "people")

        def ask() -> None:
            with suppress(OvernightError):
                self.play.steer(line, request)

        self._strike("steer")
        self.play.world.start("people", ask)

    def teardown(self) -> None:
        with self.stack:
            self.play.finish()


Machine.TestCase.settings = settings(
    max_examples=MOST_EXAMPLES, stateful_step_count=12, deadline=None, derandomize=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
TestMachine = Machine.TestCase
