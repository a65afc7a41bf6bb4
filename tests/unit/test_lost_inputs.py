"""A result that is lost takes along what is being computed from it."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from overnight.audit import Audit
from overnight.core.states import RunPhase, TaskState
from overnight.errors import UnknownRun, Unreachable
from overnight.flag_files import open_flag, read_header
from overnight.flag_publishing import publish_flags
from overnight.flags import DONE, FAILED, AttemptFacts, encode_flag, lineage_of_header
from overnight.keyring import Keyring
from overnight.lineage import DependencyRecord, lineage_digest
from overnight.mending import Mending
from overnight.messages import SpecChunk, StoredError, StoredResult
from overnight.naming import flag_name
from overnight.queue_outcomes import QueueOutcomes
from overnight.recording import TaskIdentity, record_header
from overnight.results import FLAG
from overnight.run_flags import Outdated, RunFlags
from overnight.store.codec import NO_DIGEST
from overnight.store.memory import MemoryStore
from overnight.store.records import Acceptance, Addition, Adopted, Batch, Report, Verdict
from overnight.structure import Structure
from overnight.unseen_failures import write_missing
from tests.support.one_scheduler import OneScheduler
from tests.support.stores import Night, digest_of, epoch_of, failure, lacking, run_record, success

KEYRING = Keyring()


class RolledBackStore(MemoryStore):
    """It is restarted after each invalidation, with what it held before."""

    def invalidate(self, run_id: str, tasks: Sequence[int]) -> list[int]:
        before = copy.deepcopy(self.data)
        reopened = super().invalidate(run_id, tasks)
        self.data = before
        return reopened


def night_with_a_task_in_flight(flag: Path, store: MemoryStore | None = None) -> Night:
    """A run of t0, adopted from a flag that is gone, and t1, which a worker computes from it."""
    store = store or MemoryStore()
    store.open_run(run_record(total=2), b"context")
    chunk = SpecChunk(0, ["t0", "t1"], ["f"], [0, 0], [[], [0]], {})
    located = StoredResult(digest_of("t0"), 7, locator=f"{FLAG}{flag}").sealed("r1", 0, KEYRING)
    adopted = {0: Adopted(digest_of("t0"), located)}
    store.add_tasks("r1", Addition(0, 2, chunk.sealed("r1", KEYRING), {1: b"message"}, adopted))
    store.activate("r1")
    night = Night(store, epoch_of(store), "r1")
    assert night.dispatch(Batch("b1", "default", (1,), (1,), (lineage_digest([digest_of("t0")]),))) == [True]
    night.claim("b1")
    return night


def fetch(night: Night, _directory: Path) -> None:
    QueueOutcomes(night.store, "r1", KEYRING).successes({0: "t0"})


def audit(night: Night, directory: Path) -> None:
    Audit(night.store, "r1", KEYRING, str(directory)).run()


@pytest.mark.parametrize("find_out", [fetch, audit])
def test_no_success_is_accepted_that_was_computed_from_a_lost_result(
    tmp_path: Path, find_out: Callable[[Night, Path], None]
) -> None:
    """P4, P5: of whoever finds out first, a client that wants the value or the audit."""
    night = night_with_a_task_in_flight(tmp_path / "t0.flag")
    find_out(night, tmp_path)
    assert night.states()[0] == "p"
    reply = night.commit("b1", success(1, used=lineage_digest([digest_of("t0")])))
    assert reply.acceptances == (Acceptance.SUPERSEDED,)
    assert night.states() == "pp"


def test_a_flag_that_is_written_again_names_what_it_was_computed_from_though_that_is_lost(tmp_path: Path) -> None:
    """P4: without it, a later run would take the result beside another one of its dependency."""
    night = night_with_a_task_in_flight(tmp_path / "t0.flag")
    night.commit("b1", success(1, used=lineage_digest([digest_of("t0")])))
    structure = Structure("r1", night.store.specs("r1"), KEYRING)
    flags = RunFlags(night.store, "r1", structure, KEYRING, tmp_path)
    assert flags.write_result(1, b"body")
    header = read_header(tmp_path / flag_name("t1"), "t1", KEYRING).header
    assert lineage_of_header(header) == lineage_digest([digest_of("t0")])
    (tmp_path / flag_name("t1")).unlink()
    night.store.invalidate("r1", [0])
    assert not flags.write_result(1, b"body")
    assert not (tmp_path / flag_name("t1")).exists()


def test_a_flag_that_is_written_again_is_not_replaced_by_a_worker_frozen_since_an_earlier_attempt(
    tmp_path: Path,
) -> None:
    """P4: that one was computed from another result, and would stand where an accepted one is told of."""
    night = night_with_a_task_in_flight(tmp_path / "t0.flag")
    night.store.give_back("r1", "b1", "w1", [1])
    night.dispatch(Batch("b2", "default", (1,), (2,), (lineage_digest([digest_of("t0")]),)))
    night.claim("b2")
    night.commit("b2", success(1, used=lineage_digest([digest_of("t0")])))
    assert night.states() == "cd"
    flags = RunFlags(night.store, "r1", Structure("r1", night.store.specs("r1"), KEYRING), KEYRING, tmp_path)
    assert flags.write_result(1, b"body")
    stale = AttemptFacts("r1", 1, dependency_records=(DependencyRecord(None, None, digest_of("other").hex()),))
    header = record_header(TaskIdentity("t1", "f", ("t0",)), DONE, stale)
    name = flag_name("t1")
    (written,) = publish_flags(tmp_path, [(header, name, encode_flag(header, b"stale", KEYRING))], KEYRING)
    assert "a later attempt" in str(written.error)
    assert open_flag(tmp_path / name, "t1", KEYRING).body == b"body"


def test_a_run_is_not_over_for_an_audit_whose_invalidation_the_server_has_lost(tmp_path: Path) -> None:
    """P9: the client would tell of a success while a result lies nowhere."""
    night = night_with_a_task_in_flight(tmp_path / "t0.flag", RolledBackStore())
    night.commit("b1", success(1, used=lineage_digest([digest_of("t0")])))
    assert night.end(RunPhase.SUCCEEDED)
    findings = Audit(night.store, "r1", KEYRING, str(tmp_path)).run()
    assert night.store.run("r1").phase.is_over
    assert findings.lost
    assert not findings.over


def test_a_flag_that_another_client_has_written_again_stays(tmp_path: Path) -> None:
    """P3: that client has told of its end; a second one which takes the flag away for a moment makes it a liar."""
    night = night_with_a_task_in_flight(tmp_path / "t0.flag")
    used = lineage_digest([digest_of("t0")])
    night.commit("b1", success(1, used=used)._replace(digest=hashlib.sha256(b"body").digest()))
    flags = RunFlags(night.store, "r1", Structure("r1", night.store.specs("r1"), KEYRING), KEYRING, tmp_path)
    path = tmp_path / flag_name("t1")
    path.write_bytes(b"damaged")
    assert flags.write_result(1, b"body")
    written = path.stat().st_ino
    assert flags.write_result(1, b"body")
    assert path.stat().st_ino == written
    path.write_bytes(encode_flag(read_header(path, "t1", KEYRING).header, b"another body", KEYRING))
    assert flags.write_result(1, b"body")
    assert open_flag(path, "t1", KEYRING).body == b"body"


def test_a_failure_that_was_taken_back_since_it_was_told_is_none(tmp_path: Path) -> None:
    """P4: its client would record an error with the number of the attempt that has succeeded since."""
    night = night_with_a_task_in_flight(tmp_path / "t0.flag")
    error = StoredError("ValueError", "once", "").sealed("r1", 1, KEYRING)
    night.commit("b1", Report(1, False, error, b"", lineage_digest([digest_of("t0")]), b"{}", None, True))
    night.settle(Verdict(1, TaskState.FAILED))
    outcomes = QueueOutcomes(night.store, "r1", KEYRING)
    assert list(outcomes.failures({1: "t1"})) == [1]
    night.settle(Verdict(1, TaskState.PENDING))
    assert outcomes.failures({1: "t1"}) == {}


def test_what_failed_after_its_success_was_given_out_runs_again_with_the_input_that_it_lacks(tmp_path: Path) -> None:
    """P11: tried again without it, it would fail until nobody tries any more."""
    night = night_with_a_task_in_flight(tmp_path / "t0.flag")
    error = StoredError("overnight.errors.InputLost", "it is gone", "").sealed("r1", 1, KEYRING)
    night.commit("b1", Report(1, False, error, b"", lineage_digest([digest_of("t0")]), b"{}", None, True))
    night.settle(Verdict(1, TaskState.FAILED))
    assert night.states() == "cf"
    assert Mending(night.store, "r1", KEYRING).run_once_more([1]) == [1]
    assert night.states() == "cp"
    assert night.dispatch(Batch("b2", "default", (1,), (2,), (lineage_digest([digest_of("t0")]),))) == [True]
    night.claim("b2")
    night.commit("b2", lacking(1, 0))
    scheduler = OneScheduler(night)
    scheduler.perform(scheduler.due)
    assert night.states() == "pp"


def test_a_run_whose_tasks_the_server_has_lost_is_unknown(tmp_path: Path) -> None:
    """P9: what is finished is in the flags; the client puts the rest in place again."""
    night = night_with_a_task_in_flight(tmp_path / "t0.flag")
    store = night.store
    assert isinstance(store, MemoryStore)
    store.data.runs["r1"].specs.clear()
    with pytest.raises(UnknownRun, match="has lost what tasks run r1 has"):
        audit(night, tmp_path)


def test_a_client_that_was_frozen_takes_no_flag_away_of_a_result_that_came_after_what_it_writes(tmp_path: Path) -> None:
    """I2: it had read the former result, which somebody has invalidated since, as that of its dependency was lost."""
    night = night_with_a_task_in_flight(tmp_path / "t0.flag")
    used = lineage_digest([digest_of("t0")])
    body, later = b"former", b"later"
    night.commit("b1", success(1, used=used)._replace(digest=hashlib.sha256(body).digest()))
    night.store.invalidate("r1", [1])
    night.dispatch(Batch("b2", "default", (1,), (2,), (used,)))
    night.claim("b2")
    facts = AttemptFacts("r1", 2, dependency_records=(DependencyRecord(None, None, digest_of("t0").hex()),))
    header, name = record_header(TaskIdentity("t1", "f", ("t0",)), DONE, facts), flag_name("t1")
    publish_flags(tmp_path, [(header, name, encode_flag(header, later, KEYRING))], KEYRING)
    night.commit("b2", success(1, used=used)._replace(digest=hashlib.sha256(later).digest()))
    flags = RunFlags(night.store, "r1", Structure("r1", night.store.specs("r1"), KEYRING), KEYRING, tmp_path)
    with pytest.raises(Outdated):
        flags.write_result(1, body)
    assert open_flag(tmp_path / name, "t1", KEYRING).body == later
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t1.flag"]


def test_a_result_of_which_the_server_has_lost_the_digest_alone_is_written(tmp_path: Path) -> None:
    """P5, P11: of an ended run no scheduler finds that digest again, and the audit would never be the last one."""
    night = night_with_a_task_in_flight(tmp_path / "t0.flag")
    night.commit("b1", success(1, used=lineage_digest([digest_of("t0")])))
    assert isinstance(night.store, MemoryStore)
    night.store.data.runs["r1"].digests[32:64] = NO_DIGEST
    flags = RunFlags(night.store, "r1", Structure("r1", night.store.specs("r1"), KEYRING), KEYRING, tmp_path)
    (tmp_path / flag_name("t1")).write_bytes(b"damaged")
    assert flags.write_result(1, b"value 1")
    assert open_flag(tmp_path / flag_name("t1"), "t1", KEYRING).body == b"value 1"


class AwayStore(MemoryStore):
    """It is away for whoever asks which result of t1 is on record."""

    def read_digests(self, run_id: str, tasks: Iterable[int]) -> list[bytes]:
        asked = list(tasks)
        if asked == [1]:
            raise Unreachable("The server is away.")
        return super().read_digests(run_id, asked)


def test_a_server_that_goes_away_while_a_flag_is_written_again_is_no_fault_of_the_directory(tmp_path: Path) -> None:
    """P5: told as one that could not be written it would be taken for proven, and nothing would be in its place."""
    night = night_with_a_task_in_flight(tmp_path / "t0.flag", AwayStore())
    night.commit("b1", success(1, used=lineage_digest([digest_of("t0")])))
    flags = RunFlags(night.store, "r1", Structure("r1", night.store.specs("r1"), KEYRING), KEYRING, tmp_path)
    (tmp_path / flag_name("t1")).write_bytes(b"damaged")
    with pytest.raises(Unreachable):
        flags.write_result(1, b"body")
    assert [path.name for path in tmp_path.iterdir()] == ["t1.flag"]


@pytest.mark.parametrize(
    ("facts", "began", "ended"),
    [
        (b'{"host":"node7","started":1700000000.5,"seconds":2.0}', "22:13:20.500000", "22:13:22.500000"),
        (b'{"host":"node7","started":1e300,"seconds":2.0}', None, None),
        (b"[1]", None, None),
    ],
)
def test_the_record_of_a_failure_tells_when_its_attempt_ran(
    tmp_path: Path, facts: bytes, began: str | None, ended: str | None
) -> None:
    """It is written at the end of the run, hours later, and once more after each retry of others."""
    night = night_with_a_task_in_flight(tmp_path / "t0.flag")
    error = StoredError("builtins.ValueError", "no", "Traceback").sealed("r1", 1, KEYRING)
    night.commit("b1", failure(1)._replace(record=error, facts=facts))
    night.settle(Verdict(1, TaskState.FAILED))
    flags = RunFlags(night.store, "r1", Structure("r1", night.store.specs("r1"), KEYRING), KEYRING, tmp_path)
    assert flags.write_failures([1])
    header = read_header(tmp_path / flag_name("t1"), "t1", KEYRING).header
    assert (header.started and header.started[11:26]) == began
    if ended is not None:
        assert (header.finished or "")[11:26] == ended
        assert (header.host, header.duration_seconds) == ("node7", 2.0)


def test_a_failure_that_nobody_recorded_is_recorded_where_no_record_stands(tmp_path: Path) -> None:
    """Whatever stands there is of somebody who has seen to that task since."""
    night = night_with_a_task_in_flight(tmp_path / "t0.flag")
    error = StoredError("builtins.ValueError", "no", "Traceback").sealed("r1", 1, KEYRING)
    night.commit("b1", failure(1)._replace(record=error))
    night.settle(Verdict(1, TaskState.FAILED))
    run = replace(night.store.run("r1"), status_dir=str(tmp_path))
    place = tmp_path / flag_name("t1")
    for unfit in (None, "s3://bucket/records", str(tmp_path / "gone")):
        assert write_missing(night.store, replace(run, status_dir=unfit), KEYRING) == []
    place.write_bytes(b"whatever")
    assert write_missing(night.store, run, KEYRING) == []
    assert place.read_bytes() == b"whatever"
    place.unlink()
    assert write_missing(night.store, run, KEYRING) == ["t1"]
    assert read_header(place, "t1", KEYRING).header.state == FAILED
