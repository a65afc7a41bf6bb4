"""When the flags of a run in process are made to survive a power cut (C6, C7; decision 15)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from overnight import flag_store
from overnight.cache import FileTaskCache, TaskCache
from overnight.flag_writing import sync_flags as really_sync
from overnight.naming import flag_name
from overnight.sequential_executor import SequentialExecutor
from overnight.task import Task
from tests.support import graphs

TASKS = 200


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Collect the names of each sync; the syncs themselves are real."""
    groups: list[list[str]] = []

    def sync_flags(directory: Path | str, names: Sequence[str]) -> OSError | None:
        assert set(names) <= set(os.listdir(directory))  # noqa: PTH208 - names are compared
        groups.append(list(names))
        return really_sync(directory, names)

    monkeypatch.setattr(flag_store, "sync_flags", sync_flags)
    return groups


def executor(cache: TaskCache, directory: Path) -> SequentialExecutor:
    return SequentialExecutor(cache, task_log_dir=str(directory / "logs"))


def test_a_run_syncs_its_first_flag_at_once_and_the_rest_together_before_it_returns(
    synced: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flag_store, "SYNC_SECONDS", 3600.0)
    run = executor(FileTaskCache(str(tmp_path / "status")), tmp_path).execute(graphs.noops(n=TASKS))
    first, _ = next(run)
    assert synced == [[flag_name(first.task_id)]]
    list(run)
    assert [len(group) for group in synced] == [1, TASKS - 1]
    assert {name for group in synced for name in group} == {path.name for path in (tmp_path / "status").iterdir()}


def test_a_flag_is_synced_at_once_whenever_a_sync_is_due(
    synced: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flag_store, "SYNC_SECONDS", 0.0)
    monkeypatch.setattr(flag_store, "SYNC_SHARE", float("inf"))
    list(executor(FileTaskCache(str(tmp_path / "status")), tmp_path).execute(graphs.noops(n=5)))
    assert [len(group) for group in synced] == [1] * 5


def test_an_abandoned_run_syncs_what_it_recorded(synced: list[list[str]], tmp_path: Path) -> None:
    run = executor(FileTaskCache(str(tmp_path / "status")), tmp_path).execute(graphs.noops(n=TASKS))
    ids = [next(run)[0].task_id for _ in range(5)]
    run.close()
    assert sorted(name for group in synced for name in group) == sorted(map(flag_name, ids))


def test_a_sync_that_fails_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """C7."""
    cache = FileTaskCache(str(tmp_path / "status"))
    cache.cache(Task("first"), is_error=False, result=1)
    monkeypatch.setattr(flag_store, "SYNC_SECONDS", 3600.0)
    cache.sync()
    cache.cache(Task("a"), is_error=False, result=1)
    cache.sync()
    cache.cache(Task("b"), is_error=False, result=1)
    for path in (tmp_path / "status").iterdir():
        path.unlink()
    (tmp_path / "status").rmdir()
    (tmp_path / "status").write_text("")
    cache.sync()
    assert len(caplog.records) == 1
    assert "may not survive a power cut" in caplog.text


def test_a_cache_whose_sync_raises_fails_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """C3: what else a foreign cache has is its own affair."""

    class Odd(FileTaskCache):
        def sync(self) -> None:
            raise LookupError("odd")

    made = executor(Odd(str(tmp_path / "status")), tmp_path)
    assert len(list(made.execute(graphs.noops(n=3)))) == 3
    assert made.summary is not None
    assert made.summary.ok
    assert "may not survive a power cut" in caplog.text
