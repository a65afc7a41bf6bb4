"""Decisions that another run has overtaken: what it recorded does not run twice (ADVERSITY P3)."""

from __future__ import annotations

from pathlib import Path

import pytest

from overnight.cache import NO_TASK_CACHE, FileTaskCache
from overnight.graph import TaskGraph
from overnight.inspection import decide
from overnight.sequential_executor import SequentialExecutor
from tests.support import tasks


def two_tasks() -> TaskGraph:
    graph = TaskGraph()
    a = graph.create_task("a", tasks.give, args=["x"])
    graph.create_task("b", tasks.join, args=[a, "b"])
    return graph


@pytest.fixture
def cache(tmp_path: Path) -> FileTaskCache:
    return FileTaskCache(str(tmp_path / "status"))


@pytest.mark.parametrize("has_directory", [True, False])
def test_decisions_are_outdated_once_another_run_has_recorded_what_was_to_run(
    cache: FileTaskCache, tmp_path: Path, has_directory: bool
) -> None:
    if has_directory:
        Path(cache.directory).mkdir()
    decisions = decide(two_tasks(), cache)
    assert not decisions.outdated()
    with SequentialExecutor(cache, task_log_dir=str(tmp_path / "logs")) as executor:
        list(executor.execute(two_tasks()))
    assert decisions.outdated()
    again = decide(two_tasks(), cache)
    assert not again.outdated()
    assert len(again.completed) == 2


def test_a_failure_that_was_known_leaves_decisions_as_they_are(cache: FileTaskCache, tmp_path: Path) -> None:
    def failing() -> TaskGraph:
        graph = TaskGraph()
        graph.create_task("bad", tasks.fail, args=[])
        return graph

    with SequentialExecutor(cache, task_log_dir=str(tmp_path / "logs")) as executor:
        list(executor.execute(failing()))
    decisions = decide(failing(), cache)
    (Path(cache.directory) / "another file").touch()
    assert not decisions.outdated()


def test_decisions_that_asked_no_record_are_never_outdated(cache: FileTaskCache, tmp_path: Path) -> None:
    """B14: a forced run adopts nothing."""
    decisions = decide(two_tasks(), NO_TASK_CACHE)
    with SequentialExecutor(cache, task_log_dir=str(tmp_path / "logs")) as executor:
        list(executor.execute(two_tasks()))
    assert not decisions.outdated()
