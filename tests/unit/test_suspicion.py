"""Which host a death speaks against (ADVERSITY P10)."""

from __future__ import annotations

from overnight.core.suspicion import Suspicions


def test_a_death_speaks_against_a_host_when_another_one_shows_that_the_task_can_be_done() -> None:
    suspicions = Suspicions()
    suspicions.died(1, "sick")
    suspicions.died(1, "sick")
    assert suspicions.succeeded(1, "well") == ["sick"]


def test_it_is_held_against_each_host_once() -> None:
    suspicions = Suspicions()
    suspicions.died(1, "sick")
    suspicions.died(1, "ill")
    assert suspicions.succeeded(1, "well") == ["sick", "ill"]
    assert suspicions.succeeded(1, "well") == []
    assert len(suspicions) == 0


def test_a_task_that_dies_now_and_then_wherever_it_runs_speaks_against_no_host() -> None:
    suspicions = Suspicions()
    suspicions.died(1, "sick")
    suspicions.died(1, "well")
    assert suspicions.succeeded(1, "well") == []
    suspicions.died(2, "sick")
    assert suspicions.succeeded(2, "sick") == []


def test_a_task_that_never_died_speaks_against_nobody() -> None:
    suspicions = Suspicions()
    suspicions.died(1, "sick")
    assert suspicions.succeeded(2, "well") == []
    assert len(suspicions) == 1
