"""What executors and tasks are told by keyword: a value of a wrong type is one sentence that names it (B1, O1)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from overnight.cache import FileTaskCache
from overnight.cli_options import refuse_conflicts
from overnight.errors import UnusableDirectory, UsageError
from overnight.graph import TaskGraph, make_task
from overnight.parameters import read_parameters
from overnight.queue_executor import QueueExecutor
from overnight.sequential_executor import SequentialExecutor

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a text for a number of workers": ({"max_workers": "2"}, "max_workers must be an integer, not '2'."),
    "half a worker": ({"max_workers": 1.5}, "max_workers must be an integer, not 1.5."),
    "NaN workers": ({"max_workers": float("nan")}, "max_workers must be an integer, not nan."),
    "no worker": ({"max_workers": 0}, "max_workers must be 1 or more, not 0."),
    "a word for a verbosity": ({"verbose": "much"}, "verbose must be an integer, such as 0 or 2, not 'much'."),
    "NaN for a verbosity": ({"verbose": float("nan")}, "verbose must be an integer, such as 0 or 2, not nan."),
    "a number for limits": ({"resource_limits": 5}, "resource_limits must map names to amounts, such as {'db': 2}"),
    "pairs for limits": ({"resource_limits": [("db", 2)]}, "resource_limits must map names to amounts"),
    "a text for an amount": (
        {"resource_limits": {"db": "2"}},
        "resource_limits['db'] must be a number of more than 0, not '2'.",
    ),
    "a number for a name": ({"resource_limits": {5: 1}}, "resource_limits must have names as keys, not 5."),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_executor_refuses_a_wrong_value_with_a_sentence_that_names_it(case: str) -> None:
    given, sentence = WRONG[case]
    with pytest.raises(UsageError, match=re.escape(sentence)):
        SequentialExecutor(**given)


def test_whatever_counts_as_an_integer_counts_as_a_number_of_workers() -> None:
    class Three:
        def __index__(self) -> int:
            return 3

    assert read_parameters({"max_workers": Three()}).max_workers == 3
    assert read_parameters({"max_workers": None, "verbose": "2"}).verbose == 2


@pytest.mark.parametrize("workers", ["2", 1.5, float("nan")])
def test_a_queue_executor_refuses_workers_that_are_no_integer(workers: Any) -> None:
    with pytest.raises(UsageError, match="workers must be an integer, not"):
        QueueExecutor(workers=workers)


@pytest.mark.parametrize("jobs", ["2", 1.5, float("nan")])
def test_the_options_of_a_tool_refuse_jobs_that_are_no_integer(jobs: Any) -> None:
    with pytest.raises(UsageError, match="--jobs must be an integer, not"):
        refuse_conflicts({"jobs": jobs})


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"retry_delay": "x"}, "retry_delay must be a number, not 'x'."),
        ({"timeout": "x"}, "timeout must be a number, not 'x'."),
        ({"resources": 5}, "resources must map names to amounts, such as {'db': 1}, not 5."),
        ({"resources": ["db"]}, "resources must map names to amounts, such as {'db': 1}, not ['db']."),
        ({"resources": {"db": "x"}}, "resources['db'] must be a number, not 'x'."),
        ({"args": 5}, "args must be a list or tuple, not 5; write [5]."),
        ({"input_files": 5}, "input_files must be a list or tuple, not 5; write [5]."),
        ({"input_files": [5]}, "input_files must hold paths or URLs, not 5."),
        ({"output_files": [b"x"]}, "output_files must hold paths or URLs, not b'x'."),
        ({"kwargs": 5}, "kwargs must be a dict of names and values, not 5."),
        ({"kwargs": {1: 2}}, "kwargs must have names as keys, not 1."),
        ({"deps": 5}, "deps must be a list or tuple of Tasks, not 5."),
    ],
)
def test_a_task_refuses_an_option_of_a_wrong_type_with_a_sentence_that_names_it(
    given: dict[str, Any], sentence: str
) -> None:
    for create in (TaskGraph().create_task, make_task):
        with pytest.raises(TypeError, match=re.escape(sentence)):
            create("a", int, **{"args": [], **given})


def test_an_executor_refuses_what_is_no_graph() -> None:
    for executor in (SequentialExecutor(), QueueExecutor(redis_url="redis://localhost:1")):
        for use in (executor.execute, executor.get_completed_tasks):
            with pytest.raises(TypeError, match=re.escape("A TaskGraph was expected, not [1].")):
                list(use([1]))  # type: ignore[arg-type]  # the fault itself


def test_a_path_object_is_a_path_like_its_text() -> None:
    graph = TaskGraph()
    files: dict[str, Any] = {"input_files": [Path("in.txt")], "output_files": (Path("out"), "b")}
    added = graph.get_task_desc(graph.create_task("a", int, args=[], **files))
    for desc in (make_task("a", int, args=[], **files), added):
        assert (desc.input_files, desc.output_files) == (["in.txt"], ["out", "b"])


def test_a_directory_in_place_of_a_cache_is_refused() -> None:
    """The likeliest slip: the name of a directory where the cache belongs."""
    for given in ("st", Path("st")):
        sentence = f"task_cache must be a cache, such as FileTaskCache('st'), not {given!r}."
        with pytest.raises(TypeError, match=re.escape(sentence)):
            SequentialExecutor(task_cache=given)  # type: ignore[arg-type]  # the fault itself
    with pytest.raises(TypeError, match=re.escape("The directory of a cache must be a path or URL, not 5.")):
        FileTaskCache(5)  # type: ignore[arg-type]  # the fault itself


def test_a_file_in_place_of_a_status_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    graph = TaskGraph()
    graph.create_task("a", int, args=[])
    sentence = f"The status directory {tmp_path / 'file'} cannot be used: Not a directory."
    with pytest.raises(UnusableDirectory, match=re.escape(sentence)):
        list(SequentialExecutor(task_cache=FileTaskCache(str(tmp_path / "file"))).execute(graph))
