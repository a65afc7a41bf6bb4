"""When a client says that no worker takes its tasks (QX2, QX10)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import pytest

from overnight.config import Settings
from overnight.core.events import TaskRules
from overnight.early_ends import LEAST_IN_A_ROW, EarlyEnds
from overnight.embedded import EmbeddedServer
from overnight.fleet_files import fleet_files
from overnight.keyring import Keyring
from overnight.messages import SpecChunk
from overnight.store.memory import MemoryStore
from overnight.store.records import Epoch, WorkerRecord
from overnight.structure import Structure
from overnight.wire import PROTOCOL
from overnight.worker_watch import LOOK_SECONDS, NEXT_WARNING_SECONDS, GraphQueues, StoredQueues, WorkerWatch
from tests.support.graphs import sleeps
from tests.support.stores import run_record

SETTINGS = Settings().with_values(redis_url="redis://me:pass@db:6379/0", state_dir="a b")
WORKER = WorkerRecord("w", "host", 1, ["default"], "3.11.7", PROTOCOL, started_at=0.0)


class AllWait:
    """Queues on each of which a task waits."""

    def __init__(self, *queues: str) -> None:
        self.queues = queues

    def waiting(self, is_unserved: Callable[[str], bool]) -> Collection[str]:
        return [queue for queue in self.queues if is_unserved(queue)]


def told(
    *workers: WorkerRecord,
    monkeypatch: pytest.MonkeyPatch,
    scheduler: bool = True,
    note: str = "",
    settings: Settings = SETTINGS,
) -> str | None:
    """Return what a client of a Python 3.11 run says after a long wait beside these workers."""
    store = MemoryStore(now=lambda: 0.0)
    store.open_run(run_record("r1"), b"")
    if scheduler:
        epoch = store.take_epoch("s", "host:1", 60.0)
        assert isinstance(epoch, Epoch)
        store.note(epoch, "r1", note)
    for worker in workers:
        store.register(worker, 60.0)
    watch = WorkerWatch(store, "r1", AllWait("default"), settings, "3.11")
    with monkeypatch.context() as patched:
        patched.setattr("time.monotonic", lambda: 1e9)
        return watch.look()


def test_a_worker_of_the_same_minor_version_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """QX10: the minor version counts, not the patch level."""
    assert told(WORKER, monkeypatch=monkeypatch) is None


def test_without_a_worker_the_command_that_starts_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """QX2."""
    sentence = told(monkeypatch=monkeypatch)
    assert sentence is not None
    assert "overnight worker -q default -u 'redis://me:***@db:6379/0' --state-dir 'a b'" in sentence


def test_a_local_worker_that_does_not_last_is_told_in_place_of_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QX13: the one that people would start in its place would do the same."""
    settings = Settings().with_values(state_dir=str(tmp_path))
    files = fleet_files(tmp_path, None)
    files.prepare()
    for slot in ("worker-default-1", "scheduler"):
        (files.slot_lock(slot)).touch()
        EarlyEnds(slot, LEAST_IN_A_ROW, 0.0, "exit status 1", "/a/log", "E: no\n").write_to(files.ends_note(slot))
    for where in (settings, replace(settings, redis_url=EmbeddedServer(tmp_path).url)):
        sentence = told(monkeypatch=monkeypatch, settings=where) or ""
        assert sentence.startswith(
            "No worker serves queue default; the run waits: worker-default-1 ended as soon as it "
        )
        assert sentence.endswith("with exit status 1; its log /a/log ends with: E: no\\x0a.")
        assert "scheduler ended" in (told(monkeypatch=monkeypatch, settings=where, scheduler=False) or "")
    elsewhere = replace(settings, redis_url="redis://db:6379/0")
    assert "overnight worker -q default" in (told(monkeypatch=monkeypatch, settings=elsewhere) or "")
    assert told(WORKER, monkeypatch=monkeypatch, settings=settings) is None


def test_a_worker_of_another_queue_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """QX2."""
    assert "No worker serves" in (told(replace(WORKER, queues=["other"]), monkeypatch=monkeypatch) or "")


@pytest.mark.parametrize("other", [replace(WORKER, python="3.12.1"), replace(WORKER, protocol=PROTOCOL + 1)])
def test_workers_of_another_python_or_protocol_are_named_with_both_sides(
    other: WorkerRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QX10."""
    sentence = told(other, monkeypatch=monkeypatch) or ""
    assert "3.11" in sentence
    assert other.python in sentence


def test_without_a_scheduler_the_command_that_starts_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """QX2: workers alone dispatch nothing."""
    assert "overnight scheduler" in (told(WORKER, monkeypatch=monkeypatch, scheduler=False) or "")


def test_what_keeps_every_worker_from_the_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """P17: a worker that cannot open the run says so with its heartbeat; one that can is enough."""
    refusing = replace(WORKER, note="does not fit run r1: no key")
    assert "does not fit run r1: no key" in (told(refusing, monkeypatch=monkeypatch) or "")
    assert told(refusing, replace(WORKER, instance="w2"), monkeypatch=monkeypatch) is None
    assert told(replace(WORKER, note="does not fit run r2: no key"), monkeypatch=monkeypatch) is None


def test_what_the_scheduler_says_of_the_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(WORKER, monkeypatch=monkeypatch, note="cannot read it") == "cannot read it"


def test_what_the_scheduler_says_is_told_at_once_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    store = MemoryStore(now=lambda: 0.0)
    store.open_run(run_record("r1"), b"")
    watch = WorkerWatch(store, "r1", AllWait("default"), SETTINGS)
    assert [watch.look("cannot read it") for _ in range(2)] == ["cannot read it", None]
    now += NEXT_WARNING_SECONDS
    assert watch.look("cannot read it") is None
    assert watch.look("still not") == "still not"
    now += NEXT_WARNING_SECONDS
    assert "No scheduler" in (watch.look("") or "")


def test_each_queue_without_a_worker_is_told_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """QX2: a task's own queue as well as the run's; what is served is not told."""
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    store = MemoryStore(now=lambda: 0.0)
    store.open_run(run_record("r1"), b"")
    store.take_epoch("s", "host:1", 1e6)
    store.register(WORKER, 1e6)
    queues = AllWait("default", "gpu")
    watch = WorkerWatch(store, "r1", queues, SETTINGS, "3.11")
    now += LOOK_SECONDS
    assert watch.look() is None
    now += LOOK_SECONDS
    assert "No worker serves queue gpu; the run waits. Start one with: overnight worker -q gpu" in (watch.look() or "")
    queues.queues = ("default", "gpu", "disk")
    now += 2 * LOOK_SECONDS
    assert "queue disk;" in (watch.look() or "")
    now += LOOK_SECONDS
    assert watch.look() is None
    now += NEXT_WARNING_SECONDS
    again = watch.look() or ""
    assert "queue gpu;" in again
    assert "queue disk;" in again


def test_a_queue_waits_for_a_worker_while_a_task_of_it_waits_for_nothing_else() -> None:
    gpu = TaskRules(queue="gpu")
    chunk = SpecChunk(0, ["a", "b", "c"], ["f"], [0] * 3, [[], [0], []], {1: gpu}).sealed("r1", Keyring())
    structure = Structure("r1", [chunk], Keyring())

    def waiting(states: str) -> set[str]:
        return set(StoredQueues("default", states.encode, lambda _number: structure).waiting(lambda _queue: True))

    assert waiting("ppp") == {"default"}
    assert waiting("xpx") == set()
    assert waiting("dpx") == {"gpu"}
    assert waiting("cqp") == {"default", "gpu"}


def test_queues_of_a_graph_are_those_of_its_ready_tasks() -> None:
    graph = sleeps(seconds=0, n=1)
    first = graph.tasks[0]
    graph.create_task("then", print, args=[first], queue="gpu")
    queues = GraphQueues(graph, "default")
    assert set(queues.waiting(lambda _queue: True)) == {"default"}
    graph.process_completed_tasks([(first, None)])
    assert set(queues.waiting(lambda _queue: True)) == {"gpu"}
    assert not queues.waiting(lambda queue: queue != "gpu")
