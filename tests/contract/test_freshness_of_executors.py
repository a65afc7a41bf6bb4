"""What a later run executes, on every executor: a pipeline whose steps delete what they consumed (F1 to F4)."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest

from overnight.cache import FileTaskCache
from overnight.cli_tools import task_graph_all_done, task_graph_status
from tests.support.executors import EXECUTORS, ExecutorKind
from tests.support.pipeline import STEPS, Pipeline

ALL = sorted({*STEPS, "report"})


@pytest.fixture(params=EXECUTORS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> ExecutorKind:
    kind: ExecutorKind = request.param
    return kind


class Project:
    """A pipeline, its status directory and an executor of one kind for each run."""

    def __init__(self, kind: ExecutorKind, directory: Path) -> None:
        self.kind = kind
        self.directory = directory
        (directory / "files").mkdir()
        self.files = Pipeline(directory / "files")

    def cache(self) -> FileTaskCache:
        return FileTaskCache(str(self.files.directory / "status"))

    def run(self) -> list[str]:
        """Run the graph; return the ids of the tasks that ran. What was announced must be what ran (F4)."""
        announced = self.announced()
        with self.kind.make(self.directory, task_cache=self.cache()) as executor:
            pairs = list(executor.execute(self.files.graph()))
        assert [result for _, result in pairs if result is not None] == []
        ran = self.files.ran()
        assert ran == sorted(task.task_id for task, _ in pairs) == announced
        return ran

    def announced(self) -> list[str]:
        """Return the tasks that completed tasks, status and all_done say must run; they must agree (F4)."""
        graph, cache = self.files.graph(), self.cache()
        with self.kind.make(self.directory, task_cache=cache) as executor:
            completed = {task.task_id for task, _ in executor.get_completed_tasks(graph)}
        with contextlib.redirect_stdout(io.StringIO()) as told:
            task_graph_status(graph, cache, None)
        computed = {line[:50].strip() for line in told.getvalue().splitlines() if line.endswith(" COMPUTED")}
        assert computed == completed
        assert task_graph_all_done(graph, cache) is (len(completed) == len(graph))
        return sorted({task.task_id for task in graph.tasks} - completed)


def test_a_later_run_executes_what_a_change_asks_for_and_nothing_else(kind: ExecutorKind, tmp_path: Path) -> None:
    """F2, F3, F4, R20: consumed intermediates are rebuilt only for a task that runs."""
    project = Project(kind, tmp_path)
    files = project.files
    assert project.run() == ALL
    files.age(1000)
    assert project.run() == []

    files.index.unlink()
    assert project.run() == ["index"]

    files.notes.write_text("changed")
    assert project.run() == ["report"]

    files.packed.unlink()
    assert project.run() == sorted(STEPS)

    files.age(1000)
    files.sources[1].write_text("changed")
    assert project.run() == sorted(STEPS)
    assert project.run() == []
    assert not files.joined.exists()
