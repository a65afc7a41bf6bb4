"""The demo tool: its tasks, its graphs, its command line (BEHAVIOUR D)."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overnight import demo_graphs_cli as demo
from overnight.cache import FileTaskCache
from overnight.demo_graphs_cli import build_demo_graph, main
from overnight.graph import Task, TaskGraph
from tests.support.dask_clusters import shared_cluster
from tests.support.executors import shared_state_dir

#: Parameters of each graph with which no task sleeps, and how many tasks it then has.
QUICK = {
    "A": (["3", "0", "0"], 4),
    "B": (["3", "0", "0"], 4),
    "C": (["3", "0", "0"], 8),
    "D": (["2", "2", "0", "0"], 6),
}
#: The words that ask for each executor; the Dask cluster is the one that a file describes.
EXECUTORS = {
    "sequential": ["-j", "1"],
    "process-pool": ["-j", "2", "--pp"],
    "dask": ["-j", "2", "-c", "cluster.yaml"],
    "queue": ["-j", "2"],
}
#: Longer than any clock can tell: a task that is to sleep so long fails.
NO_TIME = "1e300"


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words that ask for an executor; what it runs on is there."""
    if request.param == "queue":
        monkeypatch.setenv("OVERNIGHT_STATE_DIR", str(shared_state_dir()))
    if request.param == "dask":
        address = shared_cluster(processes=True).scheduler_address
        (tmp_path / "cluster.yaml").write_text(f"type: manual\nparams:\n  address: {address}\n", encoding="utf-8")
    return EXECUTORS[request.param]


class TestTasks:
    @pytest.mark.parametrize("seconds", ["0", "-1", "-0.5", "0.0"])
    def test_no_time_is_no_sleep(self, seconds: str) -> None:
        """D1."""
        assert demo.timeout(seconds) == 0.0

    def test_sleep_at_random_around_the_asked_time_and_never_under_a_tenth_of_a_second(self) -> None:
        """D1."""
        random.seed(42)
        drawn = [demo.timeout("2") for _ in range(200)]
        expected = random.Random(42)
        assert drawn == [max(0.1, expected.gauss(2.0, 1.4)) for _ in range(200)]
        assert min(drawn) == 0.1

    @pytest.mark.parametrize(
        ("function", "args", "result"),
        [
            (demo.task_part, (), "P" * 2000),
            (demo.task_part_b, (), "B" * 2000),
            (demo.task_part_c, (), "C" * 2000),
            (demo.task_part_c, ("anything", "more"), "C" * 2000),
            (demo.task_summary, (), None),
            (demo.task_summary_b, (), ""),
            (demo.task_summary_b, ("1", "2", "3", "4", "5"), "1b2b3b4b5"),
            (demo.task_summary_b, ("1", "2", "3", "4", "5", "6"), "1c2c3c4c5"),
            (demo.task_summary_c, ("1", "2"), "1b2"),
            (demo.task_summary_c, ("1", "2", "3", "4", "5", "6", "7"), "1c2c3c4c5"),
        ],
    )
    def test_sleep_and_return_what_is_documented(
        self, function: Callable[..., Any], args: tuple[str, ...], result: str | None
    ) -> None:
        """D1: a mean near zero is a sleep of a tenth of a second."""
        started = time.monotonic()
        assert function("1e-9", *args) == result
        assert time.monotonic() - started >= 0.1
        assert function("0", *args) == result


def shape_of(graph: TaskGraph) -> dict[str, tuple[str, list[Any], list[str]]]:
    """Return function name, arguments and dependencies by task id, in the order of the graph."""
    descs = [graph.get_task_desc(task) for task in graph.tasks]
    return {desc.task.task_id: (desc.func.__name__, desc.args, [dep.task_id for dep in desc.deps]) for desc in descs}


class TestGraphs:
    @pytest.mark.parametrize(("graph_type", "part"), [("A", "task_part"), ("B", "task_part_b")])
    def test_a_and_b_are_parts_and_a_summary_after_them(self, graph_type: str, part: str) -> None:
        """D2."""
        assert shape_of(build_demo_graph(graph_type, ["2", "0.5", "1"])) == {
            "part 0": (part, ["0.5"], []),
            "part 1": (part, ["0.5"], []),
            "summary": ("task_summary", ["1"], ["part 0", "part 1"]),
        }

    def test_c_hands_results_from_parts_to_a_summary_to_parts_to_a_summary(self) -> None:
        """D2."""
        assert shape_of(build_demo_graph("C", ["2", "3", "4"])) == {
            "part 0": ("task_part_b", ["3"], []),
            "part 1": ("task_part_b", ["3"], []),
            "summary": ("task_summary_b", ["4", Task("part 0"), Task("part 1")], ["part 0", "part 1"]),
            "part2 0": ("task_part_c", ["3", Task("summary")], ["summary"]),
            "part2 1": ("task_part_c", ["3", Task("summary")], ["summary"]),
            "summary2": ("task_summary_c", ["4", Task("part2 0"), Task("part2 1")], ["part2 0", "part2 1"]),
        }

    def test_d_is_parts_and_a_summary_for_each_click(self) -> None:
        """D2."""
        assert shape_of(build_demo_graph("D", ["2", "1", "3", "4"])) == {
            "part 0:0": ("task_part", ["3"], []),
            "summary 0": ("task_summary", ["4"], ["part 0:0"]),
            "part 1:0": ("task_part", ["3"], []),
            "summary 1": ("task_summary", ["4"], ["part 1:0"]),
        }

    @pytest.mark.parametrize(
        ("graph_type", "size", "seconds"),
        [("A", 11, ("2", "2")), ("B", 3, ("5", "10")), ("C", 6, ("5", "10")), ("D", 55, ("2", "2"))],
    )
    def test_have_default_parameters_and_one_line_about_them(
        self, graph_type: str, size: int, seconds: tuple[str, str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """D2."""
        shape = shape_of(build_demo_graph(graph_type, None))
        assert len(shape) == size
        values = list(shape.values())
        assert (values[0][1][0], values[-1][1][0]) == seconds
        (line,) = capsys.readouterr().out.splitlines()
        assert graph_type in line
        assert str(size) in line

    @pytest.mark.parametrize(
        ("graph_type", "params", "words"),
        [
            ("E", None, r"'E'.*A, B, C, D"),
            ("a", None, "'a'"),
            ("A", [], "takes 3 parameters"),
            ("A", ["1", "2"], r"takes 3 parameters \(parts, .*not 2: 1 2"),
            ("C", ["1", "2", "3", "4"], "not 4: 1 2 3 4"),
            ("D", ["1", "2", "3"], r"takes 4 parameters \(clicks, parts, .*not 3: 1 2 3"),
            ("A", ["x", "2", "3"], "'x'"),
            ("A", ["-1", "2", "3"], "'-1'"),
            ("A", ["1", "soon", "3"], "'soon'"),
            ("A", ["1", "2", "nan"], "'nan'"),
        ],
    )
    def test_that_cannot_be_built_are_refused_by_name(
        self, graph_type: str, params: list[str] | None, words: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """D2."""
        with pytest.raises(ValueError, match=words):
            build_demo_graph(graph_type, params)
        assert capsys.readouterr().out == ""


class TestMain:
    @pytest.mark.parametrize("graph_type", QUICK)
    def test_runs_every_graph_on_every_executor(
        self, graph_type: str, executor: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """D3, D2."""
        params, size = QUICK[graph_type]
        words = [graph_type, "run", "--graph-params", *params, *executor]
        assert run(*words) is None
        assert len(list(Path(".task-progress").glob("*.flag"))) == size
        run(graph_type, "status", "-gp", *params)
        assert capsys.readouterr().out.count(" COMPUTED") == size
        if graph_type == "C":
            record = FileTaskCache(".task-progress").load(build_demo_graph("C", params).get_task_desc(Task("summary2")))
            assert record == "b".join(["C" * 2000] * 3)

    def test_builds_graph_a_by_default_and_seeds_what_is_random(self, capsys: pytest.CaptureFixture[str]) -> None:
        """D3."""
        random.seed(1)
        run("-gp", "1", "0", "0", "-j", "1")
        assert random.getstate() == random.Random(42).getstate()
        assert capsys.readouterr().out.startswith("Graph A: 2 tasks")

    @pytest.mark.parametrize("keep_going", [True, False])
    def test_ends_with_status_1_if_tasks_failed(self, keep_going: bool, capsys: pytest.CaptureFixture[str]) -> None:
        """D3."""
        words = ["A", "-gp", "1", NO_TIME, "0", "-j", "1", *(["--keep-going"] if keep_going else [])]
        with pytest.raises(SystemExit) as ended:
            run(*words)
        assert ended.value.code == 1
        said = capsys.readouterr()
        assert "OverflowError" in (said.out if keep_going else said.err)
        assert ("Task part 0 failed with:" in said.err) is keep_going

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["E"], "'E'"),
            (["A", "-gp", "1"], "takes 3 parameters"),
            (["A", "-j", "0"], "--jobs must be 1 or more"),
            (["A", "-j", "2", "--pp", "-N", "x"], "cannot be given with --process-pool"),
            (["A", "walk"], "'walk'"),
            (["A", "-gp", "1", "0", "0", "-t", "part 9"], "did you mean 'part 0'?"),
            (["A", "--logfile", "missing/directory/log"], "missing/directory/log"),
            (["A", "--no-such-option"], "--no-such-option"),
        ],
    )
    def test_ends_with_status_2_if_it_was_called_wrongly(
        self, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """D3, L5."""
        with pytest.raises(SystemExit) as ended:
            run(*words)
        assert ended.value.code == 2
        assert sentence in capsys.readouterr().err.splitlines()[-1]

    @pytest.mark.parametrize("flag", ["-v", "-V", "--verbose"])
    def test_logs_at_the_counted_verbosity_to_the_given_file(self, flag: str, tmp_path: Path) -> None:
        """D3: and leaves the logging of the process as it was."""
        root = logging.getLogger()
        before = (root.level, list(root.handlers))
        run("-gp", "1", "0", "0", "-j", "1", flag, "--logfile", "own.log")
        assert " overnight.summary INFO run " in Path("own.log").read_text(encoding="utf-8")
        assert "started, attempt 1" in (tmp_path / ".task-log" / "log_summary.log").read_text(encoding="utf-8")
        run("-gp", "1", "0", "0", "-j", "1", "--force", "--logfile", "quiet.log")
        assert Path("quiet.log").read_text(encoding="utf-8") == ""
        assert (root.level, root.handlers) == before

    def test_takes_the_options_of_every_tool(self, capsys: pytest.CaptureFixture[str]) -> None:
        """D3, L2."""
        run("C", "-gp", "2", "0", "0", "-j", "1", "-d", "flags", "--task-log-dir", "logs", "-t", "part 1", "summary")
        assert len(list(Path("flags").iterdir())) == 3
        assert not Path(".task-progress").exists()

    def test_is_a_module_that_can_be_run(self, executor: list[str]) -> None:
        """D3: there the functions of the tasks are those of `__main__`."""
        command = [sys.executable, "-m", "overnight.demo_graphs_cli", "C", "run", "-gp", "2", "0", "0"]
        done = subprocess.run([*command, *executor], capture_output=True, text=True, timeout=90, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "Graph C: 6 tasks (parts 2, seconds of a part 0, seconds of a summary 0)\n"
        assert len(list(Path(".task-progress").glob("*.flag"))) == 6


def run(*words: str) -> object:
    """Call main as the command line does; return what it returns."""
    tool: Callable[[list[str]], object] = main
    return tool(list(words))
