"""How a command finds the run that it started before (DESIGN 2, QX7), on every store."""

from __future__ import annotations

from pathlib import Path

import pytest

from overnight.config import Settings
from overnight.core.states import RunPhase, TaskState
from overnight.keyring import Keyring
from overnight.launch import Launched, put_in_place
from overnight.run_key import RunOptions
from overnight.store.records import Request, Verdict
from tests.support.graphs import noops
from tests.support.stores import Store, epoch_of


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path)


def launched(store: Store, settings: Settings) -> Launched:
    graph = noops(n=3)
    descs = [graph.get_task_desc(task) for task in graph.tasks]
    return put_in_place(store, descs, dict, "key", RunOptions(), settings, Keyring())


def test_whoever_attaches_to_a_run_has_run_what_was_cancelled_in_it(store: Store, settings: Settings) -> None:
    """P11: a retry of one task reopens a run that was cancelled; the command wants all of them."""
    run_id = launched(store, settings).run.run_id
    epoch = epoch_of(store)
    store.request(run_id, Request.CANCEL)
    store.settle(epoch, run_id, [Verdict(task, TaskState.CANCELLED) for task in range(3)])
    assert store.finish(epoch, run_id, RunPhase.CANCELLED)
    store.request(run_id, Request.RETRY, [1])
    assert store.states(run_id)[::2] == b"kpk"
    again = launched(store, settings)
    assert (again.run.run_id, again.attached) == (run_id, True)
    assert store.states(run_id)[::2] == b"ppp"
