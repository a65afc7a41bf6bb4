"""Large results on the process pool: written once, passed on by descriptor, never carried by the driver (B15, Y2)."""

from __future__ import annotations

import os
import pickle
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overnight import pool_values
from overnight.graph import TaskGraph
from overnight.invoke import Outcome
from overnight.nameless_files import content, finished, new_file, write_whole
from overnight.parcels import open_parcel, pack_parcel
from overnight.pool_frames import FrameReader
from overnight.pool_process import PoolProcess
from overnight.process_pool_executor import ProcessPoolTaskExecutor
from tests.integration.test_process_pool import overwrite_everything

MEGABYTE = 1_000_000


@pytest.fixture(params=[False, True], ids=["kept", "forked"])
def pool(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ProcessPoolTaskExecutor]:
    logs = str(tmp_path / "logs")
    with ProcessPoolTaskExecutor(max_workers=2, task_log_dir=logs, fork_tasks=request.param) as executor:
        yield executor


def run(executor: ProcessPoolTaskExecutor, graph: TaskGraph) -> dict[str, Any]:
    return {task.task_id: result for task, result in executor.execute(graph)}


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Block:
    """A buffer that is pickled as arrays are: apart, where the pickler can take it."""

    def __init__(self, data: Any) -> None:
        self.view = memoryview(data)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Block, (pickle.PickleBuffer(self.view),)


def test_the_driver_neither_takes_in_nor_sends_on_the_bytes_of_large_results(
    pool: ProcessPoolTaskExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    sent: list[int] = []
    receive, flush = FrameReader.receive, PoolProcess.flush

    def counted(reader: FrameReader) -> Any:
        frames = receive(reader)
        taken.extend(len(frame.body) for frame in frames or ())
        return frames

    def observed(process: PoolProcess) -> bool:
        sent.extend(len(piece) for piece in process.outbox)
        return flush(process)

    monkeypatch.setattr(FrameReader, "receive", counted)
    monkeypatch.setattr(PoolProcess, "flush", observed)
    graph = TaskGraph()
    parts = [graph.create_task(f"part-{number}", bytes, args=[20 * MEGABYTE]) for number in range(2)]
    for number in range(4):
        graph.create_task(f"user-{number}", lambda a, b: len(a) + len(b), args=parts)
    results = run(pool, graph)
    assert [results[f"user-{number}"] for number in range(4)] == [40 * MEGABYTE] * 4
    assert taken
    assert sum(taken) < MEGABYTE
    assert sum(sent) < MEGABYTE


def test_a_value_that_nobody_can_change_is_loaded_once_in_a_process(tmp_path: Path) -> None:
    graph = TaskGraph()
    large = graph.create_task("large", bytes, args=[MEGABYTE])
    for number in range(3):
        graph.create_task(f"user-{number}", id, args=[large])
    with ProcessPoolTaskExecutor(max_workers=1, task_log_dir=str(tmp_path)) as pool:
        results = run(pool, graph)
    # An address is not used again while its object lives.
    assert len({results[f"user-{number}"] for number in range(3)}) == 1


def test_no_task_sees_what_another_did_to_a_large_value(pool: ProcessPoolTaskExecutor) -> None:
    def spoil(values: list[int], block: Block) -> tuple[int, int]:
        seen = (values[0], block.view[0])
        values[0] = block.view[0] = 99
        return seen

    graph = TaskGraph()
    values = graph.create_task("values", lambda: [7] * 100_000, args=[])
    block = graph.create_task("block", lambda: Block(bytearray(b"\x07") * MEGABYTE), args=[])
    for number in range(6):
        graph.create_task(f"user-{number}", spoil, args=[values, block])
    results = run(pool, graph)
    assert [results[f"user-{number}"] for number in range(6)] == [(7, 7)] * 6


def test_a_task_that_writes_over_what_it_finds_open_changes_no_large_value(pool: ProcessPoolTaskExecutor) -> None:
    def rogue(value: list[int]) -> int:
        overwrite_everything()
        return sum(value)

    graph = TaskGraph()
    large = graph.create_task("large", lambda: [1] * 200_000, args=[])
    for number in range(4):
        graph.create_task(f"user-{number}", rogue, args=[large])
    results = run(pool, graph)
    assert [results[f"user-{number}"] for number in range(4)] == [200_000] * 4


@pytest.mark.parametrize(("most_files", "most_bytes"), [(4, 1 << 30), (200, MEGABYTE)], ids=["files", "bytes"])
def test_neither_descriptors_nor_memory_grow_with_the_number_of_large_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_files: int, most_bytes: int
) -> None:
    monkeypatch.setattr(pool_values, "MOST_FILES", most_files)
    monkeypatch.setattr(pool_values, "MOST_BYTES", most_bytes)
    graph = TaskGraph()
    parts = [graph.create_task(f"part-{n}", lambda n: bytes([n]) * 300_000, args=[n]) for n in range(40)]
    blocks = [graph.create_task(f"block-{n}", lambda n: Block(bytearray([n]) * 100_000), args=[n]) for n in range(10)]
    graph.create_task("firsts", lambda parts: [part[0] for part in parts], args=[parts])
    graph.create_task("lasts", lambda blocks: [block.view[-1] for block in blocks], args=[blocks])
    with ProcessPoolTaskExecutor(max_workers=2, task_log_dir=str(tmp_path)) as pool:
        run(pool, TaskGraph())
        before, most = open_descriptors(), 0
        results = {}
        for task, result in pool.execute(graph):
            # Those of the pool, and for each large result that is held.
            most = max(most, open_descriptors())
            results[task.task_id] = None if task.task_id.startswith("block") else result
        results.pop("part-0")
        del result
    assert results["firsts"] == list(range(40))
    assert results["lasts"] == list(range(10))
    assert most - before <= 2 * 8 + most_files + 8
    assert open_descriptors() <= before


def test_more_large_results_than_a_message_carries_descriptors_go_into_one_task(tmp_path: Path) -> None:
    graph = TaskGraph()
    parts = [graph.create_task(f"part-{number}", bytes, args=[100_000]) for number in range(400)]
    graph.create_task("sum", lambda parts: sum(map(len, parts)), args=[parts])
    with ProcessPoolTaskExecutor(max_workers=2, task_log_dir=str(tmp_path)) as pool:
        assert run(pool, graph)["sum"] == 400 * 100_000


def without_memory_files() -> None:
    del os.memfd_create


def without_any_file() -> None:
    """Let no file of this process grow."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


@pytest.mark.parametrize("hinder", [without_memory_files, without_any_file])
def test_a_system_without_such_files_passes_large_results_too(tmp_path: Path, hinder: Any) -> None:
    graph = TaskGraph()
    first = graph.create_task("first", hinder, args=[])
    large = graph.create_task("large", lambda _: bytes(MEGABYTE), args=[first])
    graph.create_task("size", len, args=[large])
    with ProcessPoolTaskExecutor(max_workers=1, task_log_dir=str(tmp_path)) as pool:
        results = run(pool, graph)
    assert len(results["large"]) == results["size"] == MEGABYTE


@pytest.mark.parametrize("in_memory", [True, False], ids=["memory", "disk"])
def test_what_is_in_a_finished_file_stays_as_it_is(monkeypatch: pytest.MonkeyPatch, in_memory: bool) -> None:
    if not in_memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    file = new_file()
    write_whole(file, b"abc" * 10_000, 0)
    file = finished(file)
    try:
        with pytest.raises(OSError, match="Operation not permitted" if in_memory else "Bad file descriptor"):
            os.pwrite(file, b"x", 0)
        view = content(file, 0, 30_000)
        view[0] = 0
        assert bytes(content(file, 0, 3)) == b"abc"
        with pytest.raises(EOFError):
            content(file, 0, 30_001)
    finally:
        os.close(file)


def test_a_parcel_holds_what_was_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (1, bytes(70_000), [os.urandom(50_000) for _ in range(5)], {"a": "b" * 100_000}):
        parcel = pack_parcel(Outcome(True, value, 1.0, 2.0), "t")
        assert (parcel.descriptor is None) == (value == 1)
        if parcel.descriptor is not None and parcel.layout is not None:
            assert open_parcel(parcel.descriptor, parcel.layout) == Outcome(True, value, 1.0, 2.0)
            os.close(parcel.descriptor)
