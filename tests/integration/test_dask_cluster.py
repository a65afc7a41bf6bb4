"""Clusters made from the command line's options (BEHAVIOUR L4, L6, DK5)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from distributed import Client

from overnight.cli_tools import TaskGraphCli
from overnight.dask_cluster import make_client
from overnight.dask_executor import DaskExecutor
from overnight.errors import Unreachable
from overnight.graph import Task, TaskGraph
from tests.support import tasks
from tests.support.dask_clusters import shared_cluster


def test_a_local_cluster_has_so_many_workers_of_one_thread_and_runs_a_graph(tmp_path: Path) -> None:
    """L4, L6, DK5."""
    graph = TaskGraph()
    first = graph.create_task("first", tasks.give, args=["x"])
    graph.create_task("second", tasks.join, args=[first, "y"])
    executor = TaskGraphCli.create_executor(executor="dask", jobs=2, task_log_dir=str(tmp_path / "logs"))
    assert isinstance(executor, DaskExecutor)
    with executor:
        assert sorted(executor._client.nthreads().values()) == [1, 1]
        assert dict(executor.execute(graph))[Task("second")] == "x+y"
    assert executor._client.status == "closed"


def test_an_adaptive_cluster_begins_without_workers_and_grows(tmp_path: Path) -> None:
    """L6."""
    file = tmp_path / "cluster.yaml"
    file.write_text("type: local\nadapt_params: {minimum: 0, maximum: 1}\n")
    graph = TaskGraph()
    graph.create_task("only", tasks.give, args=[1])
    with DaskExecutor(make_client(config_file=str(file)), task_log_dir=str(tmp_path / "logs")) as executor:
        assert list(executor.execute(graph)) == [(Task("only"), 1)]


def test_closing_leaves_a_cluster_alone_that_was_given_by_its_address(tmp_path: Path) -> None:
    """L6: it is somebody else's."""
    cluster = shared_cluster(processes=False)
    file = tmp_path / "cluster.yaml"
    file.write_text(f"type: manual\nparams: {{address: '{cluster.scheduler_address}'}}\n")
    with DaskExecutor(make_client(config_file=str(file)), task_log_dir=str(tmp_path / "logs")):
        pass
    with Client(cluster, set_as_default=False) as client:
        assert len(client.nthreads()) == 2


def test_an_address_where_nothing_listens_is_unreachable(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("type: manual\nparams: {address: 'tcp://127.0.0.1:9', timeout: 0.5}\n")
    with pytest.raises(Unreachable, match="manual Dask cluster cannot be"):
        make_client(config_file=str(file))


_INTERRUPTED = """
import sys, time
from overnight.dask_cluster import make_client
from overnight.dask_executor import DaskExecutor
from overnight.graph import TaskGraph

def main():
    graph = TaskGraph()
    graph.create_task("quick", int, args=[])
    for number in range(4):
        graph.create_task(f"slow {number}", time.sleep, args=[600])
    with DaskExecutor(make_client(workers=2), task_log_dir=sys.argv[1]) as executor:
        try:
            for task, _ in executor.execute(graph):
                print(task.task_id, flush=True)
        except KeyboardInterrupt:
            print("interrupted", flush=True)

if __name__ == "__main__":
    main()
"""


def test_interrupting_all_processes_of_a_terminal_prints_no_traceback_of_a_worker(tmp_path: Path) -> None:
    """B7, R13: as Ctrl-C does."""
    program = tmp_path / "program.py"
    program.write_text(_INTERRUPTED)
    with subprocess.Popen(
        [sys.executable, str(program), str(tmp_path / "logs")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "quick\n"
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out == "interrupted\n"
    assert "Traceback" not in err
