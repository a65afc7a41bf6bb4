"""When a client says that no worker takes its tasks (QX2, QX10)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overnight.store.memory import MemoryStore
from overnight.store.records import WorkerRecord
from overnight.wire import PROTOCOL
from overnight.worker_watch import WorkerWatch

WORKER = WorkerRecord("w", "host", 1, ["default"], "3.11.7", PROTOCOL, started_at=0.0)


def told(*workers: WorkerRecord, monkeypatch: pytest.MonkeyPatch, scheduler: bool = True) -> str | None:
    """Return what a client of a Python 3.11 run says after a long wait beside these workers."""
    store = MemoryStore(now=lambda: 0.0)
    if scheduler:
        store.take_epoch("s", "host:1", 60.0)
    for worker in workers:
        store.register(worker, 60.0)
    watch = WorkerWatch(store, "default", "3.11")
    monkeypatch.setattr("time.monotonic", lambda: 1e9)
    return watch.look()


def test_a_worker_of_the_same_minor_version_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """QX10: the minor version counts, not the patch level."""
    assert told(WORKER, monkeypatch=monkeypatch) is None


def test_without_a_worker_the_command_that_starts_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """QX2."""
    sentence = told(monkeypatch=monkeypatch)
    assert sentence is not None
    assert "overnight worker -q default" in sentence


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
