"""How long work is expected to take on so many workers."""

from __future__ import annotations

import pytest

from overnight.forecast import Forecast, forecast

DIAMOND = [(), (0,), (0,), (1, 2)]


def test_a_diamond_takes_its_longest_chain_on_many_workers_and_its_sum_on_one() -> None:
    found = forecast({0: 1.0, 1: 2.0, 2: 5.0, 3: 1.0}, DIAMOND)
    assert found == Forecast(work=9.0, longest=7.0, known=4, unknown=0)
    assert found.on(1) == (9.0, 9.0)
    assert found.on(2) == (7.0, 8.0)
    assert found.on(1000) == pytest.approx((7.0, 7.0), abs=0.01)


def test_a_dependency_that_does_not_run_is_there_already() -> None:
    assert forecast({2: 5.0, 3: 1.0}, DIAMOND).longest == 6.0


def test_a_task_of_unknown_duration_is_counted_and_keeps_the_chain_together() -> None:
    assert forecast({0: 1.0, 1: None, 3: 1.0}, DIAMOND) == Forecast(2.0, 2.0, known=2, unknown=1)


def test_nothing_is_told_where_nothing_is_known_or_nobody_works() -> None:
    assert forecast({0: None}, DIAMOND).on(4) is None
    assert forecast({0: 1.0}, DIAMOND).on(0) is None
