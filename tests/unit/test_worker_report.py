"""What a worker reports of a chain when another result of an earlier member stands already."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from overnight.config import Settings
from overnight.core.states import TaskState
from overnight.flag_files import open_flag
from overnight.flag_publishing import publish_flags
from overnight.flags import FlagHeader, encode_flag
from overnight.keyring import Keyring
from overnight.lineage import lineage_digest
from overnight.messages import RunContext, StoredResult, TaskFacts
from overnight.naming import flag_name
from overnight.store.memory import MemoryStore
from overnight_worker.batch import ClaimedBatch, Ended, Member, Stage
from overnight_worker.delivery import Delivery
from overnight_worker.heartbeat import Heartbeat
from overnight_worker.outgoing import Outgoing
from overnight_worker.post import Post
from overnight_worker.report import Reporter
from overnight_worker.spool import Spool
from tests.support.stores import Night, begin

KEYRING = Keyring()
NO_LINEAGE = lineage_digest([])
LARGEST_FILE = 8192


def post_of(store: MemoryStore) -> Post:
    return Post(store, KEYRING, Settings(), ("default",), "worker", instance="w1")


def digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()


def chain(night: Night) -> ClaimedBatch:
    """The batch of t0 and t1, which depends on it, claimed by w1."""
    claim = night.start("b", [0, 1], lineages=[NO_LINEAGE, b""])
    first = Member(0, 0, 1, NO_LINEAGE, TaskFacts("t0", "f", "", (), (), (), ()), b"")
    second = Member(1, 1, 1, b"", TaskFacts("t1", "f", "", (0,), ("t0",), (0,), ()), b"")
    return ClaimedBatch(claim, [first, second])


def outcomes_beside_a_flag(directory: Path, night: Night, post: Post, size: int = 6) -> Delivery:
    """The outcomes of a chain, to be delivered, whose first one finds the flag of another attempt in its place; the
    second one has so many bytes."""
    batch = chain(night)
    header = FlagHeader("t0", run_id="r1", dependency_records=())
    publish_flags(directory, [(header, flag_name("t0"), encode_flag(header, b"stands", KEYRING))], KEYRING)
    context = RunContext("/", 0o077, {}, [], None, 0, str(directory), None)
    delivery = Delivery(post, batch, Reporter(post, "r1", context), Spool(directory / "spool", "w1", KEYRING))
    for member, body in zip(batch.members, (b"own", b"x" * size), strict=True):
        member.stage, member.ended = Stage.ENDED, Ended(body, digest=digest(body))
        delivery.add(member)
    return delivery


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Larger files cannot be written, as on a disk that is almost full."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


@pytest.mark.parametrize("size", [6, 4 * LARGEST_FILE], ids=["written", "not written"])
def test_what_was_computed_from_a_result_that_does_not_stand_goes_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    """P4: in one group with the member whose flag another attempt had written; the store compares no inner lineage.
    P13: also if its own flag cannot be written."""
    store = MemoryStore()
    night = begin(store, 2)
    delivery = outcomes_beside_a_flag(tmp_path, night, post_of(store), size)
    with files_of_at_most(LARGEST_FILE):
        delivery.flush()
    assert ("the flag of task t1 cannot be written" in caplog.text) == (size > LARGEST_FILE)
    assert store.read_digests("r1", [0]) == [digest(b"stands")]
    assert TaskState(store.states("r1")[2]) is TaskState.RUNNING
    delivery.give_back_rest()
    assert TaskState(store.states("r1")[2]) is TaskState.PENDING


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user: run it as root")
def test_directories_of_another_user_keep_no_worker_from_its_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """C7: neither flags nor large results go where this worker may not look; all of it goes through Redis."""
    private = tmp_path / "private"
    (private / "flags").mkdir(parents=True, mode=0o700)
    private.chmod(0o700)
    store = MemoryStore()
    night = begin(store, 2)
    post = post_of(store)
    batch = chain(night)
    os.seteuid(65534)
    try:
        places = [str(private / name) for name in ("logs", "flags", "blobs")]
        context = RunContext("/", 0o077, {}, [], places[0], 0, places[1], places[2])
        reporter = Reporter(post, "r1", context)
        first = batch.members[0]
        first.stage, first.ended = Stage.ENDED, Ended(b"x" * 100_000, digest=digest(b"x" * 100_000))
        (report,) = reporter.reports(batch, [first])
    finally:
        os.seteuid(0)
    assert StoredResult.opened(report.record, "r1", 0, KEYRING).locator == "redis:"
    assert "this user may not look into it" in caplog.text
    assert f"this user may not write to log directory {places[0]}" in caplog.text
    assert json.loads(report.facts)["unlogged"] is True


def test_what_goes_back_of_a_batch_whose_last_commit_the_next_one_sends_is_not_held_until_its_lease_ends(
    tmp_path: Path,
) -> None:
    """P1, O7: a loss would be charged to a task for which nothing was lost."""
    store = MemoryStore()
    night = begin(store, 3)
    post = post_of(store)
    earlier = outcomes_beside_a_flag(tmp_path, night, post)
    own = ClaimedBatch(night.start("next", [2], lineages=[NO_LINEAGE]), [])
    reporter = Reporter(post, "r1", RunContext("/", 0o077, {}, [], None, 0, None, None))
    outgoing = Outgoing(
        Delivery(post, own, reporter, Spool(tmp_path / "spool", "w1", KEYRING)), earlier, Heartbeat(post)
    )
    outgoing.flush_due(time.monotonic() + 1)
    assert outgoing.is_empty
    assert outgoing.leases == [("r1", "next")]
    assert TaskState(store.states("r1")[2]) is TaskState.PENDING


def test_a_worker_of_a_lost_run_leaves_the_late_flag_of_an_earlier_one(tmp_path: Path) -> None:
    """P9: the run that goes on in place of the lost one has adopted it, and what it computes from it would be lost."""
    earlier, own = "20260301-215950-0123456789ab", "20260301-220000-0123456789ab"
    claim = begin(MemoryStore(), 1, own).start("b", [0], lineages=[NO_LINEAGE])
    batch = ClaimedBatch(claim, [Member(0, 0, 1, NO_LINEAGE, TaskFacts("t0", "f", "", (), (), (), ()), b"")])
    late = FlagHeader("t0", run_id=earlier, finished="2026-03-01T22:00:01+00:00", dependency_records=())
    publish_flags(tmp_path, [(late, flag_name("t0"), encode_flag(late, b"adopted", KEYRING))], KEYRING)
    post = post_of(MemoryStore())
    context = RunContext("/", 0o077, {}, [], None, 0, str(tmp_path), None)
    spool = Spool(tmp_path / "spool", "w1", KEYRING)
    delivery = Delivery(post, batch, Reporter(post, own, context), spool)
    batch.members[0].stage, batch.members[0].ended = Stage.ENDED, Ended(b"own", digest=digest(b"own"))
    delivery.add(batch.members[0])
    delivery.flush()
    assert open_flag(tmp_path / flag_name("t0"), "t0", KEYRING).body == b"adopted"
    assert delivery.is_empty
    assert any((tmp_path / "spool").iterdir())
