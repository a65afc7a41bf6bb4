"""What a worker reports of a chain when another result of an earlier member stands already."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from overnight.config import Settings
from overnight.core.states import TaskState
from overnight.flag_files import open_flag
from overnight.flag_publishing import publish_flags
from overnight.flags import FlagHeader, encode_flag
from overnight.keyring import Keyring
from overnight.lineage import lineage_digest
from overnight.messages import RunContext, TaskFacts
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


def outcomes_beside_a_flag(directory: Path, night: Night, post: Post) -> Delivery:
    """The outcomes of a chain, to be delivered, whose first one finds the flag of another attempt in its place."""
    batch = chain(night)
    header = FlagHeader("t0", run_id="r1", dependency_records=())
    publish_flags(directory, [(header, flag_name("t0"), encode_flag(header, b"stands", KEYRING))], KEYRING)
    context = RunContext("/", 0o077, {}, [], None, 0, str(directory), None)
    delivery = Delivery(post, batch, Reporter(post, "r1", context), Spool(directory / "spool", "w1", KEYRING))
    for member, body in zip(batch.members, (b"own", b"of own"), strict=True):
        member.stage, member.ended = Stage.ENDED, Ended(body, digest=digest(body))
        delivery.add(member)
    return delivery


def test_what_was_computed_from_a_result_that_does_not_stand_goes_back(tmp_path: Path) -> None:
    """P4: in one group with the member whose flag another attempt had written; the store compares no inner lineage."""
    store = MemoryStore()
    night = begin(store, 2)
    delivery = outcomes_beside_a_flag(tmp_path, night, post_of(store))
    delivery.flush()
    assert store.read_digests("r1", [0]) == [digest(b"stands")]
    assert TaskState(store.states("r1")[2]) is TaskState.RUNNING
    delivery.give_back_rest()
    assert TaskState(store.states("r1")[2]) is TaskState.PENDING


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
