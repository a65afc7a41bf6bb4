"""How a claimed batch names the results that its members were computed from (ADVERSITY P3, P4)."""

from __future__ import annotations

import hashlib

import pytest

from overnight.lineage import DependencyRecord, changed_dependency, lineage_digest
from overnight.messages import TaskFacts
from overnight.store.records import Claim, RunRecord
from overnight_worker.batch import ClaimedBatch, Ended, Member, Stage

RUN = RunRecord("run", "name", "key", "", "me", "here", "3.11", 1, 2, "default", "overnight run x")


def digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()


@pytest.fixture
def pair() -> ClaimedBatch:
    """Task 1 depends on task 0, both in their second attempt; task 0 has a result."""
    first = Member(0, 0, 2, b"", TaskFacts("a", "f", "", (), (), (), ()), b"")
    second = Member(1, 1, 2, b"", TaskFacts("b", "f", "", (0,), ("a",), (0,), ()), b"")
    first.stage, first.ended = Stage.ENDED, Ended(b"x", digest=digest(b"x"))
    claim = Claim(RUN, "batch", "default", (0, 1), (2, 2), (b"", b""), (b"", b""), b"", 15.0)
    return ClaimedBatch(claim, [first, second])


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_result_that_stands_from_an_earlier_attempt_is_the_one_that_was_used(
    pair: ClaimedBatch, attempt: int
) -> None:
    """F2 (b): a worker that finds the flag of an attempt that was lost goes on from there."""
    present = {"a": DependencyRecord("run", attempt, digest(b"x").hex())}
    used = pair.dependency_records(pair.members[1])
    assert changed_dependency(("a",), ("a",), used, present) is None


def test_the_result_of_another_run_or_of_other_bytes_is_another_one(pair: ClaimedBatch) -> None:
    """F2 (b)."""
    used = pair.dependency_records(pair.members[1])
    for present in (DependencyRecord("other", 1, digest(b"x").hex()), DependencyRecord("run", 2, digest(b"y").hex())):
        assert changed_dependency(("a",), ("a",), used, {"a": present}) == "a"


def test_a_lineage_is_that_of_the_result_in_the_batch(pair: ClaimedBatch) -> None:
    assert pair.lineage(pair.members[1]) == lineage_digest([digest(b"x")])


def test_a_lineage_stays_that_of_what_was_handed_on_when_another_result_takes_its_place(pair: ClaimedBatch) -> None:
    """P4 of ADVERSITY: what a frozen worker computed is not passed off as computed from what is on record."""
    first = pair.members[0].ended
    assert first is not None
    first.handed_on, first.digest = first.digest, digest(b"of a rival")
    assert pair.lineage(pair.members[1]) == lineage_digest([digest(b"x")])
