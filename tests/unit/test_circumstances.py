"""What a task of an active run waits for, as `why` tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from overnight.commands.circumstances import Circumstances
from overnight.config import Settings
from overnight.core.events import Charge, Flight, TaskRules
from overnight.core.states import RunPhase
from overnight.keyring import Keyring
from overnight.messages import SpecChunk
from overnight.service.identity import describe
from overnight.shared_limits import excess_text
from overnight.store.records import EpochHeld, RunRecord, WorkerRecord
from overnight.structure import Structure
from overnight.wire import PROTOCOL
from tests.support.stores import run_record

NOW = 1000.0
SETTINGS = Settings().with_values(state_dir="here")
WORKER = WorkerRecord("w", "host", 1, ["default"], "3.11.7", PROTOCOL, started_at=0.0)
BUSY = replace(WORKER, batch="b", run_id="r1", task=0, task_since=990.0)


@dataclass
class Scene:
    """A run of tasks 0, 1, .. with these states (`p`, `x`, ...), dependencies and rules."""

    states: str
    needs: Mapping[int, Sequence[int]] = field(default_factory=dict)
    rules: Mapping[int, TaskRules] = field(default_factory=dict)
    charges: Mapping[int, Charge] = field(default_factory=dict)
    flights: Sequence[Flight] = ()
    workers: Sequence[WorkerRecord] = (WORKER,)
    scheduler: bool = True
    run: Mapping[str, Any] = field(default_factory=dict)
    #: Limits of the scheduler over all runs; None: it is of a version that does not tell them.
    shared: Mapping[str, float] | None = None
    elsewhere: Mapping[str, float] = field(default_factory=dict)

    def around(self) -> Circumstances:
        number = len(self.states)
        ids = [f"t{task}" for task in range(number)]
        needs = [list(self.needs.get(task, ())) for task in range(number)]
        chunk = SpecChunk(0, ids, ["f"], [0] * number, needs, dict(self.rules)).sealed("r1", Keyring())
        run: RunRecord = replace(run_record("r1"), **{"phase": RunPhase.ACTIVE, "queue": "default", **self.run})
        told = "host:1" if self.shared is None else describe(self.shared)
        held = EpochHeld("s", told, 5.0) if self.scheduler else None
        codes, structure = self.states.encode(), Structure("r1", [chunk], Keyring())
        return Circumstances(
            run, codes, structure, self.flights, self.workers, held, 0, NOW, SETTINGS, lambda _tasks: self.charges,
            lambda _name: self.elsewhere,
        )  # fmt: skip

    def kinds(self, task: int) -> list[str]:
        return [obstacle.kind for obstacle in self.around().obstacles(task)]

    def text(self, task: int) -> str:
        return self.around().obstacles(task)[0].text


def test_a_task_waits_for_those_of_its_dependencies_that_have_no_result() -> None:
    scene = Scene("dxpp", {3: [0, 1, 2]})
    assert scene.kinds(3) == ["dependencies"]
    assert scene.text(3) == "it waits for 2 of its 3 dependencies: t1, t2"


def test_in_the_end_it_waits_for_ancestors_that_wait_for_nothing_those_that_run_first() -> None:
    around = Scene("pxdppp", {3: [0, 2], 4: [1], 5: [3, 4]}).around()
    assert around.frontier(5) == [1, 0]
    assert around.frontier(3) == [0]


def test_a_chain_of_many_thousand_tasks_has_its_end_found() -> None:
    around = Scene("x" + "p" * 20_000, {task: [task - 1] for task in range(1, 20_001)}).around()
    assert around.frontier(20_000) == [0]


def test_a_failed_task_backs_off_until_its_time() -> None:
    scene = Scene("p", charges={0: Charge(2, 0, NOW + 35)})
    assert scene.kinds(0) == ["backing_off"]
    assert scene.text(0).startswith("it failed twice and is tried again at ")
    assert scene.text(0).endswith(", in 35 s")
    assert Scene("p", charges={0: Charge(2, 0, NOW - 1)}).kinds(0) == ["ready"]


def test_a_limit_is_named_with_those_that_use_it_up() -> None:
    gpu = TaskRules(resources=(("gpu", 2.0),))
    scene = Scene(
        "xp", rules={0: gpu, 1: gpu}, flights=[Flight("b", "default", (0,), claimed=True)],
        run={"resource_limits": {"gpu": 3}},
    )  # fmt: skip
    assert scene.kinds(1) == ["limit"]
    assert scene.text(1) == "it needs 2 of gpu, of which 2 of 3 are in use by t0"
    assert Scene("xp", rules={0: gpu, 1: gpu}, flights=scene.flights, run={"resource_limits": {"gpu": 4}}).kinds(1) == [
        "ready"
    ]


def test_a_limit_over_all_runs_is_named_with_those_that_use_it_up() -> None:
    """O6, decision 0047."""
    one = TaskRules(resources=(("db", 1.0),))
    scene = Scene(
        "xp", rules={0: one, 1: one}, flights=[Flight("b", "default", (0,), claimed=True)], shared={"db": 1}
    )  # fmt: skip
    assert scene.kinds(1) == ["limit"]
    assert scene.text(1) == "it needs 1 of db, of which 1 of 1 for all runs are in use by t0"
    assert scene.around().obstacles(1)[0].tasks == [0]
    both = replace(scene, shared={"db": 3}, elsewhere={"r2": 2.0})
    assert both.text(1) == "it needs 1 of db, of which 3 of 3 for all runs are in use by t0 and run r2"
    assert replace(scene, shared={"db": 2}).kinds(1) == ["ready"]
    assert "scheduler may limit" not in replace(scene, shared={}).text(1)
    assert "which the scheduler may limit over all runs" in replace(scene, shared=None).text(1)


def test_a_task_that_needs_more_than_there_is_keeps_no_other_from_running() -> None:
    rules = {1: TaskRules(resources=(("db", 1.0),)), 2: TaskRules(resources=(("db", 5.0),))}
    note = excess_text("t2", 5, "db", 1)
    scene = Scene("xpp", rules=rules, shared={"db": 1}, run={"note": note})
    assert scene.kinds(1) == ["ready"]
    assert scene.kinds(2) == ["limit"]
    assert scene.text(2).startswith("it needs 5 of db, of which its scheduler has only 1 for all runs: it never starts")
    assert replace(scene, shared=None).text(1) == f"its scheduler says of the run: {note}"


def test_tasks_of_one_batch_use_a_resource_one_after_another() -> None:
    one = TaskRules(resources=(("gpu", 1.0),))
    scene = Scene(
        "xxp", rules=dict.fromkeys(range(3), one), flights=[Flight("b", "default", (0, 1), claimed=True)],
        run={"resource_limits": {"gpu": 2}},
    )  # fmt: skip
    assert scene.kinds(2) == ["ready"]


@pytest.mark.parametrize("state", ["p", "q"])
def test_a_queue_without_a_worker_is_named_with_the_command_that_starts_one(state: str) -> None:
    scene = Scene(state, rules={0: TaskRules(queue="gpu")})
    assert scene.kinds(0) == ["no_worker"]
    assert scene.text(0) == (
        "no worker serves queue gpu; the run waits. Start one with: overnight worker -q gpu --state-dir here"
    )


def test_what_keeps_the_whole_run_comes_first_and_the_rest_is_told_too() -> None:
    scene = Scene("px", {0: [1]}, scheduler=False, run={"paused": True})
    assert scene.kinds(0) == ["paused", "no_scheduler", "dependencies"]
    assert "overnight resume r1" in scene.text(0)
    assert Scene("p", run={"phase": RunPhase.CANCELLING}).kinds(0) == ["cancelling", "ready"]
    assert Scene("p", run={"note": "it lacks the key"}).text(0).endswith("it lacks the key")
    assert Scene("t").kinds(0) == ["judging"]


def test_a_ready_task_is_told_how_many_of_its_queue_come_before_it() -> None:
    rules = {1: TaskRules(queue="other"), 3: TaskRules(priority=1)}
    scene = Scene("pppp", rules=rules, workers=[BUSY, WORKER])
    assert (
        scene.text(2)
        == "it is ready, and 2 others of the run are before it; 1 of the 2 workers of queue default is busy"
    )
    assert scene.text(3).startswith("it is ready, and comes next; ")


def test_workers_that_hold_a_batch_are_busy_before_they_say_so() -> None:
    scene = Scene(
        "xq", flights=[Flight("b", "default", (0,), claimed=True), Flight("c", "default", (1,), claimed=False)]
    )
    assert scene.text(1) == (
        "it is on queue default and no worker has taken it yet; 1 of the 1 worker of queue default is busy"
    )


def test_the_holder_of_a_task_is_the_worker_of_its_batch() -> None:
    flight = Flight("b", "default", (0, 1), claimed=True)
    around = Scene("xxp", flights=[flight], workers=[BUSY]).around()
    assert around.holder(1) == (flight, BUSY)
    assert around.holder(2) == (None, None)
