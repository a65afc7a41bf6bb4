"""Flags as local files: group writes, what is never replaced, what stands in a flag's place (C6, C14, ADVERSITY 3)."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from overnight.cache import FileTaskCache
from overnight.errors import BadSeal
from overnight.flag_files import ABANDONED_SECONDS, existing_valid, open_flag, read_header, read_headers
from overnight.flag_publishing import later_ones, publish_flags, superseding_run
from overnight.flag_writing import FEW_FLAGS, Written, sync_flags, write_flag, write_flags
from overnight.flags import FAILED, AttemptFacts, FlagHeader, encode_flag, lineage_of_header
from overnight.keyring import Keyring
from overnight.lineage import DependencyRecord
from overnight.making import make_task

NO_KEY = Keyring()
RECORDS = (DependencyRecord("run", 1, "00" * 32),)


def names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def header(task_id: str = "a", run_id: str = "run", **changes: object) -> FlagHeader:
    return FlagHeader(task_id, run_id=run_id, dependency_records=RECORDS, **changes)  # type: ignore[arg-type] # test data


def flag(body: bytes, task_id: str = "a", run_id: str = "run") -> bytes:
    return encode_flag(header(task_id, run_id), body, NO_KEY)


def body_at(path: Path, task_id: str = "a") -> bytes:
    return open_flag(path, task_id, NO_KEY).body


@pytest.mark.parametrize("count", [1, FEW_FLAGS + 2])
def test_a_group_is_written_whole_and_leaves_no_temporary_file(tmp_path: Path, count: int) -> None:
    """C6; modes of ADVERSITY 8."""
    directory = tmp_path / "made" / "status"
    written = write_flags(directory, [(f"t{n}.flag", flag(b"x" * n, f"t{n}")) for n in range(count)])
    assert [outcome.error for outcome in written] == [None] * count
    assert sorted(names_in(directory)) == sorted(f"t{n}.flag" for n in range(count))
    assert [body_at(directory / f"t{n}.flag", f"t{n}") for n in range(count)] == [b"x" * n for n in range(count)]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


def test_of_two_writers_the_last_wins(tmp_path: Path) -> None:
    """C6."""
    write_flags(tmp_path, [("a.flag", flag(b"one"))])
    write_flags(tmp_path, [("a.flag", flag(b"two"))])
    assert body_at(tmp_path / "a.flag") == b"two"


@pytest.mark.parametrize("count", [1, FEW_FLAGS + 2])
def test_flags_written_one_by_one_are_synced_together(tmp_path: Path, count: int) -> None:
    """C6; a flag that was removed in between is no error, a directory that was is one."""
    directory = tmp_path / "made" / "status"
    names = [f"t{n}.flag" for n in range(count)]
    assert [write_flag(directory, name, flag(b"x", name[:-5])) for name in names] == [None] * count
    assert sorted(names_in(directory)) == sorted(names)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    (directory / names[0]).unlink()
    assert sync_flags(directory, names) is None
    (tmp_path / "file").write_text("")
    assert isinstance(sync_flags(tmp_path / "file", names), NotADirectoryError)
    assert sync_flags(tmp_path / "removed", names) is None


def test_a_body_comes_with_its_header_where_the_head_of_the_file_holds_it(tmp_path: Path) -> None:
    """C13, C14: verified like one that is read by itself."""
    write_flags(tmp_path, [("a.flag", flag(b"short")), ("b.flag", flag(b"z" * 100_000, "b"))])
    assert read_header(tmp_path / "a.flag", "a", NO_KEY).body is None
    assert read_header(tmp_path / "a.flag", "a", NO_KEY, with_body=True).body == b"short"
    assert read_header(tmp_path / "b.flag", "b", NO_KEY, with_body=True).body is None
    (tmp_path / "a.flag").write_bytes(flag(b"short")[:-1] + b"x")
    with pytest.raises(BadSeal, match="another SHA-256"):
        read_header(tmp_path / "a.flag", "a", NO_KEY, with_body=True)


def test_a_header_is_read_from_the_head_alone_and_still_shows_a_torn_body(tmp_path: Path) -> None:
    """C13, C14."""
    write_flags(tmp_path, [("a.flag", flag(b"z" * 100_000))])
    path = tmp_path / "a.flag"
    assert read_header(path, "a", NO_KEY)[0].body_bytes == 100_000
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(BadSeal, match="bytes where its header says"):
        read_header(path, "a", NO_KEY)


def test_a_header_longer_than_one_read_is_read(tmp_path: Path) -> None:
    data = encode_flag(FlagHeader("a", host="h" * 300_000), b"body", NO_KEY)
    write_flags(tmp_path, [("a.flag", data)])
    assert read_header(tmp_path / "a.flag", "a", NO_KEY)[0].host == "h" * 300_000


def make_link(path: Path) -> None:
    target = path.with_name("target")
    target.write_bytes(flag(b"planted"))
    path.symlink_to(target)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


OBSTACLES = {"link": make_link, "fifo": os.mkfifo, "directory": os.mkdir, "socket": make_socket}


@pytest.mark.parametrize("kind", OBSTACLES)
def test_what_stands_in_place_of_a_flag_is_neither_read_nor_replaced(tmp_path: Path, kind: str) -> None:
    """C14, C4 of the reviewer's list, ADVERSITY row 46."""
    path = tmp_path / "a.flag"
    OBSTACLES[kind](path)
    before = path.lstat()
    with pytest.raises(BadSeal, match="remove it"):
        open_flag(path, "a", NO_KEY)
    for error in (
        write_flag(tmp_path, "a.flag", flag(b"new")),
        write_flags(tmp_path, [("a.flag", flag(b"new"))])[0].error,
        publish_flags(tmp_path, [(header(), "a.flag", flag(b"new"))], NO_KEY)[0].error,
    ):
        assert "remove it" in str(error)
    assert path.lstat() == before
    assert not list(tmp_path.glob("*.tmp"))


def test_one_flag_that_cannot_be_written_does_not_hold_up_its_group(tmp_path: Path) -> None:
    (tmp_path / "bad.flag").mkdir()
    written = write_flags(tmp_path, [("bad.flag", flag(b"", "bad")), ("a.flag", flag(b"good"))])
    assert [outcome.error is None for outcome in written] == [False, True]
    assert body_at(tmp_path / "a.flag") == b"good"


def test_a_status_directory_that_is_a_file_is_an_error_of_each_flag(tmp_path: Path) -> None:
    """C7, ADVERSITY row 43."""
    (tmp_path / "file").write_text("")
    written = write_flags(tmp_path / "file", [("a.flag", b""), ("b.flag", b"")])
    assert [type(outcome.error) for outcome in written] == [NotADirectoryError] * 2


def test_a_valid_flag_of_the_same_run_and_lineage_is_kept(tmp_path: Path) -> None:
    """ADVERSITY 3: a worker's rename never replaces it."""
    assert publish_flags(tmp_path, [(header(), "a.flag", flag(b"first"))], NO_KEY)[0].kept is False
    assert publish_flags(tmp_path, [(header(), "a.flag", flag(b"second"))], NO_KEY)[0].kept is True
    lineage = lineage_of_header(header())
    assert lineage is not None
    kept = existing_valid(tmp_path / "a.flag", "a", "run", lineage, NO_KEY)
    assert kept is not None
    assert kept.body == b"first"
    assert names_in(tmp_path) == ["a.flag"]


def test_a_flag_computed_from_one_that_was_kept_out_is_not_put_in_place(tmp_path: Path) -> None:
    """A worker that was frozen and wakes changes nothing of what was computed meanwhile (ADVERSITY P2, P4)."""
    write_flags(tmp_path, [("a.flag", flag(b"first")), ("b.flag", flag(b"from the first", "b"))])
    group = [(header(), "a.flag", flag(b"late"))]
    group += [(header(name), f"{name}.flag", flag(b"from the late one", name)) for name in ("b", "c", "d")]
    written = publish_flags(tmp_path, group, NO_KEY, before=[[], [0], [1], []])
    assert [(one.kept, one.void) for one in written] == [(True, False), (False, True), (False, True), (False, False)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.flag", "b.flag", "d.flag"]
    assert open_flag(tmp_path / "b.flag", "b", NO_KEY).body == b"from the first"


@pytest.mark.parametrize(
    "stale",
    [
        flag(b"old", run_id="other"),
        flag(b"old")[:-1],
        b"",
        encode_flag(FlagHeader("a", run_id="run", dependency_records=()), b"old", NO_KEY),
        encode_flag(header(state=FAILED), b"", NO_KEY),
    ],
)
def test_any_other_flag_is_replaced_by_a_workers(tmp_path: Path, stale: bytes) -> None:
    """ADVERSITY 3."""
    (tmp_path / "a.flag").write_bytes(stale)
    assert publish_flags(tmp_path, [(header(), "a.flag", flag(b"new"))], NO_KEY)[0].error is None
    assert body_at(tmp_path / "a.flag") == b"new"
    assert names_in(tmp_path) == ["a.flag"]


def test_a_worker_frozen_through_the_end_of_its_run_replaces_no_flag_of_a_later_one(tmp_path: Path) -> None:
    """P3, P4: what the later run computed from its own result would otherwise belong to no result."""
    earlier, later = "20260301-220000-0123456789ab", "20260301-220007-0123456789ab"
    other = (DependencyRecord("run", 1, "11" * 32),)
    for run_id, records, body in (
        (earlier, RECORDS, b"first"),
        (later, other, b"of the later run"),
        (earlier, RECORDS, b"late"),
    ):
        made = FlagHeader("a", run_id=run_id, dependency_records=records)
        written = publish_flags(tmp_path, [(made, "a.flag", encode_flag(made, body, NO_KEY))], NO_KEY)
    assert "later attempt or run" in str(written[0].error)
    assert body_at(tmp_path / "a.flag") == b"of the later run"
    assert names_in(tmp_path) == ["a.flag"]


def test_a_result_of_a_later_run_with_the_same_lineage_stands_for_the_own_one(tmp_path: Path) -> None:
    """P2, P9: what a server that fell back has its client told would be another value than the one on disk."""
    earlier, later = "20260301-220000-0123456789ab", "20260301-220007-0123456789ab"
    group = [(header(run_id=later), "a.flag", flag(b"of the later run", run_id=later))]
    publish_flags(tmp_path, group, NO_KEY)
    lineage = lineage_of_header(header())
    assert lineage is not None
    found = existing_valid(tmp_path / "a.flag", "a", earlier, lineage, NO_KEY)
    assert found is not None
    assert found.body == b"of the later run"
    assert existing_valid(tmp_path / "a.flag", "a", "20260301-220009-0123456789ab", lineage, NO_KEY) is None
    own = [(header(run_id=earlier), "a.flag", flag(b"own", run_id=earlier))]
    assert publish_flags(tmp_path, own, NO_KEY)[0].kept


def test_a_later_flag_of_which_the_body_is_damaged_keeps_nobody_out(tmp_path: Path) -> None:
    """P4, P12: after a clock was put back, a run of an older id found the header whole and left what is no result."""
    earlier, later = "20260301-220000-0123456789ab", "20260301-220007-0123456789ab"
    whole = encode_flag(FlagHeader("a", run_id=later, dependency_records=()), b"of the later run", NO_KEY)
    damaged = whole[:-1] + b"?"
    for data, superseding in ((whole, later), (damaged, None)):
        (tmp_path / "a.flag").write_bytes(data)
        assert superseding_run(tmp_path, "a", (), earlier, NO_KEY) == superseding
    assert read_header(tmp_path / "a.flag", "a", NO_KEY).header.run_id == later
    own = flag(b"own", run_id=earlier)
    assert publish_flags(tmp_path, [(header(run_id=earlier), "a.flag", own)], NO_KEY)[0].error is None
    assert body_at(tmp_path / "a.flag") == b"own"
    (tmp_path / "a.flag").write_bytes(damaged)
    rule = later_ones([header(run_id=earlier, state=FAILED)], NO_KEY, ["a.flag"])
    assert write_flags(tmp_path, [("a.flag", own)], keep=rule)[0].kept is False


@pytest.mark.parametrize("is_active", [True, False])
@pytest.mark.parametrize("is_placed_late", [True, False])
@pytest.mark.parametrize("finished", ["2026-03-01T21:59:59+00:00", "2026-03-01T22:00:01.5+00:00", "rubbish", None])
def test_a_worker_of_a_lost_run_replaces_no_flag_that_came_while_its_run_went_on(
    tmp_path: Path, finished: str | None, is_active: bool, is_placed_late: bool
) -> None:
    """P4: a run that came after may have adopted it, as it began when this one had been lost. A worker that is frozen
    between the end of a task and its flag puts it there later than its header tells."""
    earlier, own = "20260301-215950-0123456789ab", "20260301-220000-0123456789ab"
    late = header(run_id=earlier, finished=finished)
    publish_flags(tmp_path, [(late, "a.flag", encode_flag(late, b"late", NO_KEY))], NO_KEY)
    began = datetime(2026, 3, 1, 22, 0, 0, tzinfo=UTC).timestamp()
    os.utime(tmp_path / "a.flag", times=2 * (began + (1.0 if is_placed_late else -90.0),))
    asked: list[bool] = []

    def told() -> bool:
        asked.append(is_active)
        return is_active

    group = [(header(run_id=own), "a.flag", flag(b"own", run_id=own))]
    (written,) = publish_flags(tmp_path, group, NO_KEY, is_active=told)
    came_meanwhile = is_placed_late or (finished is not None and ":01.5" in finished)
    stays = came_meanwhile and not is_active
    assert (written.error is not None, body_at(tmp_path / "a.flag")) == (stays, b"late" if stays else b"own")
    assert len(asked) == came_meanwhile, "the server is asked where it matters alone"


def test_a_flag_with_an_absurd_time_is_left_to_whoever_may_have_adopted_it(tmp_path: Path) -> None:
    """P17: what a file system, or somebody, says of a file's time ends no worker."""
    late = header(run_id="20260301-215950-0123456789ab", finished="9999-12-31T23:59:59-23:59")
    publish_flags(tmp_path, [(late, "a.flag", encode_flag(late, b"late", NO_KEY))], NO_KEY)
    os.utime(tmp_path / "a.flag", times=(0.0, 4e11))
    own = "20260301-220000-0123456789ab"
    group = [(header(run_id=own), "a.flag", flag(b"own", run_id=own))]
    (written,) = publish_flags(tmp_path, group, NO_KEY, is_active=lambda: False)
    assert "came there meanwhile" in str(written.error)


def test_a_worker_frozen_through_its_lease_replaces_no_flag_of_a_later_attempt(tmp_path: Path) -> None:
    """P2, P4: the later attempt was computed from other results, as those before it had been lost."""
    run_id = "20260301-220000-0123456789ab"
    other = (DependencyRecord("run", 1, "11" * 32),)
    for attempt, records, body in ((2, RECORDS, b"accepted"), (1, other, b"late")):
        made = FlagHeader("a", run_id=run_id, attempt=attempt, dependency_records=records)
        written = publish_flags(tmp_path, [(made, "a.flag", encode_flag(made, body, NO_KEY))], NO_KEY)
    assert "later attempt" in str(written[0].error)
    assert body_at(tmp_path / "a.flag") == b"accepted"


def test_a_client_of_an_earlier_run_replaces_no_flag_of_a_later_one_by_a_failure(tmp_path: Path) -> None:
    """P3: the task failed in the earlier run, and has succeeded since; what is its own it does replace."""
    earlier, later = "20260301-220000-0123456789ab", "20260301-220007-0123456789ab"
    desc = make_task("a", len, args=[()])
    cache = FileTaskCache(str(tmp_path), keyring=NO_KEY)
    cache.store(desc, is_error=False, result=1, facts=AttemptFacts(run_id=later))
    cache.store(desc, is_error=True, result=ValueError("late"), facts=AttemptFacts(run_id=earlier))
    assert cache.get_record(desc).result == 1
    cache.store(desc, is_error=True, result=ValueError("own"), facts=AttemptFacts(run_id=later))
    assert str(cache.get_record(desc).error) == "own"
    assert len(names_in(tmp_path)) == 1


def test_a_late_client_replaces_no_flag_of_a_later_attempt_by_a_failure(tmp_path: Path) -> None:
    """P4: the task was taken back, and has succeeded since."""
    run_id = "20260301-220000-0123456789ab"
    desc = make_task("a", len, args=[()])
    cache = FileTaskCache(str(tmp_path), keyring=NO_KEY)
    cache.store(desc, is_error=False, result=1, facts=AttemptFacts(run_id=run_id, attempt=3))
    cache.store(desc, is_error=True, result=ValueError("late"), facts=AttemptFacts(run_id=run_id, attempt=2))
    assert cache.get_record(desc).result == 1
    cache.store(desc, is_error=True, result=ValueError("last"), facts=AttemptFacts(run_id=run_id, attempt=4))
    assert str(cache.get_record(desc).error) == "last"


def test_a_worker_frozen_between_look_and_rename_replaces_nothing(tmp_path: Path) -> None:
    """P2, P4: a rival publishes after the stale flag was judged and before it is replaced."""
    (tmp_path / "a.flag").write_bytes(flag(b"stale", run_id="old"))
    looked = 0

    def keep(_directory: int, _name: str) -> Written | None:
        nonlocal looked
        looked += 1
        if looked == 1:
            publish_flags(tmp_path, [(header(), "a.flag", flag(b"rival"))], NO_KEY)
            return None
        return Written(kept=True)

    assert write_flags(tmp_path, [("a.flag", flag(b"frozen"))], keep=keep)[0].kept
    assert body_at(tmp_path / "a.flag") == b"rival"
    assert names_in(tmp_path) == ["a.flag"]


def test_two_who_replace_one_flag_go_one_after_the_other(tmp_path: Path) -> None:
    """P4: the second would take away what the first has put there, and put it back only after it has looked."""
    (tmp_path / "a.flag").write_bytes(flag(b"stale", run_id="old"))
    judging, goes_on = threading.Event(), threading.Event()

    def keep(_directory: int, _name: str) -> Written | None:
        judging.set()
        assert goes_on.wait(30)
        return None

    outcomes: dict[str, Written] = {}
    group = [(header(), "a.flag", flag(b"second"))]
    first = threading.Thread(
        target=lambda: outcomes.update(first=write_flags(tmp_path, [("a.flag", flag(b"first"))], keep=keep)[0])
    )
    second = threading.Thread(target=lambda: outcomes.update(second=publish_flags(tmp_path, group, NO_KEY)[0]))
    first.start()
    assert judging.wait(30)
    second.start()
    second.join(0.2)
    assert second.is_alive()
    goes_on.set()
    for thread in (first, second):
        thread.join()
    assert (outcomes["first"].kept, outcomes["second"].kept) == (False, True)
    assert body_at(tmp_path / "a.flag") == b"first"


def test_a_reader_sees_one_writers_record_or_the_others_never_a_mixture(tmp_path: Path) -> None:
    """C6."""
    bodies = [bytes([65 + n]) * 50_000 for n in range(2)]
    write_flags(tmp_path, [("a.flag", flag(bodies[0]))])
    done = threading.Event()
    seen: list[bytes] = []

    def write(body: bytes) -> None:
        for _ in range(60):
            assert write_flag(tmp_path, "a.flag", flag(body)) is None

    def read() -> None:
        while not done.is_set():
            seen.append(body_at(tmp_path / "a.flag"))

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(body,)) for body in bodies]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert seen
    assert set(seen) <= set(bodies)
    assert names_in(tmp_path) == ["a.flag"]


WRITER_ON_A_FULL_DISK = """
import resource, sys
from overnight.flag_writing import write_flags
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
outcomes = write_flags(sys.argv[1], [("big.flag", b"x" * 5000), ("small.flag", b"small")])
print([type(outcome.error).__name__ for outcome in outcomes])
"""


def test_without_room_the_former_record_stays_and_no_temporary_file_remains(tmp_path: Path) -> None:
    """C7, P13."""
    write_flags(tmp_path, [("big.flag", flag(b"former"))])
    command = [sys.executable, "-c", WRITER_ON_A_FULL_DISK, str(tmp_path)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert answer.stdout.strip() == "['OSError', 'NoneType']"
    assert body_at(tmp_path / "big.flag") == b"former"
    assert sorted(names_in(tmp_path)) == ["big.flag", "small.flag"]


def test_one_listing_gives_the_headers_of_the_flags_that_exist(tmp_path: Path) -> None:
    """C13, F5."""
    write_flags(tmp_path, [("a.flag", flag(b"", "a")), ("b.flag", b"junk")])
    wanted = [("a", "a.flag"), ("b", "b.flag"), ("c", "c.flag")]
    found = dict(read_headers(tmp_path, wanted, NO_KEY))
    assert set(found) == {"a", "b"}
    assert isinstance(found["b"], BadSeal)
    assert dict(read_headers(tmp_path / "none", wanted, NO_KEY)) == {}


def test_whoever_writes_first_removes_temporary_files_of_killed_writers(tmp_path: Path) -> None:
    """M4: by age, as others may be writing just now."""
    old, new = tmp_path / f"a.flag.{'0' * 16}.tmp", tmp_path / f"a.flag.{'1' * 16}.tmp"
    yesterday = time.time() - ABANDONED_SECONDS - 60
    for path in (old, new, tmp_path / "mine.tmp"):
        path.write_text("")
        os.utime(path, (yesterday, yesterday))
    os.utime(new)
    desc = make_task("b", len, args=[()])
    FileTaskCache(str(tmp_path), keyring=NO_KEY).store(desc, is_error=False, result=1, facts=AttemptFacts())
    assert sorted(names_in(tmp_path)) == [new.name, "b.flag", "mine.tmp"]


@pytest.mark.parametrize("planted", ["a link to another file", "a link to nothing", "a file"])
def test_what_stands_where_a_temporary_file_is_to_be_is_neither_followed_nor_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    """M4: even one who knew the random name could make overnight write nowhere else; the former record stays."""
    directory, victim = tmp_path / "flags", tmp_path / "victim"
    victim.write_text("victim")
    write_flags(directory, [("a.flag", flag(b"former"))])
    monkeypatch.setattr("overnight.flag_writing.secrets.token_hex", lambda _: "0" * 16)
    draft = directory / f"a.flag.{'0' * 16}.tmp"
    if planted == "a file":
        draft.write_text("planted")
    else:
        draft.symlink_to(victim if planted == "a link to another file" else tmp_path / "made through a link")
    assert isinstance(write_flag(directory, "a.flag", flag(b"new")), FileExistsError)
    assert victim.read_text() == "victim"
    assert not (tmp_path / "made through a link").exists()
    assert body_at(directory / "a.flag") == b"former"


@pytest.mark.parametrize("times", [1, 2])
def test_a_file_whose_handle_has_become_stale_is_opened_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """ADVERSITY 7, row 45: a file server answers so when another host has just replaced the flag."""
    write_flags(tmp_path, [("a.flag", flag(b"new"))])
    really_open, refusals = os.open, [OSError(errno.ESTALE, "Stale file handle")] * times

    def opened(path: str, *words: int, **keywords: Any) -> int:
        if str(path).endswith("a.flag") and refusals:
            raise refusals.pop()
        return really_open(path, *words, **keywords)

    monkeypatch.setattr(os, "open", opened)
    if times == 1:
        assert body_at(tmp_path / "a.flag") == b"new"
    else:
        with pytest.raises(BadSeal, match="Stale file handle"):
            body_at(tmp_path / "a.flag")
    assert refusals == []
