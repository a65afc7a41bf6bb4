"""FileTaskCache: what is recorded, and what is believed of it (C1 to C16)."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from overnight.cache import NO_TASK_CACHE, CacheRecord, CacheRecordType, FileTaskCache, NoTaskCache, TaskCache
from overnight.errors import BadSeal, RemoteTaskError
from overnight.flag_files import read_header
from overnight.flags import FAILED, UNSTORED, AttemptFacts, encode_flag
from overnight.keyring import Keyring
from overnight.lineage import DependencyRecord
from overnight.making import make_task
from overnight.naming import flag_name
from overnight.pickling import dumps
from overnight.recording import TaskIdentity, record_header
from overnight.task import Task, TaskDesc

NEEDS_COMPUTE, COMPUTED, ERROR = CacheRecordType.NEEDS_COMPUTE, CacheRecordType.COMPUTED, CacheRecordType.ERROR
NO_KEY = Keyring()


def names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def work(*_args: Any) -> None:
    """Stand for a task's function."""


def other_work() -> None:
    """Stand for another function."""


def desc(task_id: str = "a", **declared: Any) -> TaskDesc:
    return make_task(task_id, work, args=[], **declared)


@pytest.fixture
def cache(tmp_path: Path) -> FileTaskCache:
    return FileTaskCache(str(tmp_path / "status"))


def test_a_record_compares_by_type_and_payload_and_guards_both() -> None:
    """C1, C2."""
    record = CacheRecord(COMPUTED, 5)
    assert (NEEDS_COMPUTE.value, COMPUTED.value, ERROR.value) == (0, 1, 2)
    assert record == CacheRecord(COMPUTED, 5, "reason")
    assert record.result == 5
    assert record.invalidate() == CacheRecord(NEEDS_COMPUTE, 5)
    with pytest.raises(AssertionError):
        _ = record.error
    with pytest.raises(AssertionError):
        _ = CacheRecord(ERROR, 5).result


def test_the_shared_default_is_an_empty_dict_that_records_nothing() -> None:
    """P4, C5."""
    assert isinstance(NO_TASK_CACHE, NoTaskCache)
    assert repr(NO_TASK_CACHE) == "{}"
    NO_TASK_CACHE.cache(Task("a"), is_error=False, result=1)
    assert NO_TASK_CACHE.get_record(desc()) == CacheRecord(NEEDS_COMPUTE)
    assert len(NO_TASK_CACHE) == 0


def test_create_chooses_by_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C4, C6: construction writes nothing."""
    monkeypatch.chdir(tmp_path)
    assert isinstance(TaskCache.create(force=True), NoTaskCache)
    assert isinstance(TaskCache.create(task_progress_mode=False), NoTaskCache)
    made = [TaskCache.create(), TaskCache.create(cache_dir="status")]
    assert all(isinstance(one, FileTaskCache) for one in made)
    assert names_in(tmp_path) == []


def test_a_subclass_without_a_method_says_which() -> None:
    """C3."""

    class Half(TaskCache):
        pass

    with pytest.raises(NotImplementedError, match=r"Half\.get_record"):
        Half().get_record(desc())  # type: ignore[abstract] # that it can be built is the point


def test_results_and_errors_come_back(cache: FileTaskCache) -> None:
    """C6, C12."""
    assert cache.get_record(desc()).type is NEEDS_COMPUTE
    cache.cache(Task("a"), is_error=False, result={"x": lambda: 5})
    assert cache.get_record(desc()).result["x"]() == 5
    cache.cache(Task("a"), is_error=True, result=ValueError("bad"))
    record = cache.get_record(desc())
    assert record.type is ERROR
    assert repr(record.error) == "ValueError('bad')"


def test_a_status_directory_given_relative_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C6."""
    monkeypatch.chdir(tmp_path)
    cache = FileTaskCache("status")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    cache.cache(Task("a"), is_error=False, result=1)
    assert names_in(tmp_path / "status") == ["a.flag"]


def test_an_exception_that_cannot_be_rebuilt_is_an_error_record_all_the_same(cache: FileTaskCache) -> None:
    """C12, ADVERSITY row 22."""

    class Locked(Exception):
        def __init__(self, text: str) -> None:
            super().__init__(text)
            self.lock = threading.Lock()

    cache.cache(Task("a"), is_error=True, result=Locked("held"))
    error = cache.get_record(desc()).error
    assert isinstance(error, RemoteTaskError)
    assert "Locked" in error.type_name
    assert error.message == "held"


def test_a_result_that_cannot_be_pickled_is_unstored(
    cache: FileTaskCache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """C8."""
    cache.cache(Task("a"), is_error=False, result=threading.Lock())
    record = cache.get_record(desc())
    assert record.type is NEEDS_COMPUTE
    assert "_thread.lock" in str(record.reason)
    header = read_header(tmp_path / "status" / "a.flag", "a", NO_KEY).header
    assert (header.state, header.body_bytes) == (UNSTORED, 0)
    assert len(caplog.records) == 1
    assert all(word in caplog.text for word in ("task a", "_thread.lock", "run again"))


def test_a_directory_that_cannot_be_written_costs_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """C7."""
    (tmp_path / "file").write_text("")
    FileTaskCache(str(tmp_path / "file")).cache(Task("a"), is_error=False, result=1)
    assert len(caplog.records) == 1
    assert "task a" in caplog.text
    assert "Not a directory" in caplog.text


WRITER_ON_A_FULL_DISK = """
import resource, sys
from overnight.cache import FileTaskCache
from overnight.task import Task
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
FileTaskCache(sys.argv[1]).cache(Task("a"), is_error=False, result="x" * 9000)
"""


def test_a_full_disk_keeps_the_former_record(cache: FileTaskCache, tmp_path: Path) -> None:
    """C7, P13."""
    cache.cache(Task("a"), is_error=False, result="former")
    command = [sys.executable, "-c", WRITER_ON_A_FULL_DISK, str(tmp_path / "status")]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert "File too large" in answer.stderr
    assert cache.get_record(desc()).result == "former"
    assert names_in(tmp_path / "status") == ["a.flag"]


def test_a_damaged_flag_is_one_warning_and_runs_again(
    cache: FileTaskCache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """C14."""
    cache.cache(Task("a"), is_error=False, result=1)
    path = tmp_path / "status" / "a.flag"
    path.write_bytes(path.read_bytes()[:-1])
    assert cache.get_record(desc()).type is NEEDS_COMPUTE
    assert cache.get_record(desc()).type is NEEDS_COMPUTE
    assert isinstance(cache.read_flags([Task("a")])[Task("a")], BadSeal)
    assert len(caplog.records) == 1
    assert str(path) in caplog.text


def test_a_body_that_does_not_load_runs_again(cache: FileTaskCache, tmp_path: Path) -> None:
    """C14."""
    header = record_header(TaskIdentity("a"), "done")
    (tmp_path / "status").mkdir()
    (tmp_path / "status" / "a.flag").write_bytes(encode_flag(header, b"\x80junk", NO_KEY))
    assert "cannot be loaded" in str(cache.get_record(desc()).reason)
    with pytest.raises(BadSeal, match="cannot be loaded"):
        cache.load(desc())


class Canary:
    """Leaves a trace where it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("state", ["done", FAILED])
def test_an_unsigned_flag_is_not_unpickled_where_a_key_is_set(tmp_path: Path, state: str) -> None:
    """C16, C2 of the reviewer's list."""
    canary = tmp_path / "canary"
    planted = encode_flag(record_header(TaskIdentity("a"), state), dumps(Canary(str(canary))), NO_KEY)
    (tmp_path / "a.flag").write_bytes(planted)
    guarded = FileTaskCache(str(tmp_path), keyring=Keyring((b"k" * 32,)))
    assert guarded.get_record(desc()).type is NEEDS_COMPUTE
    with pytest.raises(BadSeal):
        guarded.load(desc())
    assert not canary.exists()
    trusting = FileTaskCache(str(tmp_path))
    assert list(trusting.read_headers([Task("a")])) == [Task("a")]
    assert not canary.exists()
    trusting.get_record(desc())
    assert canary.exists()


def test_a_signed_flag_is_believed_with_its_key(tmp_path: Path) -> None:
    """C16."""
    FileTaskCache(str(tmp_path), keyring=Keyring((b"o" * 32,))).cache(Task("a"), is_error=False, result=1)
    rotated = FileTaskCache(str(tmp_path), keyring=Keyring((b"n" * 32, b"o" * 32)))
    assert rotated.get_record(desc()).result == 1


@pytest.mark.parametrize("is_error", [False, True])
def test_a_record_of_another_function_dependency_or_python_does_not_stand(tmp_path: Path, is_error: bool) -> None:
    """C15, ADVERSITY row 42."""
    cache = FileTaskCache(str(tmp_path))
    declared = desc(deps=[Task("x"), Task("y")])
    result = ValueError() if is_error else 1
    cache.store(declared, is_error=is_error, result=result)
    assert cache.get_record(declared).type is (ERROR if is_error else COMPUTED)
    assert cache.get_record(replace(declared, deps=[Task("y"), Task("x")])).type is not NEEDS_COMPUTE
    renamed = cache.get_record(replace(declared, func=other_work))
    assert renamed.type is NEEDS_COMPUTE
    assert f"function changed from {__name__}:work to {__name__}:other_work" == renamed.reason
    extended = cache.get_record(replace(declared, deps=[Task("x"), Task("z")]))
    assert (extended.type, extended.reason) == (NEEDS_COMPUTE, "dependencies changed: added z, removed y")
    cache.store(declared, is_error=is_error, result=result, facts=AttemptFacts(python="2.7.18"))
    assert "Python changed from 2.7 to" in str(cache.get_record(declared).reason)


def test_a_flag_for_a_task_whose_desc_was_not_shown_matches_any(tmp_path: Path) -> None:
    """C15."""
    FileTaskCache(str(tmp_path)).cache(Task("a"), is_error=False, result=1)
    header = read_header(tmp_path / "a.flag", "a", NO_KEY).header
    assert (header.function, header.dependencies, header.dependency_records) == (None, None, None)
    assert FileTaskCache(str(tmp_path)).get_record(desc(deps=[Task("x")])).type is COMPUTED


def test_the_facts_of_an_attempt_are_stored(tmp_path: Path) -> None:
    """C11."""
    records = (DependencyRecord("r", 1, "00" * 32),)
    facts = AttemptFacts("r", 2, "2026-01-01", "2026-01-02", 9.0, "host", dependency_records=records)
    written = FileTaskCache(str(tmp_path)).store(desc(deps=[Task("x")]), is_error=False, result=1, facts=facts)
    header = FileTaskCache(str(tmp_path)).read_headers([Task("a")])[Task("a")]
    assert header == written
    assert (header.run_id, header.attempt, header.duration_seconds, header.host) == ("r", 2, 9.0, "host")
    assert (header.dependencies, header.dependency_records) == (("x",), facts.dependency_records)


IDS = ["annotate chr1", "annotate-chr1", "annotate.chr1", "annotate:chr1", "../../x", "s3://b/x", "A", "a", "n\nl%s"]


def test_any_id_has_a_record_of_its_own_inside_the_directory(cache: FileTaskCache, tmp_path: Path) -> None:
    """I3, R9, ADVERSITY rows 8 to 12."""
    for task_id in IDS:
        cache.cache(Task(task_id), is_error=False, result=task_id)
    assert [cache.get_record(desc(task_id)).result for task_id in IDS] == IDS
    assert sorted(names_in(tmp_path / "status")) == sorted(flag_name(task_id) for task_id in IDS)
    assert names_in(tmp_path) == ["status"]


@pytest.fixture
def remote() -> str:
    return f"memory://{uuid.uuid4().hex}/status"


def test_a_remote_status_directory_works_alike(remote: str) -> None:
    """C6, C13, C14: fsspec URLs."""
    cache = FileTaskCache(remote)
    assert cache.get_record(desc()).type is NEEDS_COMPUTE
    assert cache.read_flags([Task("a")]) == {}
    cache.cache(Task("a"), is_error=False, result="x" * 20_000)
    cache.cache(Task("b"), is_error=True, result=ValueError("bad"))
    assert cache.get_record(desc()).result == "x" * 20_000
    assert cache.get_record(desc("b")).type is ERROR
    assert [header.state for header in cache.read_headers([Task("a"), Task("b"), Task("c")]).values()] == [
        "done",
        FAILED,
    ]


def test_a_damaged_remote_flag_counts_as_missing(remote: str) -> None:
    """C14."""
    import fsspec

    cache = FileTaskCache(remote)
    cache.cache(Task("a"), is_error=False, result=1)
    system = fsspec.filesystem("memory")
    path = f"{remote.removeprefix('memory:/')}/a.flag"
    system.pipe_file(path, system.cat_file(path)[:-1])
    assert cache.get_record(desc()).type is NEEDS_COMPUTE
    assert cache.read_headers([Task("a")]) == {}


def test_a_store_that_cannot_be_opened_is_one_warning_each_way(caplog: pytest.LogCaptureFixture) -> None:
    """C7, C14."""
    cache = FileTaskCache("nosuchprotocol://bucket/status")
    cache.cache(Task("a"), is_error=False, result=1)
    assert cache.get_record(desc()).type is NEEDS_COMPUTE
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a directory to another user")
def test_what_root_records_in_the_directory_of_another_user_is_that_users(tmp_path: Path) -> None:
    """A client with fewer rights than its workers could not read the results that they wrote for it."""
    os.chown(tmp_path, 65534, 65534)
    FileTaskCache(str(tmp_path)).cache(Task("a"), is_error=False, result=1)
    facts = (tmp_path / "a.flag").stat()
    assert (facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode)) == (65534, 65534, 0o600)


@pytest.mark.parametrize(
    ("of_directory", "of_flag"),
    [(0o700, 0o600), (0o755, 0o600), (0o1777, 0o600), (0o750, 0o640), (0o2770, 0o640), (0o2755, 0o640), (0o775, 0o640)],
)
def test_a_flag_is_for_the_group_where_that_shares_the_directory_on_purpose(
    tmp_path: Path, of_directory: int, of_flag: int
) -> None:
    """ADVERSITY 8."""
    tmp_path.chmod(of_directory)
    FileTaskCache(str(tmp_path)).cache(Task("a"), is_error=False, result=1)
    assert stat.S_IMODE((tmp_path / "a.flag").stat().st_mode) == of_flag


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a directory to another user")
def test_a_directory_of_another_users_is_warned_of_once_where_its_records_are_not_signed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever writes there can have code run as the user who believes the records."""
    FileTaskCache(str(tmp_path)).cache(Task("a"), is_error=False, result=1)
    os.chown(tmp_path, 65534, 65534)
    guarded = FileTaskCache(str(tmp_path), keyring=Keyring((b"k" * 32,)))
    plain = FileTaskCache(str(tmp_path), keyring=NO_KEY)
    for cache in (guarded, plain, plain):
        cache.read_headers([desc("a").task])
    assert caplog.text.count("belongs to another user (65534)") == 1
