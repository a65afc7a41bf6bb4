"""What a client asks for when a person wants one task of a run that is over to run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from overnight.client import Client
from overnight.config import Settings
from overnight.core.states import RunPhase, TaskState
from overnight.keyring import Keyring
from overnight.messages import SpecChunk
from overnight.store.memory import MemoryStore
from overnight.store.records import Addition, Verdict
from tests.support.simulation.actors import SimDeployment
from tests.support.stores import Night, epoch_of, run_record

#: t1 needs t0, t2 needs t1; t3 stands alone.
NEEDS = [[], [0], [1], []]


@pytest.mark.parametrize(
    ("ended", "asked", "again"),
    [("kkkk", "t2", "pppk"), ("kkkk", "t1", "ppkk"), ("fssk", "t2", "pppk"), ("kkkk", "t3", "kkkp")],
)
def test_a_retried_task_takes_along_what_it_needs(tmp_path: Path, ended: str, asked: str, again: str) -> None:
    """P11, decision 0010: a scheduler that meets the run anew sees states alone, and would end the task again."""
    store = MemoryStore()
    store.open_run(run_record(), b"context")
    chunk = SpecChunk(0, [f"t{task}" for task in range(4)], ["f"], [0] * 4, NEEDS, {})
    store.add_tasks("r1", Addition(0, 4, chunk.sealed("r1", Keyring()), dict.fromkeys(range(4), b"message"), {}))
    store.activate("r1")
    night = Night(store, epoch_of(store), "r1")
    night.settle(
        *(Verdict(task, TaskState(ord(code)), cause=0 if code == "s" else None) for task, code in enumerate(ended))
    )
    assert night.end(RunPhase.FAILED)
    deployment: Any = SimDeployment(store, Settings(state_dir=tmp_path))
    Client.of(deployment).retry("r1", (asked,))
    assert night.states() == again
