"""When a client says that no worker takes its tasks (QX2, QX10)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from overnight.config import Settings
from overnight.early_ends import LEAST_IN_A_ROW, EarlyEnds
from overnight.embedded import EmbeddedServer
from overnight.fleet_files import fleet_files
from overnight.store.memory import MemoryStore
from overnight.store.records import Epoch, WorkerRecord
from overnight.wire import PROTOCOL
from overnight.worker_watch import NEXT_WARNING_SECONDS, WorkerWatch
from tests.support.stores import run_record

SETTINGS = Settings().with_values(redis_url="redis://me:pass@db:6379/0", state_dir="a b")
WORKER = WorkerRecord("w", "host", 1, ["default"], "3.11.7", PROTOCOL, started_at=0.0)


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
    watch = WorkerWatch(store, "r1", "default", settings, "3.11")
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
    watch = WorkerWatch(store, "r1", "default", SETTINGS)
    assert [watch.look("cannot read it") for _ in range(2)] == ["cannot read it", None]
    now += NEXT_WARNING_SECONDS
    assert watch.look("cannot read it") is None
    assert watch.look("still not") == "still not"
    now += NEXT_WARNING_SECONDS
    assert "No scheduler" in (watch.look("") or "")
