"""How often files are examined in one pass over a large graph: calls of the system and of a store are counted (F5)."""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from overnight.cache import FileTaskCache
from overnight.graph import TaskGraph
from overnight.inspection import decide

INPUTS = 500
TASKS = 10_000


def work() -> None:
    """Stand for a task's function."""


def graph_over(inputs: list[str]) -> TaskGraph:
    graph = TaskGraph()
    graph.input_files.extend(inputs)
    for number in range(TASKS):
        graph.create_task(f"task-{number}", work, args=[], input_files=[inputs[number % len(inputs)]])
    return graph


class CountedEntry:
    """An entry of a listing that counts how often its facts are asked for."""

    def __init__(self, entry: os.DirEntry[str], stats: Counter[str]) -> None:
        self._entry = entry
        self._stats = stats
        self.name = entry.name

    def stat(self) -> os.stat_result:
        self._stats[self._entry.path] += 1
        return self._entry.stat()


@pytest.fixture
def stats(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the looks of this process at each path; the looks themselves are real."""
    counted: Counter[str] = Counter()
    real_stat, real_scandir = os.stat, os.scandir

    def stat(path: Any, **keywords: Any) -> os.stat_result:
        counted[str(path)] += 1
        return real_stat(path, **keywords)

    @contextmanager
    def scandir(path: Any) -> Iterator[Iterator[CountedEntry]]:
        with real_scandir(path) as entries:
            yield (CountedEntry(entry, counted) for entry in entries)

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(os, "scandir", scandir)
    return counted


@pytest.mark.parametrize("directories", [1, INPUTS])
def test_each_local_input_of_ten_thousand_tasks_is_examined_once(
    tmp_path: Path, stats: Counter[str], directories: int
) -> None:
    """F5: in one listing where many lie together, one by one where each lies elsewhere."""
    inputs = [tmp_path / f"d{number % directories}" / f"in{number}" for number in range(INPUTS)]
    for path in inputs:
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    graph = graph_over([str(path) for path in inputs])
    stats.clear()
    decide(graph, FileTaskCache(str(tmp_path / "status")))
    looked = {path: count for path, count in stats.items() if "/in" in path}
    assert looked == {str(path): 1 for path in inputs}
    ours = sum(count for path, count in stats.items() if path.startswith(str(tmp_path)))
    assert ours <= INPUTS + 1, "the status directory is looked at once besides"


class CountingFiles(MemoryFileSystem):  # type: ignore[misc] # fsspec is not typed
    """A store in memory that counts the questions it is asked and, like object stores, tells times in its listings."""

    protocol = "counted"
    asked: Counter[str] = Counter()

    def info(self, path: str, **keywords: Any) -> Any:
        self.asked[f"info {path}"] += 1
        return self._timed(super().info(path, **keywords))

    def ls(self, path: str, detail: bool = True, **keywords: Any) -> Any:
        self.asked[f"ls {path}"] += 1
        return [self._timed(entry) for entry in super().ls(path, detail=detail, **keywords)]

    def modified(self, path: str) -> Any:
        self.asked[f"modified {path}"] += 1
        return super().modified(path)

    def _timed(self, entry: dict[str, Any]) -> dict[str, Any]:
        return entry if entry["type"] == "directory" else {**entry, "LastModified": entry["created"]}


@pytest.mark.parametrize("directories", [1, INPUTS])
def test_each_input_on_a_store_is_examined_once(tmp_path: Path, directories: int) -> None:
    """F5: remotely too, one listing serves all files of a directory."""
    fsspec.register_implementation("counted", CountingFiles, clobber=True)
    store = fsspec.filesystem("counted")
    root = f"counted://{uuid.uuid4().hex}"
    inputs = [f"{root}/d{number % directories}/in{number}" for number in range(INPUTS)]
    for url in inputs:
        store.pipe_file(url, b"")
    graph = graph_over(inputs)
    CountingFiles.asked.clear()
    decisions = decide(graph, FileTaskCache(str(tmp_path / "status")))
    assert len(decisions.must_run) == TASKS
    assert set(CountingFiles.asked.values()) == {1}
    assert len(CountingFiles.asked) == directories
