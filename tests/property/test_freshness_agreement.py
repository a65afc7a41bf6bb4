"""Whoever asks what must run gets one answer, and running it leaves nothing to run (F2 to F4)."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from overnight.cache import FileTaskCache
from overnight.cli_tools import task_graph_all_done, task_graph_status
from overnight.graph import Task, TaskGraph
from overnight.inspection import decide
from overnight.naming import flag_name
from overnight.sequential_executor import SequentialExecutor


@dataclass(frozen=True)
class Step:
    """A task: whose results it takes, and of what kind the file is that it writes and its dependants read."""

    deps: tuple[int, ...]
    kind: str
    reads_source: bool


@dataclass(frozen=True)
class Damage:
    """What happens between two runs."""

    removed_flags: frozenset[int]
    removed_products: frozenset[int]
    touched_sources: frozenset[int]


KINDS = st.sampled_from(["output_files", "intermediate_output_files", "none"])


@st.composite
def plans(draw: st.DrawFn) -> list[Step]:
    steps: list[Step] = []
    for number in range(draw(st.integers(1, 6))):
        deps = draw(st.sets(st.integers(0, number - 1), max_size=2)) if number else set()
        steps.append(Step(tuple(sorted(deps)), draw(KINDS), draw(st.booleans())))
    return steps


numbers = st.frozensets(st.integers(0, 5), max_size=3)
damages = st.builds(Damage, numbers, numbers, numbers)


def produce(number: int, product: str | None, _upstream: list[str]) -> str:
    if product is not None:
        Path(product).write_text(str(number))
    return f"result {number}"


class Project:
    """A graph over files in a directory."""

    def __init__(self, directory: Path, steps: list[Step]) -> None:
        self.directory = directory
        self.steps = steps
        for number in range(len(steps)):
            self.source(number).write_text("")

    def source(self, number: int) -> Path:
        return self.directory / f"source{number}"

    def product(self, number: int) -> Path:
        return self.directory / f"product{number}"

    def cache(self) -> FileTaskCache:
        return FileTaskCache(str(self.directory / "status"))

    def graph(self) -> TaskGraph:
        graph = TaskGraph()
        for number, step in enumerate(self.steps):
            inputs = [str(self.product(dep)) for dep in step.deps if self.steps[dep].kind != "none"]
            inputs += [str(self.source(number))] if step.reads_source else []
            products = [str(self.product(number))] if step.kind != "none" else []
            upstream = [Task(f"t{dep}") for dep in step.deps]
            graph.create_task(
                f"t{number}",
                produce,
                args=[number, products[0] if products else None, upstream],
                input_files=inputs,
                output_files=products if step.kind == "output_files" else [],
                intermediate_output_files=products if step.kind == "intermediate_output_files" else [],
            )
        return graph

    def run(self) -> set[str]:
        with SequentialExecutor(self.cache(), task_log_dir=str(self.directory / "logs")) as executor:
            return {task.task_id for task, _ in executor.execute(self.graph())}

    def suffer(self, damage: Damage) -> None:
        """Make everything older, then remove and touch."""
        for path in [*self.directory.glob("*"), *(self.directory / "status").glob("*")]:
            if path.is_file():
                earlier = path.stat().st_mtime_ns - 1000 * 10**9
                os.utime(path, ns=(earlier, earlier))
        for number in range(len(self.steps)):
            if number in damage.removed_flags:
                (self.directory / "status" / flag_name(f"t{number}")).unlink()
            if number in damage.removed_products:
                self.product(number).unlink(missing_ok=True)
            if number in damage.touched_sources:
                self.source(number).touch()

    def answers(self) -> list[set[str]]:
        """Return what must run, as decide, get_completed_tasks and status tell it; all_done is compared here."""
        graph, cache = self.graph(), self.cache()
        everything = {task.task_id for task in graph.tasks}
        decided = {task.task_id for task in decide(graph, cache).must_run}
        completed = dict(SequentialExecutor(cache).get_completed_tasks(graph))
        assert all(result == f"result {task.task_id[1:]}" for task, result in completed.items())
        with contextlib.redirect_stdout(io.StringIO()) as told:
            task_graph_status(graph, cache, None)
        computed = {line.split()[0] for line in told.getvalue().splitlines() if line.endswith(" COMPUTED")}
        assert task_graph_all_done(graph, cache) is (not decided)
        return [decided, everything - {task.task_id for task in completed}, everything - computed]


@settings(max_examples=40, deadline=None)
@given(steps=plans(), damage=damages)
def test_all_who_ask_agree_and_a_run_leaves_nothing_to_run(steps: list[Step], damage: Damage) -> None:
    """F2, F3, F4, B11."""
    with tempfile.TemporaryDirectory() as place:
        project = Project(Path(place), steps)
        assert project.run() == {f"t{number}" for number in range(len(steps))}
        assert project.run() == set()
        project.suffer(damage)
        decided, *others = project.answers()
        assert others == [decided, decided]
        assert project.run() == decided
        assert project.run() == set()
