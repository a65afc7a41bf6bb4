"""Running a graph from a tool's command line, and showing its status (BEHAVIOUR L7 to L13, R15, R17, R18)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from overnight import cli_tools
from overnight.cache import NO_TASK_CACHE, CacheRecord, CacheRecordType, FileTaskCache, TaskCache
from overnight.cli_tools import (
    TaskGraphCli,
    task_graph_all_done,
    task_graph_run,
    task_graph_run_with_results,
    task_graph_status,
)
from overnight.errors import TaskError, UnknownTask
from overnight.executor import TaskGraphExecutor
from overnight.graph import Task, TaskDesc, TaskGraph
from overnight.sequential_executor import SequentialExecutor
from tests.support import tasks


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def build(with_failure: bool = False) -> TaskGraph:
    graph = TaskGraph()
    a = graph.create_task("a", tasks.give, args=["x"])
    if with_failure:
        a = graph.create_task("bad", tasks.fail, args=["the reason", a])
    graph.create_task("b", tasks.give, args=["y"], deps=[a])
    return graph


class TestTaskGraphRun:
    def test_says_whether_no_task_failed(self) -> None:
        """L9."""
        assert task_graph_run(build()) is True
        assert task_graph_run(TaskGraph()) is True
        assert task_graph_run(build(with_failure=True), keep_going=True) is False

    def test_raises_the_first_failure_after_the_run_was_torn_down(self) -> None:
        """L9, L10."""
        executor = SequentialExecutor()
        graph = build(with_failure=True)
        graph.create_task("c", tasks.give, args=[1], priority=-1)
        with pytest.raises(ValueError, match="the reason"):
            task_graph_run(graph, executor)
        assert executor.summary is not None
        assert executor.summary.not_run == ("c",)
        assert task_graph_run(graph, executor) is True

    def test_a_task_that_exits_does_not_end_the_tool_with_its_status(self) -> None:
        """L9, R11."""
        graph = TaskGraph()
        graph.create_task("leaver", sys.exit, args=[0])
        with pytest.raises(TaskError, match=r"Task 'leaver' called sys\.exit\(0\)") as raised:
            task_graph_run(graph)
        assert isinstance(raised.value.__cause__, SystemExit)

    def test_a_task_that_returns_false_is_a_success(self) -> None:
        """R15."""
        graph = TaskGraph()
        graph.create_task("a", tasks.give, args=[False])
        assert task_graph_run(graph) is True


class TestTaskGraphRunWithResults:
    def test_yields_bare_results_lazily(self) -> None:
        """L10."""
        graph = build()
        results = task_graph_run_with_results(graph)
        assert len(graph) == 2
        assert list(results) == ["x", "y"]

    def test_prints_a_failure_and_goes_on_when_asked_to(self, capsys: pytest.CaptureFixture[str]) -> None:
        """L10."""
        results = list(task_graph_run_with_results(build(with_failure=True), keep_going=True))
        assert results[0] == "x"
        assert isinstance(results[1], ValueError)
        printed = capsys.readouterr()
        assert printed.err.splitlines()[0] == "Task bad failed with:"
        assert "ValueError: the reason" in printed.out

    def test_raises_a_failure_without_printing_it_and_leaves_the_executor_open(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """L10."""
        closed: list[str] = []

        class Watched(SequentialExecutor):
            def close(self) -> None:
                closed.append("executor")

        executor = Watched()
        with pytest.raises(ValueError, match="the reason"):
            list(task_graph_run_with_results(build(with_failure=True), executor))
        assert capsys.readouterr() == ("", "")
        assert closed == []
        assert executor.summary is not None
        assert executor.summary.failed == ("bad",)

    def test_prints_what_a_narrow_encoding_lacks_as_escapes(self) -> None:
        """L10, L12: also halves of letters, as in a file name that is not text."""
        code = (
            "from overnight import TaskGraph, cli_tools as c\n"
            "def fail(): raise ValueError('no \\u2603 \\udcff')\n"
            "graph = TaskGraph()\n"
            "graph.create_task('snow \\u2603', fail, args=[])\n"
            "c.task_graph_status(graph, c.NO_TASK_CACHE, 0)\n"
            "print(c.task_graph_run(graph, keep_going=True))\n"
        )
        for encoding, snow in (("ascii", "\\u2603"), ("utf-8", "\N{SNOWMAN}")):
            environment = {**os.environ, "PYTHONIOENCODING": encoding}
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, env=environment, timeout=60, check=True
            )
            out, err = done.stdout.decode(encoding), done.stderr.decode(encoding)
            assert f"ValueError: no {snow} \\udcff\n" in out
            assert f"\nsnow {snow} " in out
            assert out.endswith("\nFalse\n")
            assert err.startswith(f"Task snow {snow} failed with:\n")

    def test_closes_the_run_and_not_the_executor_when_it_is_closed(self) -> None:
        """L10."""
        executor = SequentialExecutor()
        results = task_graph_run_with_results(build(), executor)
        next(results)
        results.close()
        assert executor.summary is not None
        assert executor.summary.not_run == ("b",)
        assert list(task_graph_run_with_results(build(), executor)) == ["x", "y"]

    def test_gives_cached_results_when_asked_to(self) -> None:
        """L10, X4."""
        cache = FileTaskCache("flags")
        assert list(task_graph_run_with_results(build(), SequentialExecutor(cache))) == ["x", "y"]
        assert list(task_graph_run_with_results(build(), SequentialExecutor(cache))) == []
        again = task_graph_run_with_results(build(), SequentialExecutor(cache), include_cached=True)
        assert list(again) == ["x", "y"]

    def test_takes_a_foreign_executor_that_gives_a_plain_iterator(self) -> None:
        """X3, L10: and never passes it a keyword that it does not know."""

        class Foreign(TaskGraphExecutor):
            def execute(self, graph: TaskGraph) -> Iterator[tuple[Task, Any]]:
                return iter([(Task("a"), 1), (Task("b"), 2)])

        executor = Foreign()  # type: ignore[abstract] # it needs no more
        assert list(task_graph_run_with_results(TaskGraph(), executor)) == [1, 2]


class TestProcessGraph:
    def test_runs_records_and_runs_nothing_the_second_time(self, tmp_path: Path) -> None:
        """L7, L8."""
        for _ in range(2):
            assert TaskGraphCli.process_graph(build(), jobs=1, task_status_dir="flags") is True
        assert len(list((tmp_path / "flags").iterdir())) == 2

    def test_only_a_completely_successful_run_is_true(self) -> None:
        """L8, R18."""
        graph = build(with_failure=True)
        assert TaskGraphCli.process_graph(graph, jobs=1, keep_going=True, command=None) is False

    @pytest.mark.parametrize("options", [{}, {"jobs": 1, "use_process_pool": True}, {"executor": "sequential"}])
    def test_records_in_the_current_directory_unless_another_is_given(
        self, options: dict[str, Any], tmp_path: Path
    ) -> None:
        """L7, C4: the graph has one task, so no server starts for the first."""
        graph = TaskGraph()
        graph.create_task("only", tasks.give, args=["x"])
        assert TaskGraphCli.process_graph(graph, **options) is True
        assert [path.name for path in tmp_path.glob("*.flag")] == ["only.flag"]
        assert not (tmp_path / ".overnight").exists()

    def test_without_progress_mode_records_nothing(self, tmp_path: Path) -> None:
        """L7, C4."""
        assert TaskGraphCli.process_graph(build(), jobs=1, task_progress_mode=False, task_status_dir="flags") is True
        assert [path.name for path in tmp_path.iterdir()] == [".task-log"]

    def test_a_failed_run_that_does_not_keep_going_raises_the_tasks_own_error(self) -> None:
        """L8, L9."""
        with pytest.raises(ValueError, match="the reason"):
            TaskGraphCli.process_graph(build(with_failure=True), jobs=1, task_status_dir="flags")

    @pytest.mark.parametrize(
        ("options", "asked"),
        [
            ({}, 1),
            ({"jobs": None}, 1),
            ({"jobs": 4}, 4),
            ({"jobs": None, "executor": "queue"}, None),
            ({"jobs": None, "use_process_pool": True}, None),
            ({"jobs": None, "dask_cluster_name": "n"}, None),
            ({"jobs": None, "redis_url": "redis://x"}, None),
        ],
    )
    def test_of_one_task_is_one_job_unless_an_option_asks_for_more(
        self, options: dict[str, Any], asked: int | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """L7, R17: also where pruning leaves one task."""
        seen: list[Any] = []

        def make(_cache: TaskCache, **kwargs: Any) -> TaskGraphExecutor:
            seen.append(kwargs.get("jobs"))
            return SequentialExecutor()

        monkeypatch.setattr(TaskGraphCli, "create_executor", staticmethod(make))
        TaskGraphCli.process_graph(build(), task_ids=["a"], **options)
        TaskGraphCli.process_graph(TaskGraph(), **options)
        assert seen == [asked, asked]

    def test_takes_a_foreign_executor_at_its_word(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """L8, X3: what it calls its summary is its own affair."""

        class Foreign(SequentialExecutor):
            summary = "all is well"  # type: ignore[assignment] # another's attribute of that name

            def execute(self, graph: TaskGraph, *, include_cached: bool = False) -> Any:
                return iter([(Task("a"), 1)])

        monkeypatch.setattr(TaskGraphCli, "create_executor", staticmethod(lambda *_, **__: Foreign()))
        assert TaskGraphCli.process_graph(build(), jobs=1) is True

    def test_of_nothing_but_cached_or_no_tasks_is_a_success(self) -> None:
        """L8, L9."""
        for graph in (build(), build(), TaskGraph()):
            assert TaskGraphCli.process_graph(graph, jobs=1, task_status_dir="flags", keep_going=True) is True

    def test_prunes_to_the_given_tasks_and_what_they_depend_on(self, tmp_path: Path) -> None:
        """L7, G24."""
        graph = build()
        graph.create_task("c", tasks.give, args=[1])
        TaskGraphCli.process_graph(graph, jobs=1, task_ids=["b"], task_status_dir="flags")
        assert sorted(path.name for path in (tmp_path / "flags").iterdir()) == ["a.flag", "b.flag"]
        with pytest.raises(UnknownTask, match="unheard"):
            TaskGraphCli.process_graph(build(), jobs=1, task_ids=["unheard"])

    def test_a_forced_run_runs_all_and_writes_flags_for_the_next(self, tmp_path: Path) -> None:
        """L7, B14."""
        ledger = tmp_path / "ledger"
        for force in (False, True, False):
            graph = TaskGraph()
            graph.create_task("a", tasks.note, args=[str(ledger), "a"])
            TaskGraphCli.process_graph(graph, jobs=1, force=force, task_status_dir="flags")
        assert tasks.noted(ledger) == ["a", "a"]

    def test_of_one_task_needs_no_server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """L7, R17, L13."""
        asked = []
        create = TaskGraphCli.create_executor

        def watched(task_cache: TaskCache | None = None, **kwargs: Any) -> TaskGraphExecutor:
            asked.append(kwargs["jobs"])
            return create(task_cache, **kwargs)

        monkeypatch.setattr(TaskGraphCli, "create_executor", staticmethod(watched))
        graph = TaskGraph()
        graph.create_task("a", tasks.give, args=[1])
        assert TaskGraphCli.process_graph(graph, jobs=None, executor=None) is True
        assert asked == [1]

    @pytest.mark.parametrize("command", ["list", "status"])
    def test_status_makes_no_executor_and_runs_nothing(
        self, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """L8, R18."""
        monkeypatch.setattr(TaskGraphCli, "create_executor", None)
        graph = build()
        assert TaskGraphCli.process_graph(graph, command=command) is True
        assert len(graph) == 2
        assert "NEEDS_COMPUTE" in capsys.readouterr().out

    def test_refuses_an_unknown_command(self) -> None:
        """L8."""
        with pytest.raises(ValueError, match="Unknown command 'walk'"):
            TaskGraphCli.process_graph(build(), command="walk")

    def test_a_failing_close_does_not_hide_success(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """R12, X2."""

        class Leaky(SequentialExecutor):
            def close(self) -> None:
                raise RuntimeError("cannot close")

        monkeypatch.setattr(TaskGraphCli, "create_executor", staticmethod(lambda *_, **__: Leaky()))
        assert TaskGraphCli.process_graph(build(), jobs=1) is True
        assert sum("could not be closed" in record.getMessage() for record in caplog.records) == 1

    def test_looks_its_collaborators_up_when_called(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """L13."""
        calls: list[Any] = []

        def noted(answer: Any) -> Callable[..., Any]:
            def collaborator(*args: Any, **kwargs: Any) -> Any:
                calls.append((args, kwargs))
                return answer

            return collaborator

        monkeypatch.setattr(TaskCache, "create", staticmethod(noted(NO_TASK_CACHE)))
        monkeypatch.setattr(cli_tools, "task_graph_run", noted(True))
        monkeypatch.setattr(cli_tools, "task_graph_status", noted(True))
        TaskGraphCli.process_graph(build(), jobs=1, task_status_dir="d", keep_going=True)
        TaskGraphCli.process_graph(build(), command="status", verbose=2)
        assert calls[0] == ((), {"task_progress_mode": True, "cache_dir": "d"})
        assert calls[1][1] == {"keep_going": True}
        assert calls[3][0][1:] == (NO_TASK_CACHE, 2)


class TestStatus:
    def lines(
        self, graph: TaskGraph, cache: TaskCache, capsys: pytest.CaptureFixture[str], verbose: Any = None
    ) -> list[str]:
        capsys.readouterr()
        assert task_graph_status(graph, cache, verbose) is True
        return capsys.readouterr().out.splitlines()

    def failed_cache(self) -> FileTaskCache:
        cache = FileTaskCache("flags")
        list(SequentialExecutor(cache).execute(build(with_failure=True)))
        return cache

    def test_shows_the_state_of_each_task_and_why_it_was_skipped(self, capsys: pytest.CaptureFixture[str]) -> None:
        """L12, B8, F4."""
        lines = self.lines(build(with_failure=True), self.failed_cache(), capsys)
        assert lines == [
            f"{'TaskID':<50} Status",
            f"{'a':<50} COMPUTED",
            f"{'bad':<50} ERROR (-v to see exception)",
            f"{'b':<50} SKIPPED (bad)",
        ]

    def test_shows_the_stored_traceback_when_verbose(self, capsys: pytest.CaptureFixture[str]) -> None:
        """L12, C13."""
        lines = self.lines(build(with_failure=True), self.failed_cache(), capsys, verbose=1)
        assert f"{'bad':<50} ERROR" in lines
        assert "ValueError: the reason" in lines

    def test_pads_to_the_longest_id_within_bounds_and_keeps_ids_on_one_line(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """L12, I7."""
        graph = TaskGraph()
        graph.create_task("x" * 70 + "\n", tasks.give, args=[1])
        lines = self.lines(graph, NO_TASK_CACHE, capsys)
        assert lines == [f"{'TaskID':<74} Status", "x" * 70 + "\\x0a NEEDS_COMPUTE"]
        graph.create_task("y" * 150, tasks.give, args=[1])
        assert self.lines(graph, NO_TASK_CACHE, capsys)[0] == f"{'TaskID':<120} Status"

    def test_of_a_graph_that_cannot_be_ordered_is_its_cycle(self) -> None:
        """G12: of listing and of asking whether all is done as well."""
        graph = TaskGraph()
        names = [f"t{number:02}" for number in range(25)]
        for name, before in zip(names, [names[-1], *names], strict=False):
            graph.create_task(name, tasks.give, args=[1], deps=[Task(before)])
        for ask in (
            lambda: task_graph_status(graph, NO_TASK_CACHE, 0),
            lambda: task_graph_all_done(graph, NO_TASK_CACHE),
            lambda: TaskGraphCli.process_graph(graph, command="list", task_progress_mode=False),
            lambda: list(SequentialExecutor().get_completed_tasks(graph)),
            lambda: list(SequentialExecutor().execute(graph)),
        ):
            with pytest.raises(ValueError, match=r"^Cyclic dependency: ") as caught:
                ask()
            assert str(caught.value).count("'t") == 20
            assert "(25 tasks)" in str(caught.value)

    def test_of_an_error_below_an_error_is_the_topmost_one(self, capsys: pytest.CaptureFixture[str]) -> None:
        """L12, B8."""
        cache = FileTaskCache("flags")
        graph = TaskGraph()
        a = graph.create_task("a", tasks.give, args=[1])
        b = graph.create_task("b", tasks.give, args=[1], deps=[a])
        graph.create_task("c", tasks.give, args=[1], deps=[b])
        for task in graph.tasks:
            cache.store(graph.get_task_desc(task), is_error=task != Task("c"), result=ValueError(task.task_id))
        lines = self.lines(graph, cache, capsys)
        assert [line.split(maxsplit=1)[1] for line in lines[1:]] == [
            "ERROR (-v to see exception)",
            "SKIPPED (a)",
            "SKIPPED (a)",
        ]

    def test_asks_a_foreign_cache_for_its_records(self, capsys: pytest.CaptureFixture[str]) -> None:
        """L12, C3: and shows the traceback of its exception."""

        class Foreign(TaskCache):
            def get_record(self, task_desc: TaskDesc) -> CacheRecord:
                if task_desc.task == Task("a"):
                    return CacheRecord(CacheRecordType.COMPUTED, 1)
                return CacheRecord(CacheRecordType.ERROR, ValueError("kept elsewhere"))

            def cache(self, task: Task, *, is_error: bool, result: Any) -> None: ...

        lines = self.lines(build(), Foreign(), capsys, verbose=1)
        assert [line.split(maxsplit=1)[1] for line in lines[1:3]] == ["COMPUTED", "ERROR"]
        assert lines[-1] == "ValueError: kept elsewhere"

    def test_of_an_empty_graph_is_the_header(self, capsys: pytest.CaptureFixture[str]) -> None:
        """L12."""
        assert self.lines(TaskGraph(), NO_TASK_CACHE, capsys) == [f"{'TaskID':<50} Status"]

    def test_all_done_agrees_with_what_would_run(self) -> None:
        """L11, F4."""
        cache = FileTaskCache("flags")
        assert task_graph_all_done(TaskGraph(), cache) is True
        assert task_graph_all_done(build(), cache) is False
        task_graph_run(build(), SequentialExecutor(cache))
        assert task_graph_all_done(build(), cache) is True


def test_the_executor_interface_names_what_a_subclass_lacks() -> None:
    """X1."""

    class Empty(TaskGraphExecutor):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty does not implement execute\(\)"):
        Empty().execute(TaskGraph())  # type: ignore[abstract] # that it can be built is the point
    with pytest.raises(NotImplementedError, match=r"Empty does not implement get_completed_tasks\(\)"):
        Empty().get_completed_tasks(TaskGraph())  # type: ignore[abstract] # likewise
    with pytest.raises(NotImplementedError, match=r"Empty does not implement close\(\)"):
        Empty().close()  # type: ignore[abstract] # likewise


def test_an_executor_that_cannot_be_closed_hides_no_error_of_the_body(caplog: pytest.LogCaptureFixture) -> None:
    """X2, R12."""

    class Leaky(SequentialExecutor):
        def close(self) -> None:
            raise RuntimeError("cannot close")

    with pytest.raises(ZeroDivisionError), Leaky():
        raise ZeroDivisionError
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "cannot close" in caplog.text


def test_leaving_an_executor_answers_as_documented() -> None:
    """X2."""
    executor = SequentialExecutor()
    assert executor.__exit__(None, None, None) is True
    assert executor.__exit__(ValueError, ValueError(), None) is False
