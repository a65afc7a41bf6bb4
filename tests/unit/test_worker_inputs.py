"""What a worker fetches for the tasks of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from overnight.errors import InputLost
from overnight.keyring import Keyring
from overnight.store.memory import MemoryStore
from overnight_worker.inputs import Inputs
from tests.support.stores import begin

TASKS = 1000


class Counted(list[Any]):
    """A list that counts how often it was walked."""

    walks = 0

    def __iter__(self) -> Iterator[Any]:
        self.walks += 1
        return super().__iter__()


def test_the_work_for_a_fan_in_grows_with_its_dependencies_and_not_with_their_square() -> None:
    store = MemoryStore()
    begin(store, tasks=TASKS)
    dependencies = Counted(range(TASKS))
    facts = SimpleNamespace(dependencies=dependencies, dependency_ids=[f"part {task}" for task in range(TASKS)])
    batch: Any = SimpleNamespace(run_id="r1", digests={}, members=[SimpleNamespace(facts=facts)])
    post: Any = SimpleNamespace(store=store, keyring=Keyring())
    found = Inputs(post).results(batch, range(TASKS))
    assert all(isinstance(error, InputLost) and f"'part {task}'" in str(error) for task, error in found.items())
    assert len(found) == TASKS
    assert dependencies.walks <= 2
