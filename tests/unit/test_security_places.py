"""Where files lie, who may reach them, and what names are made of (ADVERSITY 8: C3, C4, H6, H7, M7)."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from overnight.cache import FileTaskCache
from overnight.config import Settings, read_settings
from overnight.embedded import _CONFIGURATION
from overnight.errors import InvalidTaskId, UnknownRun, UsageError
from overnight.flag_files import existing_valid
from overnight.flags import FlagHeader, encode_flag
from overnight.keyring import Keyring
from overnight.launch import _prepare_directories
from overnight.lineage import lineage_digest
from overnight.naming import check_task_id, flag_name, log_name
from overnight.run_key import RunOptions
from overnight.state_dir import open_log, prepare_state_dir, try_lock
from overnight.store.keys import RUN_KEYS, Keys
from overnight.store.records import Report
from overnight.store.server_check import _open_to_all, _refusals, _remote_warnings
from overnight.task import Task
from overnight.transport.rq import queue_key_name, queue_name_of
from overnight_worker.spool import Spool, Spooled
from tests.support.servers import connect

WICKED = (
    "/", "..", "\\", "~", ":", "%", "%2e", "%2f", "\n", "\r", "\x1b[2J", "$(x)", "`", "*", "{", "}", "\u2215", "\u202e",
    "\uff0e", "a", "A", "-", ".", " ", "CON", "s3://", "file:", "\u00e9", "e\u0301", "\0", "\ud800", "#", "?",
)  # fmt: skip


def fuzzed_ids(number: int) -> Iterator[str]:
    rng = random.Random(8)
    for _ in range(number):
        yield "".join(rng.choices(WICKED, k=rng.randrange(12))) * rng.choice((1, 1, 1, 40))


def test_no_id_leads_out_of_the_directory(tmp_path: Path) -> None:
    """C4: 10,000 fuzzed ids; each is refused, or names one file in the directory, and no other's."""
    inside = str(tmp_path) + os.sep
    names: dict[str, str] = {}
    refused = 0
    for task_id in fuzzed_ids(10_000):
        try:
            check_task_id(task_id)
        except InvalidTaskId:
            refused += 1
            continue
        for name in (flag_name(task_id), log_name(task_id)):
            assert os.path.normpath(inside + name) == inside + name
            assert os.sep not in name
            assert names.setdefault(name.lower(), task_id) == task_id
            assert len(name) <= 255
    assert refused > 500
    assert len(names) > 10_000


def test_a_directory_holds_what_was_written_for_any_id_and_nothing_beside_it_changes(tmp_path: Path) -> None:
    """C4: real flags of fuzzed ids; what lies outside keeps its inode and its content."""
    status = tmp_path / "a" / "b" / "status"
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    before = outside.stat()
    cache = FileTaskCache(str(status))
    written = set()
    for task_id in fuzzed_ids(300):
        try:
            task = Task(check_task_id(task_id))
        except InvalidTaskId:
            continue
        cache.cache(task, is_error=False, result=None)
        written.add(flag_name(task.task_id))
    assert {path.name for path in status.iterdir()} == written
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_relative_to(status)}
    assert found == {"a", "a/b", "outside"}
    assert (outside.stat().st_ino, outside.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize(
    "name", ["x}:queue", "*", "a\nb", "{other}", "", "a" * 101, "../x", "r1:meta", "ü", "a b", "\0"]
)
def test_names_of_people_are_never_raw_parts_of_keys(name: str) -> None:
    """H6, C4: runs by a strict form, queues encoded, prefixes refused."""
    with pytest.raises(UnknownRun):
        Keys("overnight").of_run(name, "meta")
    encoded = queue_key_name(name)
    assert encoded.isascii()
    assert not set(encoded) & set("{}*:\n\0/, ")
    assert queue_name_of(encoded) == name
    if name:
        with pytest.raises(UsageError, match="OVERNIGHT_PREFIX"):
            read_settings({"OVERNIGHT_PREFIX": name})


def test_every_key_of_a_run_lies_under_its_prefix() -> None:
    """H6."""
    for key in RUN_KEYS:
        assert Keys("p").of_run("r1", key.name).startswith("{p}:run:r1:")


@contextmanager
def umask(value: int) -> Iterator[None]:
    former = os.umask(value)
    try:
        yield
    finally:
        os.umask(former)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("value", [0o000, 0o022, 0o077])
def test_directories_are_their_users_alone_whatever_the_umask(tmp_path: Path, value: int) -> None:
    """H7: state, status and spool directories 0700; flags, logs, locks and spool files 0600; parents not for all."""
    with umask(value):
        state = prepare_state_dir(tmp_path / "new" / "deep" / "state")
        os.close(open_log(state / "logs" / "x.log"))
        os.close(try_lock(state / "x.lock") or 0)
        status = tmp_path / "other" / "status"
        _prepare_directories(RunOptions(status_dir=str(status)), Settings(state_dir=state))
        FileTaskCache(str(status)).cache(Task("a"), is_error=False, result=1)
        FileTaskCache(str(tmp_path / "own")).cache(Task("a"), is_error=False, result=1)
        kept = Spool(state / "spool", "w", Keyring()).keep(
            Spooled("r", "b", "w", [Report(0, True, b"", b"", b"", b"", 1.0)])
        )
    assert kept is not None
    for directory in (state, state / "logs", state / "spool", state / "blobs", status, tmp_path / "own"):
        assert mode(directory) == 0o700, directory
    for file in (state / "logs" / "x.log", state / "x.lock", kept, status / "a.flag", tmp_path / "own" / "a.flag"):
        assert mode(file) == 0o600, file
    for parent in (tmp_path / "new", tmp_path / "new" / "deep", tmp_path / "other"):
        assert not mode(parent) & 0o022, parent


@pytest.mark.parametrize("depth", [1, 2])
def test_a_place_that_everyone_may_replace_is_refused(tmp_path: Path, depth: int) -> None:
    """H7: unsafe parents, near and far; a sticky one does."""
    parent = tmp_path / "open"
    directory = parent.joinpath(*["d"] * depth)
    parent.mkdir()
    parent.chmod(0o777)
    with pytest.raises(UsageError, match="chmod o-w"):
        prepare_state_dir(directory)
    with pytest.raises(UsageError, match="chmod o-w"):
        _prepare_directories(RunOptions(status_dir=str(directory)), Settings(state_dir=tmp_path))
    parent.chmod(0o1777)
    prepare_state_dir(directory)
    _prepare_directories(RunOptions(status_dir=str(directory)), Settings(state_dir=tmp_path))


def test_a_state_directory_of_somebody_else_or_open_to_others_is_refused(tmp_path: Path) -> None:
    """H7."""
    (tmp_path / "file").touch()
    tmp_path.chmod(0o750)
    with pytest.raises(UsageError, match="chmod 700"):
        prepare_state_dir(tmp_path)
    if os.geteuid() == 0:
        (tmp_path / "foreign").mkdir(mode=0o700)
        os.chown(tmp_path / "foreign", 65534, 65534)
        with pytest.raises(UsageError, match="another user"):
            prepare_state_dir(tmp_path / "foreign")


def test_the_command_that_mends_a_directory_can_be_typed_whatever_its_name(tmp_path: Path) -> None:
    place = tmp_path / "sp ace"
    place.mkdir(mode=0o750)
    (place / "file").touch()
    with pytest.raises(UsageError) as refused:
        prepare_state_dir(place)
    assert f"`chmod 700 '{place}'`" in str(refused.value)


HERE = ("localhost", "127.0.0.1", "127.1.2.3", "[::1]")
AWAY = ("host", "10.0.0.1", "[2001:db8::1]", "localhost.example", "0.0.0.0", "127.0.0.1.example")


@pytest.mark.parametrize("host", [*HERE, *AWAY])
@pytest.mark.parametrize("secret", ["", "user:pw@", ":pw@"])
@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_remote_server_needs_a_password_and_should_speak_tls(host: str, secret: str, scheme: str) -> None:
    """C3: the start matrix."""
    url = f"{scheme}://{secret}{host}:6379/0"
    with connect(url) as client:
        refused = list(_open_to_all(client, url))
        warned = [warning for warning in _remote_warnings("valkey", "9.0.0", url) if "without TLS" in warning]
    assert bool(refused) == (host in AWAY and not secret)
    assert bool(warned) == (host in AWAY and scheme == "redis")


@pytest.mark.parametrize(
    ("product", "version", "is_fit"),
    [("redis", "6.2.19", False), ("redis", "6.2.20", True), ("redis", "7.0.15", False), ("redis", "8.2.1", False),
     ("redis", "8.2.2", True), ("redis", "8.4.0", True), ("valkey", "8.0.5", False), ("valkey", "9.0.0", True)],
)  # fmt: skip
def test_a_server_that_is_too_old_is_refused_and_one_with_a_known_flaw_warned_of(
    product: str, version: str, is_fit: bool
) -> None:
    """H9: the version floor."""
    assert list(_refusals({"redis_version": "6.0.16"}))
    assert not list(_refusals({"redis_version": "6.2.0"}))
    warned = [warning for warning in _remote_warnings(product, version, "rediss://u:p@host") if "CVE" in warning]
    assert bool(warned) != is_fit


def test_the_servers_that_overnight_starts_listen_on_no_network() -> None:
    """C3: no open default bind."""
    lines = _CONFIGURATION.splitlines()
    assert {"port 0", "unixsocketperm 700", "protected-mode yes"} <= set(lines)
    assert not any(line.startswith(("bind", "tls-port", "enable-", "loadmodule")) for line in lines)


def test_a_flag_of_yesterdays_run_or_of_another_lineage_does_not_end_a_task_of_today(tmp_path: Path) -> None:
    """M7: a flag that was copied back is not taken for the outcome of an attempt."""
    ring, lineage = Keyring((b"k" * 32,)), lineage_digest([])
    header = FlagHeader("a", run_id="yesterday", dependency_records=())
    (tmp_path / "a.flag").write_bytes(encode_flag(header, b"body", ring))
    assert existing_valid(tmp_path / "a.flag", "a", "yesterday", lineage, ring) is not None
    assert existing_valid(tmp_path / "a.flag", "a", "today", lineage, ring) is None
    assert existing_valid(tmp_path / "a.flag", "a", "yesterday", b"other", ring) is None


def test_what_stands_in_place_of_a_spool_file_is_neither_followed_nor_waited_for(tmp_path: Path) -> None:
    """C4, M1: a link, a FIFO, a directory, and a file that is no record; each is set aside."""
    directory = tmp_path / "spool"
    spool = Spool(directory, "w", Keyring())
    whole = spool.keep(Spooled("r", "b", "w", [Report(0, True, b"", b"", b"", b"", 1.0)]))
    assert whole is not None
    elsewhere = whole.rename(tmp_path / "elsewhere")
    (directory / "w.0.spool").symlink_to(elsewhere)
    os.mkfifo(directory / "w.1.spool")
    (directory / "w.2.spool").mkdir()
    (directory / "w.3.spool").write_bytes(b"x" * 100)
    assert list(spool.leftovers()) == []
    assert len(list(directory.glob("*.damaged"))) == 4
    assert elsewhere.exists()
    spool.close()


def test_a_state_directory_that_is_made_private_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """H7."""
    place = tmp_path / "open"
    place.mkdir(mode=0o755)
    place.chmod(0o755)
    for _ in range(2):
        prepare_state_dir(place)
    assert [message for message in caplog.messages if str(place) in message] == [
        f"The state directory {place} was open to other users (mode 0755) and is private to you from now on (0700)."
    ]
