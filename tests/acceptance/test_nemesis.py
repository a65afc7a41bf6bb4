"""Short runs of the nemesis, with a fixed seed and a fresh one; longer ones: `python -m tests.acceptance.nemesis`."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.nemesis import schedule
from tests.acceptance.nemesis.load import ALWAYS, plans
from tests.support.command import ROOT

MINUTES = "1.5"
SEEDS = {"a fixed seed": ("--seed", "3516"), "a fresh seed": ()}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS.values(), ids=SEEDS.keys())
def test_no_promise_is_broken_in_a_short_run_of_all_faults_at_once(seed: tuple[str, ...]) -> None:
    """P1 to P5, P11, P12: on three hosts, with a server, schedulers, workers and clients that die and freeze.

    What is printed begins with the seed: ``--seed`` plays its faults again.
    """
    command = [sys.executable, "-m", "tests.acceptance.nemesis", "--minutes", MINUTES, *seed]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stdout[:200] + done.stdout[-6000:] + done.stderr[-3000:]
    assert "violations: 0" in done.stdout


def test_a_seed_gives_the_same_schedule_again_and_a_written_one_is_read_as_it_was(tmp_path: Path) -> None:
    faults = schedule.drawn(5, 600, speed=2.0)
    assert faults == schedule.drawn(5, 600, speed=2.0) != schedule.drawn(6, 600, speed=2.0)
    assert {fault.kind for fault in schedule.drawn(5, 36_000)} == {kind.name for kind in schedule.TABLE}
    schedule.write(tmp_path / "schedule", faults)
    assert schedule.read(tmp_path / "schedule") == faults


@pytest.mark.parametrize("seed", range(3))
def test_graphs_are_drawn_with_dependencies_first_and_what_fails_always_is_left_out_on_demand(seed: int) -> None:
    for hours in (0.01, random.Random(seed).uniform(0.2, 1.0)):
        known: set[str] = set()
        for plan in plans(seed=seed, hours=hours):
            assert known.issuperset(plan.deps)
            known.add(plan.task_id)
        assert len(known) >= 3_900 * hours * 0.95
        assert all(plan.kind != ALWAYS for plan in plans(seed=seed, hours=hours, failing=False))
        assert any(plan.kind == ALWAYS for plan in plans(seed=seed, hours=hours))
