"""Projects with modules that are named like those of the standard library."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import Desk, desk, finished

FLOW = """
from overnight import TaskGraph


def add(number):
    return number + 1


def means(numbers):
    import statistics
    return statistics.mean(numbers)


def median(numbers):
    from statistics import median
    return median(numbers)


def build():
    graph = TaskGraph()
    one = graph.create_task("one", add, args=[1])
    graph.create_task("two", add, args=[one])
    return graph


def build_failing():
    graph = TaskGraph()
    graph.create_task("mean", means, args=[[1, 2]])
    graph.create_task("median", median, args=[[1, 2]])
    return graph
"""
#: A flow imports it through overnight's graph also where tasks run, where nothing comes before the project.
OF_THE_FLOW = "graphlib"
NAMES = ("random", "logging", "statistics")


@pytest.fixture
def project(short_directory: Path, request: pytest.FixtureRequest) -> Iterator[Desk]:
    with desk(short_directory / "shadowed" / request.node.name[:20]) as given:
        (given.directory / "flow.py").write_text(FLOW)
        yield given


def shadow(project: Desk, *names: str, text: str = "raise ImportError(__file__)\n") -> None:
    for name in names:
        (project.directory / f"{name}.py").write_text(text)


def number_of_workers(project: Desk) -> int:
    told = project.run("workers", "--json")
    return 0 if told.status else len(told.facts)  # refused before the worker has made its directory


@pytest.mark.parametrize("name", [*NAMES, "every one"])
def test_a_run_ends_beside_a_module_that_is_named_like_the_librarys(project: Desk, name: str) -> None:
    """QX14: no process of overnight's own takes a project's module for the library's."""
    every = [each for each in sys.stdlib_module_names if not each.startswith("__") and each != OF_THE_FLOW]
    shadow(project, *(every if name == "every one" else [name]))
    told = project.run("run", "flow.py:build", "-j", "1", "--on-finish", "touch told")
    assert (told.status, "Error" in told.err) == (0, False), told.out + told.err
    assert project.run("worker", "--", "--help").status == 0


def test_workers_start_by_hand_beside_a_module_that_is_named_like_the_librarys(project: Desk) -> None:
    shadow(project, *NAMES)
    worker = project.start("worker", "-j", "2")
    try:
        while worker.poll() is None and number_of_workers(project) < 2:
            pass
    finally:
        worker.terminate()
    ended = finished(worker)
    assert (ended.status, "Traceback" in ended.err) == (0, False), ended.err


def test_a_task_that_finds_a_projects_module_in_place_of_the_librarys_names_its_file(project: Desk) -> None:
    """QX14: the rules of Python hold for what tasks import; what fails for that says which file is meant."""
    shadow(project, "statistics", text="")
    told = project.run("run", "flow.py:build_failing", "-j", "1", "--keep-going")
    assert told.status == 1
    place = (project.directory / "statistics.py").resolve()
    sentence = f"{place} takes the place of the standard library's module statistics: rename that file"
    assert told.out.count(sentence) == 2, told.out
    assert "has no attribute 'mean'" in told.out
    assert "cannot import name 'median'" in told.out


def test_a_target_that_finds_the_librarys_module_in_place_of_the_projects_names_its_file(project: Desk) -> None:
    shadow(project, "random", text="def walk(): pass\n")
    (project.directory / "flow.py").write_text("from random import walk\n" + FLOW)
    told = project.run("run", "flow.py:build")
    assert told.status == 2
    place = (project.directory / "random.py").resolve()
    assert f"{place} is not found, as the standard library has a module random: rename that file" in told.sentence
