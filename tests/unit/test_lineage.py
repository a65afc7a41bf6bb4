"""Which dependency results a record names, and when they count as changed (F2 b)."""

from __future__ import annotations

import hashlib

import pytest

from overnight.lineage import DependencyRecord, changed_dependency, listed_ids, listed_records

FEW, MANY = 3, 100


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def names(count: int) -> list[str]:
    return [f"part {number}" for number in range(count)]


def full(count: int) -> list[DependencyRecord]:
    return [DependencyRecord("run", 1, digest(number)) for number in range(count)]


def digests_alone(count: int) -> list[DependencyRecord]:
    return [DependencyRecord(None, None, digest(number)) for number in range(count)]


def changed(count: int, used: list[DependencyRecord], present: list[DependencyRecord]) -> str | None:
    ids = names(count)
    return changed_dependency(ids, listed_ids(ids), listed_records(ids, used), dict(zip(ids, present, strict=True)))


@pytest.mark.parametrize("count", [FEW, MANY])
def test_a_record_that_names_digests_alone_fits_the_results_with_these_digests(count: int) -> None:
    """F2 b: compared is what both sides know, however many dependencies there are."""
    assert changed(count, digests_alone(count), full(count)) is None


@pytest.mark.parametrize("count", [FEW, MANY])
@pytest.mark.parametrize("used", [full, digests_alone])
def test_another_result_of_one_dependency_is_noticed(count: int, used: object) -> None:
    """F2 b."""
    present = full(count)
    present[1] = DependencyRecord("run", 1, digest(-1))
    assert callable(used)
    assert changed(count, used(count), present) is not None


@pytest.mark.parametrize("count", [FEW, MANY])
def test_another_execution_that_returned_equal_bytes_is_noticed_where_runs_are_known(count: int) -> None:
    """F2 b: such a task may have written other files."""
    present = full(count)
    present[1] = DependencyRecord("later run", 1, digest(1))
    assert changed(count, full(count), present) is not None
