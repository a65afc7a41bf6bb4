"""Each failpoint with each of its actions, in a real process of a small run (ADVERSITY 5: P1 to P5, P11).

The cases are played several at a time, because most of their time is waiting; a test waits for its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path

import pytest

from overnight.failpoints import POINTS
from tests.acceptance.failpoints import COMPRESSED, all_cases, open_theatre
from tests.support.command import desk

CASES = {case.name: case for case in all_cases()}


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest) -> Iterator[Mapping[str, Future[bool]]]:
    """The futures of the cases that this session asks for, all under way."""
    asked = {item.name for item in request.session.items}
    chosen = [name for name in CASES if any(f"[{name}]" in item for item in asked)]
    with open_theatre(len(chosen)) as theatre:
        yield {name: theatre.play(CASES[name]) for name in chosen}


@pytest.mark.parametrize("name", CASES)
def test_a_run_ends_well_whatever_fails_at_a_point(played: Mapping[str, Future[bool]], name: str) -> None:
    """The fault strikes; all tasks end, by one accepted result each; what is on record does not start again."""
    assert played[name].result() or not CASES[name].must_strike


def test_failpoints_reach_all_processes_of_a_fleet_and_no_task(short_directory: Path) -> None:
    """The keeper restarts what they kill; a task that saw one of their variables would fail."""
    texts = ["scheduler.before_dispatch:kill9@1", "worker.before_commit:kill9@1", "child.mid_task:kill9@2"]
    with desk(short_directory / "fleet") as site:
        marks = site.directory / "marks"
        marks.mkdir()
        site.environ = {**COMPRESSED, "OVERNIGHT_TESTING": "1", "OVERNIGHT_FAILPOINT": ";".join(texts)}
        site.environ["OVERNIGHT_FAILPOINT_MARKS"] = str(marks)
        words = ["-p", f"ledger={site.directory / 'ledger'}", "-p", "shape=diamond", "-p", "retries=1", "-j", "1"]
        ended = site.run("run", "tests.support.stamped:stamped", *words)
        assert ended.status == 0, ended.err
        assert ended.err.splitlines()[0].endswith(f"failpoints are armed: {'; '.join(texts)}")
        assert {path.name for path in marks.iterdir()} == set(texts)


def test_the_cases_are_all_points_with_all_their_actions() -> None:
    """And some in the midst of long batches, which not every run comes to."""
    assert len(CASES) == len(all_cases())
    struck = {(case.failpoint.point, case.failpoint.action) for case in CASES.values() if case.must_strike}
    assert struck == {(point, action) for point, actions in POINTS.items() for action in actions}
