"""How a command finds the run that it started before (DESIGN 2, QX7), on every store."""

from __future__ import annotations

from pathlib import Path

import pytest

from overnight.adoption import stored_inline
from overnight.config import Settings
from overnight.core.states import RunPhase, TaskState
from overnight.errors import UnreadableRun
from overnight.keyring import Keyring
from overnight.launch import Launched, put_in_place
from overnight.messages import StoredResult
from overnight.run_key import RunOptions
from overnight.store.memory import MemoryStore
from overnight.store.records import Request, Verdict
from overnight.structure import Structure
from overnight.submission import Submission
from overnight.task import Task
from tests.support.graphs import chain, noops
from tests.support.stores import Store, epoch_of, run_record


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path)


def launched(store: Store, settings: Settings, *chosen: int) -> Launched:
    """Put a run of the `chosen` of three tasks in place, of all of them if none is named."""
    graph = noops(n=3)
    descs = [graph.get_task_desc(task) for task in graph.tasks]
    wanted = [descs[number] for number in chosen] or descs
    return put_in_place(store, wanted, dict, "key", RunOptions(), settings, Keyring())


def ids_of(store: Store, run_id: str) -> list[str]:
    return list(Structure(run_id, store.specs(run_id), Keyring()).ids())


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


@pytest.mark.parametrize("chosen", [(0, 2), (2, 1, 0), (1,)])
def test_a_run_that_its_client_had_begun_to_submit_keeps_the_numbers_of_its_tasks(
    store: Store, settings: Settings, chosen: tuple[int, ...]
) -> None:
    """P9, P11: a server that fell back to the middle of the submission holds all tasks; what has failed in the
    meantime is not asked for again, and another's failure must not be taken for one of those that are."""
    run = run_record("half-done", key="key", place="", total=3)
    store.open_run(run, b"context")
    graph = noops(n=3)
    whole = Submission(store, "half-done", Keyring())
    whole.add([graph.get_task_desc(task) for task in graph.tasks])
    attached = launched(store, settings, *chosen)
    assert attached.run.run_id == "half-done"
    assert [task.task_id for task in attached.submission.tasks] == ids_of(store, "half-done")
    assert store.run("half-done").phase is RunPhase.ACTIVE


def test_a_submission_that_was_cut_off_is_completed_by_whoever_attaches(store: Store, settings: Settings) -> None:
    run = run_record("half-done", key="key", place="", total=3)
    store.open_run(run, b"context")
    graph = noops(n=3)
    part = Submission(store, "half-done", Keyring())
    part.add([graph.get_task_desc(task) for task in graph.tasks][:1])
    attached = launched(store, settings)
    assert [task.task_id for task in attached.submission.tasks] == ids_of(store, "half-done")
    assert store.run("half-done").added == 3


@pytest.mark.parametrize(
    ("of_the_first", "states"),
    [((0, 1), b"ccc"), ((0,), b"cpp"), ((), b"ppp"), ((0, "another result"), b"ccp")],
    ids=["all", "not the second", "none", "another second"],
)
def test_whoever_adds_to_a_run_brings_no_result_that_was_computed_from_another_attempt(
    store: Store, settings: Settings, of_the_first: tuple[int | str, ...], states: bytes
) -> None:
    """P2, I3: after the server has lost a run, two clients put it in place again, each with the results it has seen."""
    graph = chain(n=3)
    descs = [graph.get_task_desc(task) for task in graph.tasks]
    first, second, third = (desc.task for desc in descs)
    assert descs[2].deps == [second]
    theirs = {task: stored_inline(value) for task, value in zip((first, second), of_the_first, strict=False)}
    mine = {task: stored_inline(value) for task, value in zip((first, second, third), (0, 1, 2), strict=True)}
    options = RunOptions()
    put_in_place(store, descs[:2], lambda: theirs, "key", options, settings, Keyring())
    run_id = put_in_place(store, descs, lambda: mine, "key", options, settings, Keyring()).run.run_id
    assert store.states(run_id)[::2] == states


@pytest.mark.parametrize("their_tasks", [(0, 1, 2), (2, 1, 0), (1,)])
def test_whoever_makes_a_run_learns_the_numbers_that_a_faster_client_has_given_its_tasks(
    store: Store, settings: Settings, their_tasks: tuple[int, ...]
) -> None:
    """P2, P9: both put a lost run in place again; the one that makes it wants less, as a task has failed."""

    def meanwhile() -> dict[Task, StoredResult]:
        if not store.specs(store.active_runs()[0]):
            launched(store, settings, *their_tasks)
        return {}

    graph = noops(n=3)
    descs = [graph.get_task_desc(task) for task in graph.tasks]
    made = put_in_place(store, [descs[0], descs[2]], meanwhile, "key", RunOptions(), settings, Keyring())
    names = [task.task_id for task in made.submission.tasks]
    assert names == ids_of(store, made.run.run_id)
    assert {descs[0].task.task_id, descs[2].task.task_id} <= set(names)
    assert made.submission.is_in(store.run(made.run.run_id), store)


def test_a_client_notices_that_other_tasks_have_its_numbers_since_the_server_fell_back(
    store: Store, settings: Settings
) -> None:
    """P9: another client has put the run in place by then, with more tasks than this one."""
    put = launched(store, settings, 0, 2)
    run_id, mine = put.run.run_id, put.submission
    launched(store, settings, 0, 1, 2)
    assert mine.is_in(store.run(run_id), store), "what came after them changes nothing"
    fallen_back = MemoryStore()
    fallen_back.open_run(run_record(run_id, key="key", place="", total=3), b"context")
    assert not mine.is_in(fallen_back.run(run_id), fallen_back)
    launched(fallen_back, settings, 0, 1, 2)
    assert fallen_back.run(run_id).added == 3
    assert not mine.is_in(fallen_back.run(run_id), fallen_back)


def test_a_run_of_which_the_server_has_lost_names_is_refused_to_whoever_attaches(settings: Settings) -> None:
    """P17: what it lacks would be added behind them without end."""
    store = MemoryStore()
    run_id = launched(store, settings, 0, 1).run.run_id
    store.data.runs[run_id].specs.clear()
    with pytest.raises(UnreadableRun, match="the server names 0 of its 2 tasks"):
        launched(store, settings)
