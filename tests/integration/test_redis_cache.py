"""RedisTaskCache on a real server: each copy of a record heals the other."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from overnight.cache import CacheRecordType
from overnight.graph import Task, TaskDesc, TaskGraph
from overnight.inspection import decide
from overnight.redis_cache import LARGEST_COPY_BYTES, RedisTaskCache
from overnight.sequential_executor import SequentialExecutor
from tests.support.servers import connect


def double(value: int) -> int:
    return 2 * value


def desc(name: str = "a") -> TaskDesc:
    return TaskGraph.make_task(name, double, args=[21])


def cache_at(redis_url: str, directory: Path) -> RedisTaskCache:
    return RedisTaskCache(redis_url, str(directory))


def flag_of(cache: RedisTaskCache, name: str = "a") -> Path:
    return Path(cache.place(Task(name)))


def test_a_deleted_flag_is_written_again_from_redis_with_its_time(redis_url: str, tmp_path: Path) -> None:
    cache = cache_at(redis_url, tmp_path)
    cache.store(desc(), is_error=False, result=42)
    former = flag_of(cache).stat().st_mtime_ns
    flag_of(cache).unlink()

    assert cache_at(redis_url, tmp_path).get_record(desc()).result == 42
    assert flag_of(cache).stat().st_mtime_ns == former


def test_a_damaged_flag_is_written_again_from_redis(redis_url: str, tmp_path: Path) -> None:
    cache = cache_at(redis_url, tmp_path)
    cache.store(desc(), is_error=False, result=42)
    whole = flag_of(cache).read_bytes()
    flag_of(cache).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))

    assert cache_at(redis_url, tmp_path).get_record(desc()).result == 42
    assert flag_of(cache).read_bytes() == whole


def test_redis_that_lost_everything_is_filled_from_the_flags(redis_url: str, tmp_path: Path) -> None:
    cache = cache_at(redis_url, tmp_path)
    cache.store(desc(), is_error=False, result=42)
    with connect(redis_url) as connection:
        connection.flushall()
    graph = TaskGraph()
    graph.add_task(desc())
    assert decide(graph, cache_at(redis_url, tmp_path)).completed == [Task("a")]
    flag_of(cache).unlink()

    assert cache_at(redis_url, tmp_path).get_record(desc()).result == 42


def test_a_whole_directory_that_was_deleted_costs_no_task(redis_url: str, tmp_path: Path) -> None:
    def graph() -> TaskGraph:
        made = TaskGraph()
        parts = [made.create_task(f"part {number}", double, args=[number]) for number in range(20)]
        made.create_task("all", sum, args=[parts])
        return made

    directory = tmp_path / "flags"
    ran = dict(SequentialExecutor(cache_at(redis_url, directory)).execute(graph()))
    assert ran[Task("all")] == 380
    for path in directory.iterdir():
        path.unlink()

    assert list(SequentialExecutor(cache_at(redis_url, directory)).execute(graph())) == []


def test_every_key_has_a_lifetime(redis_url: str, tmp_path: Path) -> None:
    cache_at(redis_url, tmp_path).store(desc(), is_error=False, result=42)
    with connect(redis_url) as connection:
        keys = list(connection.scan_iter())
        assert keys
        assert all(connection.ttl(key) > 0 for key in keys)


def test_a_large_record_stays_in_its_file_alone(redis_url: str, tmp_path: Path) -> None:
    cache = cache_at(redis_url, tmp_path)
    cache.store(desc(), is_error=False, result=bytes(LARGEST_COPY_BYTES))
    assert cache.get_record(desc()).type is CacheRecordType.COMPUTED
    flag_of(cache).unlink()

    assert cache.get_record(desc()).type is CacheRecordType.NEEDS_COMPUTE


def test_without_a_server_the_files_go_on_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OVERNIGHT_CONNECT_SECONDS", "0.1")
    caplog.set_level(logging.WARNING)
    cache = RedisTaskCache(f"unix://{tmp_path}/nobody.sock", str(tmp_path))
    cache.store(desc("a"), is_error=False, result=1)
    cache.store(desc("b"), is_error=False, result=2)

    assert cache.get_record(desc("b")).result == 2
    assert len([record for record in caplog.records if "copies of flags" in record.message]) == 1


def test_a_directory_that_cannot_be_written_leaves_the_record_in_redis(redis_url: str, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    cache = cache_at(redis_url, blocked)
    cache.store(desc(), is_error=False, result=42)

    assert cache.get_record(desc()).result == 42
