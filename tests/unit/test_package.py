"""The package as a whole: its names, what importing it loads, its errors (BEHAVIOUR P)."""

from __future__ import annotations

import ast
import inspect
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import overnight
from overnight import errors
from overnight.cache import CacheRecord, CacheRecordType, NoTaskCache, TaskCache
from overnight.cli_tools import TaskGraphCli, task_graph_all_done, task_graph_run
from overnight.errors import MissingExtra, OvernightError, RemoteTaskError, TaskDied, TaskError
from overnight.graph import Task, TaskDesc, TaskGraph
from overnight.sequential_executor import SequentialExecutor

ROOT = Path(__file__).parents[2]
LIGHT = ("cli_tools", "graph", "cache", "executor", "base_executor", "sequential_executor", "Task", "TaskGraphCli")
HEAVY = ("dask", "distributed", "redis", "rq", "networkx", "fsspec")


def printed_by(code: str) -> str:
    """Return what a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def test_exports_its_main_names_and_says_what_it_lacks() -> None:
    """P1."""
    lacking: Any = overnight
    with pytest.raises(AttributeError, match="no_such_name"):
        lacking.no_such_name
    assert {"Task", "TaskGraph", "TaskGraphCli", "cli_tools"} <= set(dir(overnight))
    assert isinstance(overnight.Task("a"), Task)
    assert overnight.TaskGraph is TaskGraph
    assert overnight.TaskGraphCli is TaskGraphCli
    assert printed_by("from overnight import cli_tools; print(cli_tools.__name__)") == "overnight.cli_tools"


def test_importing_loads_no_heavy_library() -> None:
    """P3."""
    names = ", ".join(LIGHT)
    code = f"import sys, overnight; from overnight import {names}; print([m for m in {HEAVY} if m in sys.modules])"
    assert printed_by(code) == "[]"


WITHOUT = """
import sys
for name in {lacking!r}:
    sys.modules[name] = None
from overnight import TaskGraph, TaskGraphCli
graph = TaskGraph()
for name in "ab":
    graph.create_task(name, print, args=[name])
try:
    {asked}
except ImportError as error:
    print(type(error).__name__, str(error).count("\\n"), error)
print(TaskGraphCli.process_graph(graph, jobs=1, task_progress_mode=False))
"""


@pytest.mark.parametrize(
    ("lacking", "asked", "named"),
    [
        (["networkx"], "graph.as_directed_graph()", "pip install networkx"),
        (["redis", "rq"], "TaskGraphCli.create_executor(None, jobs=2)", "pip install 'overnight[all]'"),
        (["dask", "distributed"], "TaskGraphCli.create_executor(executor='dask')", "pip install 'overnight[dask]'"),
    ],
)
def test_what_is_not_installed_is_named_in_one_sentence_and_the_rest_works(
    lacking: list[str], asked: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P3."""
    monkeypatch.chdir(tmp_path)
    sentence, *rest = printed_by(WITHOUT.format(lacking=lacking, asked=asked)).splitlines()
    assert sentence.startswith(f"{MissingExtra.__name__} 0 ")
    assert named in sentence
    assert rest == ["a", "b", "True"]


class EmptyMapping(dict[Any, Any], TaskCache):
    """A cache that is falsy and yet records."""

    def __init__(self) -> None:
        super().__init__()
        self.recorded: list[str] = []

    def get_record(self, task_desc: TaskDesc) -> CacheRecord:
        kind = CacheRecordType.COMPUTED if task_desc.task.task_id in self.recorded else CacheRecordType.NEEDS_COMPUTE
        return CacheRecord(kind)

    def cache(self, task: Task, *, is_error: bool, result: Any) -> None:
        self.recorded.append(task.task_id)


def test_a_falsy_cache_is_used_like_any_other(tmp_path: Path) -> None:
    """P4."""
    cache = EmptyMapping()
    assert not cache
    assert not NoTaskCache()
    graph = TaskGraph()
    graph.create_task("a", len, args=[[]])
    options: dict[str, Any] = {"task_log_dir": str(tmp_path)}
    for executor in (SequentialExecutor(cache, **options), TaskGraphCli.create_executor(cache, jobs=1, **options)):
        assert task_graph_run(graph, executor) is True
    assert cache.recorded == ["a"]
    graph.create_task("a", len, args=[[]])
    assert task_graph_all_done(graph, cache) is True


def test_no_behaviour_hangs_on_an_assertion() -> None:
    """P5: `python -O` drops them."""
    asserting = [
        path.name
        for folder in ("scheduler", "worker")
        for path in (ROOT / folder).rglob("*.py")
        if any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    ]
    assert asserting == []


def test_every_error_has_one_root_and_is_the_promised_built_in_too() -> None:
    """P6."""
    declared = {
        name: kind
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and kind.__module__ == errors.__name__
    }
    assert [name for name, kind in declared.items() if not issubclass(kind, OvernightError)] == []
    named = "TaskDied TaskTimedOut TaskNotPicklable ResultNotPicklable UnresolvedTask RemoteTaskError"
    assert [name for name in named.split() if not issubclass(declared[name], TaskError)] == []
    promised = {
        ValueError: "UsageError GraphError",
        KeyError: "UnknownRun",
        AssertionError: "RunInProgress RecordMismatch",
    }
    for built_in, names in promised.items():
        assert [name for name in names.split() if not issubclass(declared[name], built_in)] == []


def test_errors_of_tasks_keep_their_fields_through_a_pickle() -> None:
    """P6."""
    died = pickle.loads(pickle.dumps(TaskDied("text", signal="SIGKILL", exit_code=-9, worker="w")))
    assert (str(died), died.signal, died.exit_code, died.worker) == ("text", "SIGKILL", -9, "w")
    remote = pickle.loads(pickle.dumps(RemoteTaskError("Odd", "text", "trace")))
    assert (remote.type_name, remote.message, remote.traceback_text, str(remote)) == (
        "Odd",
        "text",
        "trace",
        "Odd: text",
    )
