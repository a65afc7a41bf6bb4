"""Each failpoint with each of its actions, in a real process of a small run (ADVERSITY 5: P1 to P5, P11).

The cases are played several at a time, because most of their time is waiting; a test waits for its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future

import pytest

from overnight.failpoints import POINTS
from tests.acceptance.failpoints import all_cases, open_theatre

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


def test_the_cases_are_all_points_with_all_their_actions() -> None:
    """And some in the midst of long batches, which not every run comes to."""
    assert len(CASES) == len(all_cases())
    struck = {(case.failpoint.point, case.failpoint.action) for case in CASES.values() if case.must_strike}
    assert struck == {(point, action) for point, actions in POINTS.items() for action in actions}
