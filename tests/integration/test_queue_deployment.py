"""Where a QueueExecutor works: a private server or a given one, local workers or those elsewhere (BEHAVIOUR QX1)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from overnight.cache import NO_TASK_CACHE, FileTaskCache
from overnight.config import Settings, read_settings
from overnight.deployment import Deployment, usable_cpus
from overnight.errors import UsageError
from overnight.graph import TaskGraph
from overnight.queue_executor import QueueExecutor
from tests.support import tasks
from tests.support.servers import connect


def pids(count: int) -> TaskGraph:
    graph = TaskGraph()
    for number in range(count):
        graph.create_task(f"t{number}", tasks.own_pid, args=[])
    return graph


def deployment_of(executor: QueueExecutor) -> Deployment:
    assert executor._deployment is not None
    return executor._deployment


def test_without_a_url_it_starts_a_server_of_its_own_and_a_worker_for_each_cpu(
    short_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QX1, QX11, B2: when the first task is to run, and no sooner."""
    monkeypatch.delenv("OVERNIGHT_REDIS_URL", raising=False)
    state_dir = short_directory / "own-deployment"
    with QueueExecutor(state_dir=state_dir, task_log_dir=str(tmp_path)) as executor:
        assert list(executor.execute(TaskGraph())) == []
        assert not state_dir.exists()
        results = [result for _, result in executor.execute(pids(3))]
        assert len(results) == 3
        assert os.getpid() not in results
        assert deployment_of(executor).workers == usable_cpus()
        assert str(state_dir) in deployment_of(executor).url


def test_with_a_url_local_workers_are_those_that_are_asked_for(
    redis_url: str, short_directory: Path, tmp_path: Path
) -> None:
    """QX1, O5: they serve the queue of that name."""
    places: dict[str, Any] = {"state_dir": short_directory / "beside", "task_log_dir": str(tmp_path)}
    with QueueExecutor(redis_url, NO_TASK_CACHE, workers=1, queue="big", **places) as executor:
        assert len(list(executor.execute(pids(2)))) == 2
        assert deployment_of(executor).workers == 1
        assert deployment_of(executor).url == redis_url
    settings: Settings = read_settings().with_values(redis_url=redis_url, state_dir=short_directory / "beside")
    with Deployment(settings) as elsewhere:
        assert elsewhere.workers == 0


def test_takes_url_and_cache_by_position_and_no_negative_number_of_workers(tmp_path: Path) -> None:
    """QX1."""
    cache = FileTaskCache(str(tmp_path))
    assert QueueExecutor("redis://nowhere", cache).task_cache is cache
    assert QueueExecutor().task_cache is NO_TASK_CACHE
    with pytest.raises(UsageError, match="workers must be 0 or more"):
        QueueExecutor(workers=-1)


@pytest.mark.parametrize("queue", ["", "  "])
def test_a_queue_without_a_name_is_refused_before_anything_starts(tmp_path: Path, queue: str) -> None:
    """No worker can serve it, so the run would wait for ever."""
    with pytest.raises(UsageError, match="A queue needs a name"):
        Deployment(Settings(state_dir=tmp_path / "state"), workers=1, queue=queue)
    assert not (tmp_path / "state").exists()


def test_a_server_that_refuses_changes_is_told_once_in_a_while(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """P13: whoever follows a run only reads, and would wait in silence."""
    monkeypatch.setattr("overnight.deployment.CHECK_SECONDS", -1.0)
    with Deployment(Settings(redis_url=redis_url), workers=0) as deployment, connect(redis_url) as client:
        deployment.check()
        assert not caplog.records
        client.config_set("maxmemory", 1)
        try:
            deployment.check()
            deployment.check()
        finally:
            client.config_set("maxmemory", 0)
    full = f"The memory of the server {redis_url} is full and it refuses changes: raise its maxmemory."
    assert [record.getMessage() for record in caplog.records] == [f"{full} The run waits for that."]
