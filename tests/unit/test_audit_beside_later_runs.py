"""A client that audits its run when a later one has recorded the tasks since."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from overnight.audit import Audit
from overnight.core.states import RunPhase
from overnight.errors import DamagedRun
from overnight.flag_files import open_flag
from overnight.flag_writing import write_flags
from overnight.flags import FlagHeader, encode_flag
from overnight.keyring import Keyring
from overnight.lineage import DependencyRecord, lineage_digest
from overnight.messages import SpecChunk, StoredResult
from overnight.naming import flag_name
from overnight.store.memory import MemoryStore
from overnight.store.records import Addition, Batch, Report, RunRecord
from tests.support.stores import Night, epoch_of, run_record

KEYRING = Keyring()
EARLIER, LATER = "20260301-220000-0123456789ab", "20260301-220007-0123456789ab"


def digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()


class WithADamagedRun(MemoryStore):
    """A store on which the later run cannot be read."""

    def run(self, run_id: str) -> RunRecord:
        if run_id == LATER:
            raise DamagedRun("its record is none")
        return super().run(run_id)


def night_of_the_earlier_run(store: MemoryStore | None = None) -> Night:
    """A run of t0 and t1, which needs it; their results lie in the store."""
    store = MemoryStore() if store is None else store
    store.open_run(run_record(EARLIER, total=2), b"context")
    chunk = SpecChunk(0, ["t0", "t1"], ["f"], [0, 0], [[], [0]], {})
    messages = dict.fromkeys(range(2), b"message")
    store.add_tasks(EARLIER, Addition(0, 2, chunk.sealed(EARLIER, KEYRING), messages, {}))
    store.activate(EARLIER)
    night = Night(store, epoch_of(store), EARLIER)
    lineage = lineage_digest([])
    for task, body in enumerate((b"first", b"second")):
        assert night.dispatch(Batch(f"b{task}", "default", (task,), (1,), (lineage,))) == [True]
        night.claim(f"b{task}")
        record = StoredResult(digest(body), len(body), body=body).sealed(EARLIER, task, KEYRING)
        night.commit(f"b{task}", Report(task, True, record, digest(body), lineage, b"{}", 0.0))
        lineage = lineage_digest([digest(body)])
    assert night.end(RunPhase.SUCCEEDED)
    return night


def of(used: bytes) -> tuple[DependencyRecord, ...]:
    return (DependencyRecord(None, None, digest(used).hex()),)


def put(directory: Path, task_id: str, body: bytes, used: bytes | None = None) -> None:
    """Put a flag of the later run in place, computed from a result with the body `used`."""
    header = FlagHeader(task_id, run_id=LATER, attempt=1, dependency_records=() if used is None else of(used))
    written = write_flags(directory, [(flag_name(task_id), encode_flag(header, body, KEYRING))])
    assert written[0].error is None


@pytest.mark.parametrize(("used", "left"), [(b"first anew", b"second anew"), (b"something else", b"second")])
def test_a_later_success_stays_if_it_was_computed_from_what_stands(tmp_path: Path, used: bytes, left: bytes) -> None:
    """P3, P4: an audit that came late put the earlier result in its place, and what was computed from it ran again."""
    night = night_of_the_earlier_run()
    night.store.open_run(run_record(LATER, total=2), b"context")
    put(tmp_path, "t0", b"first anew")
    put(tmp_path, "t1", b"second anew", used)
    findings = Audit(night.store, EARLIER, KEYRING, str(tmp_path)).run()
    assert findings.over
    assert not findings.lost
    assert open_flag(tmp_path / flag_name("t0"), "t0", KEYRING).body == b"first anew"
    assert open_flag(tmp_path / flag_name("t1"), "t1", KEYRING).body == left


def test_a_success_of_a_run_that_the_server_has_lost_gives_way(tmp_path: Path) -> None:
    """P4, P5: what needs it is the earlier run's, and the later one, which would have run it too, goes on no more."""
    night = night_of_the_earlier_run()
    put(tmp_path, "t0", b"first anew")
    Audit(night.store, EARLIER, KEYRING, str(tmp_path)).run()
    assert open_flag(tmp_path / flag_name("t0"), "t0", KEYRING).body == b"first"
    assert open_flag(tmp_path / flag_name("t1"), "t1", KEYRING).body == b"second"


def test_a_success_of_a_run_that_is_damaged_gives_way(tmp_path: Path) -> None:
    """P11: another run's damage keeps nobody from the end of this one."""
    night = night_of_the_earlier_run(WithADamagedRun())
    put(tmp_path, "t0", b"first anew")
    Audit(night.store, EARLIER, KEYRING, str(tmp_path)).run()
    assert open_flag(tmp_path / flag_name("t0"), "t0", KEYRING).body == b"first"


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_flag_that_is_replaced_after_it_was_proven_is_looked_at_again(tmp_path: Path, *, is_kept: bool) -> None:
    """P4, P5: a worker carries on a run that the server has lost, and this one has adopted another result."""
    night = night_of_the_earlier_run()
    audit = Audit(night.store, EARLIER, KEYRING, str(tmp_path))
    first, second = FlagHeader("t0", run_id=EARLIER), FlagHeader("t1", run_id=EARLIER, dependency_records=of(b"first"))
    for header, body in ((first, b"first"), (second, b"second")):
        write_flags(tmp_path, [(flag_name(header.task_id), encode_flag(header, body, KEYRING))])
    audit.look_ahead({0: "t0", 1: "t1"})
    put(tmp_path, "t0", b"first anew")
    if not is_kept:
        assert isinstance(night.store, MemoryStore)
        night.store.data.runs[EARLIER].results.pop(0)
    findings = audit.run()
    assert (findings.rewritten, findings.lost, findings.over) == (([0], [], True) if is_kept else ([], [0], False))
    if is_kept:
        assert open_flag(tmp_path / flag_name("t0"), "t0", KEYRING).body == b"first"


def test_what_was_proven_is_lost_with_its_directory(tmp_path: Path) -> None:
    night = night_of_the_earlier_run()
    place = tmp_path / "status"
    audit = Audit(night.store, EARLIER, KEYRING, str(place))
    assert audit.run().rewritten == [0, 1]
    audit.forget(0)
    audit.look_ahead({0: "t0"})
    shutil.rmtree(place)
    assert audit.run().rewritten == [0]
