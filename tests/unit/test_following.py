"""What a follower makes of events that no store of overnight's has written."""

from __future__ import annotations

import pytest

from overnight.core.states import RunPhase, TaskState
from overnight.errors import DamagedRun
from overnight.following import Follower
from overnight.store.memory import MemoryStore
from overnight.store.records import Happening, Request, RunEvent
from tests.support.stores import begin


def test_an_event_of_a_task_that_no_run_holds_takes_no_room() -> None:
    """A2, M1: one short entry must not cost four gigabytes."""
    store = MemoryStore()
    begin(store)
    run = store.data.runs["r1"]
    run.tell(Happening.RETURNED, batch="b", tasks=(2**32 - 1,))
    run.tell(Happening.CLAIMED, batch="b", tasks=(1,))
    follower = Follower(store, "r1")
    assert next(follower.changes(0.0)).tasks == [(1, TaskState.RUNNING)]
    assert sum(follower.counts().values()) == 2


def test_codes_that_stand_for_no_state_keep_nobody_from_seeing_the_end() -> None:
    """A2: whoever may write to the server may have put anything in place of the states."""
    store = MemoryStore()
    night = begin(store)
    store.data.runs["r1"].states[:] = b"\xbd\x00d\x01"
    store.data.runs["r1"].tell(Happening.GAP)
    follower = Follower(store, "r1")
    assert next(follower.changes(0.0)).tasks == [(1, TaskState.DONE)]
    store.request("r1", Request.CANCEL)
    store.abandon(night.epoch, "r1")
    assert [changed.over for changed in follower.changes(0.0)][-1] is RunPhase.CANCELLED


class Damaged(MemoryStore):
    """A store that can read nothing of a run."""

    def follow(self, run_id: str, cursor: str, seconds: float) -> list[RunEvent]:
        raise DamagedRun(f"Run {run_id} is rubbish.")


def test_a_run_that_cannot_be_followed_is_told_with_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    """P17: waiting for the server to come back, as in an outage, would help nobody."""
    assert next(Follower(Damaged(), "r1").changes(0.0)).tasks == ()
    remedy = "Cancel the run and start it again; what is recorded as finished is kept."
    assert caplog.messages == [f"The run cannot be followed: Run r1 is rubbish. {remedy}"]
