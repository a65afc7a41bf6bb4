"""Corners of the file cache: its default place, its temporary files, stores without times (BEHAVIOUR C, I5)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from overnight.cache import CacheRecord, CacheRecordType, FileTaskCache, TaskCache
from overnight.errors import TaskDied
from overnight.files import _warn_of_missing_times
from overnight.graph import TaskGraph
from overnight.inspection import decide
from overnight.making import make_task
from overnight.naming import file_name
from overnight.task import Task, TaskDesc


def test_without_a_directory_the_current_one_holds_the_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C4, C6."""
    monkeypatch.chdir(tmp_path)
    TaskCache.create().cache(Task("a"), is_error=False, result=1)
    TaskCache.create(cache_dir="deep/er").cache(Task("a"), is_error=False, result=1)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.flag")) == [
        "a.flag",
        "deep/er/a.flag",
    ]


@pytest.mark.parametrize("error", [TaskDied("gone"), ValueError("bad")])
def test_why_a_failed_task_runs_again_names_its_error_as_status_does(tmp_path: Path, error: Exception) -> None:
    graph, cache = TaskGraph(), FileTaskCache(str(tmp_path))
    task = graph.create_task("a", int, args=[])
    cache.store(graph.get_task_desc(task), is_error=True, result=error)
    assert decide(graph, cache).must_run[task] == f"failed with {type(error).__name__}"


def test_an_invalidated_record_keeps_payload_and_is_another_object() -> None:
    """C2."""
    record = CacheRecord(CacheRecordType.ERROR, ValueError("kept"), "a reason")
    again = record.invalidate()
    assert again is not record
    assert (again.type, again.result_or_error) == (CacheRecordType.NEEDS_COMPUTE, record.result_or_error)
    assert record.type is CacheRecordType.ERROR
    for ask in ("result", "error"):
        with pytest.raises(AssertionError):
            getattr(again, ask)


WATCHED_WRITES = """
import os, sys
opened = []
def watch(event, args):
    if event == "open" and isinstance(args[0], str) and ".flag" in args[0]:
        opened.append(args[0])
from overnight.cache import FileTaskCache
from overnight.task import Task
cache = FileTaskCache(sys.argv[1])
sys.addaudithook(watch)
for _ in range(2):
    cache.cache(Task(sys.argv[2]), is_error=False, result=1)
print("\\n".join(opened))
"""


@pytest.mark.parametrize("task_id", ["plain", "a/b: c"])
def test_temporary_files_carry_the_file_name_and_a_random_part(tmp_path: Path, task_id: str) -> None:
    """I5, C6: and lie in the directory of the flag, opened relative to it or by a path into it."""
    command = [sys.executable, "-c", WATCHED_WRITES, str(tmp_path), task_id]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    opened = [Path(name) for name in done.stdout.split("\n") if name.strip()]
    temporary = {path.name for path in opened if path.name != f"{file_name(task_id)}.flag"}
    assert len(temporary) == 2, "each write has a name of its own"
    pattern = re.escape(f"{file_name(task_id)}.flag") + r"\.[0-9a-f]{16}\.tmp"
    assert [name for name in temporary if not re.fullmatch(pattern, name)] == []
    assert {path.parent for path in opened} <= {Path(), tmp_path}
    assert [path.name for path in tmp_path.iterdir()] == [f"{file_name(task_id)}.flag"]


class WithoutTimes(MemoryFileSystem):  # type: ignore[misc] # the library has no types
    """A store that does not say when a file was changed."""

    protocol = "withouttimes"
    store: dict[str, Any] = {}
    cachable = False

    def modified(self, path: str) -> Any:
        raise NotImplementedError


def test_a_store_without_times_counts_by_existence_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """C10."""
    fsspec.register_implementation(WithoutTimes.protocol, WithoutTimes, clobber=True)
    _warn_of_missing_times.cache_clear()
    for name in ("in", "out"):
        with fsspec.open(f"withouttimes://{name}", "wb") as file:
            file.write(b"x")
    cache = FileTaskCache(str(tmp_path))
    cache.cache(Task("a"), is_error=False, result=1)

    def desc(**declared: Any) -> TaskDesc:
        return make_task("a", len, args=[], **declared)

    there, other, missing = (f"withouttimes://{name}" for name in ("in", "out", "missing"))
    stands = [{"input_files": [there]}, {"output_files": [other]}, {"input_files": [there], "output_files": [other]}]
    for declared in stands:
        assert cache.get_record(desc(**declared)).type is CacheRecordType.COMPUTED
    for declared in ({"input_files": [missing]}, {"output_files": [missing]}, {"input_files": [there, missing]}):
        assert cache.get_record(desc(**declared)).type is CacheRecordType.NEEDS_COMPUTE
    assert len(caplog.records) == 1
    assert "keeps no modification times" in caplog.text
