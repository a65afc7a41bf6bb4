"""What a follower makes of events that no store of overnight's has written."""

from __future__ import annotations

from overnight.core.states import TaskState
from overnight.following import Follower
from overnight.store.memory import MemoryStore
from overnight.store.records import Happening
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
