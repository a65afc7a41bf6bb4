"""What must run in a real graph with real flags and files (F1 to F6)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overnight.cache import CacheRecord, CacheRecordType, FileTaskCache, TaskCache
from overnight.errors import BadSeal, RecordMismatch
from overnight.files import LocalFiles
from overnight.flags import AttemptFacts, record_of
from overnight.graph import TaskGraph
from overnight.inspection import Decisions, decide
from overnight.lineage import DependencyRecord
from overnight.task import Task, TaskDesc


def work(*_args: Any) -> None:
    """Stand for a task's function."""


def chain() -> TaskGraph:
    graph = TaskGraph()
    graph.create_task("c", work, args=[Task("b")])
    graph.create_task("b", work, args=[Task("a")])
    graph.create_task("a", work, args=[])
    return graph


def run(graph: TaskGraph, cache: FileTaskCache, run_id: str, *ids: str) -> None:
    """Record a success of the tasks, each computed from the present records of its dependencies."""
    for task_id in ids:
        desc = graph.get_declared(Task(task_id))[0]
        present = cache.read_headers(desc.deps)
        records = tuple(
            record_of(present[dep]) if dep in present else DependencyRecord(None, None, None) for dep in desc.deps
        )
        facts = AttemptFacts(run_id=run_id, attempt=1, dependency_records=records)
        assert cache.store(desc, is_error=False, result=None, facts=facts)


def ids_of(decisions: Decisions) -> set[str]:
    return {task.task_id for task in decisions.must_run}


@pytest.fixture
def cache(tmp_path: Path) -> FileTaskCache:
    return FileTaskCache(str(tmp_path / "status"))


def test_a_second_run_executes_nothing(cache: FileTaskCache) -> None:
    """F3; completed tasks come in the graph's order (B11)."""
    graph = chain()
    assert ids_of(decide(graph, cache)) == {"a", "b", "c"}
    run(graph, cache, "r1", "a", "b", "c")
    decisions = decide(graph, cache)
    assert not decisions.must_run
    assert [task.task_id for task in decisions.completed] == ["c", "b", "a"]


def test_a_result_of_another_execution_of_a_dependency_is_not_used(cache: FileTaskCache) -> None:
    """F2 b: even where both executions returned the same."""
    graph = chain()
    run(graph, cache, "r1", "a", "b", "c")
    run(graph, cache, "r2", "a")
    decisions = decide(graph, cache)
    assert ids_of(decisions) == {"b", "c"}
    assert decisions.reason(Task("b")) == "was computed from another result of a than the present one"


def test_states_and_records_are_told_without_unpickling(cache: FileTaskCache, tmp_path: Path) -> None:
    """C13, L12."""

    class Trap(Exception):
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "canary"),)

    graph = chain()
    run(graph, cache, "r1", "a")
    cache.store(graph.get_declared(Task("b"))[0], is_error=True, result=Trap("bad"))
    decisions = decide(graph, cache)
    types = {name: decisions.state(Task(name)).name for name in "abc"}
    assert types == {"a": "COMPUTED", "b": "ERROR", "c": "NEEDS_COMPUTE"}
    assert decisions.record(Task("b")).error.message == "bad"
    assert decisions.record(Task("b")).reason == decisions.reason(Task("b"))
    assert decisions.reason(Task("c")) == "never ran"
    assert decisions.reason(Task("a")) is None
    assert decisions.header(Task("c")) is None
    assert not (tmp_path / "canary").exists()


def test_a_result_that_cannot_be_loaded_sends_its_task_and_dependants_to_run(
    cache: FileTaskCache, tmp_path: Path
) -> None:
    """F2 e."""
    graph = chain()
    run(graph, cache, "r1", "a", "b", "c")
    decisions = decide(graph, cache)
    assert decisions.load(Task("a")) is None
    (tmp_path / "status" / "b.flag").unlink()
    with pytest.raises(BadSeal):
        decisions.load(Task("b"))
    decisions.also_run(Task("b"))
    assert ids_of(decisions) == {"b", "c"}
    assert [task.task_id for task in decisions.completed] == ["a"]
    with pytest.raises(RecordMismatch):
        decisions.load(Task("b"))


def test_an_unusable_flag_is_the_reason(cache: FileTaskCache, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """C14."""
    graph = chain()
    run(graph, cache, "r1", "a", "b", "c")
    (tmp_path / "status" / "a.flag").write_bytes(b"")
    assert decide(graph, cache).reason(Task("a")) == "its record cannot be used: it is empty"
    assert len(caplog.records) == 1


class ForeignCache(TaskCache):
    """A cache of the two documented methods alone."""

    def get_record(self, task_desc: TaskDesc) -> CacheRecord:
        done = task_desc.task.task_id != "b"
        return CacheRecord(CacheRecordType.COMPUTED if done else CacheRecordType.NEEDS_COMPUTE, task_desc.task.task_id)

    def cache(self, task: Task, *, is_error: bool, result: Any) -> None:
        raise NotImplementedError


def test_a_foreign_caches_records_stand_as_they_are() -> None:
    """C3, F1."""
    graph = chain()
    graph.input_files.append("/nowhere")
    decisions = decide(graph, ForeignCache())
    assert ids_of(decisions) == {"b", "c"}
    assert decisions.load(Task("a")) == "a"


def test_a_dependency_outside_the_graph_is_no_error_here(cache: FileTaskCache) -> None:
    """F6."""
    graph = TaskGraph()
    graph.create_task("a", work, args=[Task("elsewhere")])
    run(graph, cache, "r1", "a")
    assert not decide(graph, cache).must_run


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    looked: list[str] = []

    def counting(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(files: LocalFiles, path: str, *rest: Any) -> Any:
            looked.extend([f"{path}/{each}" for each in rest[0]] if rest else [path])
            return real(files, path, *rest)

        return call

    for name in ("look", "listing"):
        monkeypatch.setattr(LocalFiles, name, counting(name, getattr(LocalFiles, name)))
    return looked


def test_each_file_is_examined_once_however_many_tasks_name_it(
    cache: FileTaskCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F5: 500 graph inputs and 200 tasks cost at most 500 lookups."""
    graph = TaskGraph()
    for number in range(500):
        (tmp_path / f"in{number}").write_text("")
        graph.input_files.append(str(tmp_path / f"in{number}"))
    for number in range(200):
        graph.create_task(f"t{number}", work, args=[], input_files=[str(tmp_path / "in0")])
    run(graph, cache, "r1", *[f"t{number}" for number in range(200)])
    looked = counted(monkeypatch)
    assert not decide(graph, cache).must_run
    assert len(looked) == len(set(looked)) == 500


def test_a_touched_input_runs_its_readers_and_their_dependants_only(cache: FileTaskCache, tmp_path: Path) -> None:
    """F2, F3."""
    graph = TaskGraph()
    for name in "xy":
        (tmp_path / name).write_text("")
        graph.create_task(f"read {name}", work, args=[], input_files=[str(tmp_path / name)])
    graph.create_task("join", work, args=[Task("read x"), Task("read y")])
    run(graph, cache, "r1", "read x", "read y", "join")
    assert not decide(graph, cache).must_run
    flag_time = cache.read_flags([Task("read x")])[Task("read x")]
    assert not isinstance(flag_time, BadSeal)
    late = (flag_time.mtime_ns or 0) + 2 * 10**9
    os.utime(tmp_path / "x", ns=(late, late))
    decisions = decide(graph, cache)
    assert ids_of(decisions) == {"read x", "join"}
    assert decisions.reason(Task("read x")) == f"input {tmp_path / 'x'} is newer than its record by 2 s"
