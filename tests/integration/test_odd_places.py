"""Projects whose directories have names that a shell, a URL or the server's protocol would take apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.support.command import Desk, desk

FLOW = """
from overnight import TaskGraph


def add(number):
    return number + 1


def build():
    graph = TaskGraph()
    one = graph.create_task("one", add, args=[1])
    graph.create_task("two", add, args=[one])
    return graph
"""
NAMES = ["my project", "pr=oj#1%é", "a b=c id=x '\"", "lines\nof it"]


@pytest.fixture(params=NAMES)
def odd_desk(request: pytest.FixtureRequest, short_directory: Path) -> Iterator[Desk]:
    with desk(short_directory / "odd" / request.param) as given:
        (given.directory / "flow.py").write_text(FLOW)
        yield given


def test_a_run_in_an_oddly_named_directory_ends_and_every_verb_reads_it(odd_desk: Desk) -> None:
    """QX14: the embedded server, its scheduler and its workers serve whatever the project's directory is called."""
    ended = odd_desk.run("run", "flow.py:build", "-j", "1")
    assert (ended.status, "succeeded" in ended.out) == (0, True), ended.out + ended.err
    for words in (("status", "last"), ("runs",), ("why", "last", "two"), ("logs", "last", "two"), ("doctor",)):
        told = odd_desk.run(*words)
        assert (told.status, "Traceback" in told.err) == (0, False), told.out + told.err
    told = odd_desk.run("report", "last", "-o", "the report.html")
    assert told.status == 0, told.err
    assert Path(unquote(told.out.strip().partition("file://")[2])) == (odd_desk.directory / "the report.html").resolve()


def test_a_state_directory_with_an_odd_name_is_served(short_directory: Path, tmp_path: Path) -> None:
    place = short_directory / "sp ace"
    with desk(tmp_path / "desk") as given:
        (given.directory / "flow.py").write_text(FLOW)
        ended = given.run("run", "flow.py:build", "-j", "1", "--state-dir", str(place))
        assert ended.status == 0, ended.out + ended.err
        assert given.run("status", "last", "--state-dir", str(place)).status == 0
