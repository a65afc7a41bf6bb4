"""The scheduler's metrics: off unless asked for, on the loopback unless told otherwise, and true."""

from __future__ import annotations

import json
import re
import socket
import struct
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from overnight.config import Endpoint
from overnight.core.states import TaskState
from overnight.service.metrics import MOST_FUNCTIONS, OTHER_FUNCTIONS, Metrics
from overnight.service.metrics_server import MOST_CONNECTIONS, observing
from overnight.state_dir import wait_until
from tests.support.command import ROOT, Desk, desk, finished
from tests.support.servers import free_port, running_server, server_binary

SECONDS = 60.0
GRAPHS = "tests.support.graphs"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def place(tmp_path: Path, short_directory: Path) -> Iterator[Desk]:
    """A desk at a server of its own."""
    with running_server(server_binary("valkey"), short_directory / tmp_path.name) as url, desk(tmp_path / "d") as given:
        given.environ["OVERNIGHT_REDIS_URL"] = url
        yield given


@contextmanager
def started(place: Desk, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A process that is ended with the context."""
    with ExitStack() as stack:
        process = place.start(*words)
        stack.callback(finished, process)
        stack.callback(process.terminate)
        yield process


def said(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    """The first line on standard error that fits."""
    assert process.stderr is not None
    for line in process.stderr:
        found = re.search(pattern, line)
        if found:
            return found
    raise AssertionError(f"it never said {pattern}")


def scraped(url: str) -> Samples:
    """What Prometheus would read."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}


def test_metrics_tell_what_a_run_did(place: Desk) -> None:
    with started(place, "scheduler", "--metrics", "0") as scheduler, started(place, "worker", "-j", "2"):
        url = said(scheduler, r"metrics are served at (http://127\.0\.0\.1:\d+/metrics)")[1]
        assert place.run("run", f"{GRAPHS}:layers", "-p", "n=20").status == 0
        assert place.run("run", f"{GRAPHS}:raises").status == 1
        waiting = ("overnight_workers", (("doing", "waiting"), ("queue", "default")))
        depth = ("overnight_queue_depth", (("queue", "default"),))

        def is_settled() -> bool:
            found = scraped(url)
            return (found.get(waiting), found.get(depth)) == (2, 0)

        assert wait_until(is_settled, SECONDS)
        found = scraped(url)
    assert found["overnight_dispatching", ()] == 1
    assert found["overnight_epoch", ()] == 1
    assert found["overnight_ended_runs_total", (("phase", "succeeded"),)] == 1
    assert found["overnight_ended_runs_total", (("phase", "failed"),)] == 1
    counted = {dict(labels)["outcome"]: 0.0 for name, labels in found if name == "overnight_task_seconds_count"}
    for (name, labels), value in found.items():
        if name == "overnight_task_seconds_count":
            counted[dict(labels)["outcome"]] += value
    assert counted["failed"] == 1
    assert counted["ok"] >= 20
    assert found["overnight_batch_tasks_sum", (("queue", "default"),)] >= 21
    assert found["overnight_dispatch_latency_seconds_count", (("queue", "default"),)] >= 2
    assert found["overnight_redis_seconds_count", ()] >= 1
    assert [labels for name, labels in found if name == "overnight_worker_heard_seconds"] == [
        (("host", socket.gethostname()),)
    ]
    assert {dict(labels)["state"] for name, labels in found if name == "overnight_tasks"} <= {
        state.name.lower() for state in TaskState
    }
    check_dashboard({name for name, _ in found})


def check_dashboard(known: set[str]) -> None:
    """Every metric that the sample dashboard asks for is one that is served."""
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "overnight.json").read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    named = {name for text in asked for name in re.findall(r"overnight_\w+", text)}
    assert len(named) > 10
    assert named - known - {"overnight_lost_batches_total"} <= {"overnight_tasks"}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_workers_are_told_as_they_are_though_nothing_runs(place: Desk) -> None:
    waiting = ("overnight_workers", (("doing", "waiting"), ("queue", "default")))
    with started(place, "scheduler", "--metrics", "0") as scheduler:
        url = said(scheduler, r"metrics are served at (http://\S+)")[1]
        with started(place, "worker"):
            assert wait_until(lambda: scraped(url).get(waiting) == 1, SECONDS)
        assert wait_until(lambda: waiting not in scraped(url), SECONDS)


def test_a_scheduler_that_stands_by_says_so_and_nothing_of_the_work(place: Desk) -> None:
    with started(place, "scheduler") as first:
        said(first, "took epoch")
        with started(place, "scheduler", "--metrics", "127.0.0.1:0") as second:
            url = said(second, r"metrics are served at (http://\S+)")[1]
            said(second, "standing by")
            found = scraped(url)
            assert found["overnight_dispatching", ()] == 0
            assert [name for name, _ in found if name in ("overnight_tasks", "overnight_workers")] == []


def test_nothing_listens_unless_it_was_asked_for(place: Desk) -> None:
    with started(place, "scheduler") as scheduler:
        said(scheduler, "took epoch")
        connections = psutil.Process(scheduler.pid).net_connections()
        assert [one for one in connections if one.status == psutil.CONN_LISTEN] == []


def test_a_place_that_is_taken_keeps_no_scheduler_from_its_work(place: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        place.environ["OVERNIGHT_METRICS"] = str(port)
        with started(place, "scheduler") as scheduler:
            said(scheduler, rf"metrics are not served at 127\.0\.0\.1:{port}: Address already in use")
            said(scheduler, "took epoch")


@pytest.mark.parametrize(("typed", "found"), [("no", "'no'"), ("0.0.0.0:", "'0.0.0.0:'"), ("1:70000", "'1:70000'")])
def test_a_place_that_is_none_is_refused(place: Desk, typed: str, found: str) -> None:
    told = place.run("scheduler", "--metrics", typed)
    assert told.status == 2
    assert "expected a port, as 9464, or host and port" in told.sentence
    assert found in told.sentence


def test_without_the_library_the_extra_is_named(place: Desk, tmp_path: Path) -> None:
    """P3."""
    (tmp_path / "prometheus_client.py").write_text("raise ModuleNotFoundError('no', name='prometheus_client')\n")
    place.environ["PYTHONPATH"] = f"{tmp_path}:{ROOT}"
    told = place.run("scheduler", "--metrics", "0")
    assert told.status == 2
    assert "pip install 'overnight[metrics]'" in told.err


def test_a_graph_of_many_functions_makes_no_label_for_each() -> None:
    metrics = Metrics()
    named = {metrics._named(f"function {number}") for number in range(2 * MOST_FUNCTIONS)}
    assert len(named) == MOST_FUNCTIONS + 1
    assert OTHER_FUNCTIONS in named


def test_peers_that_say_nothing_cost_a_bounded_number_of_threads_and_are_let_go() -> None:
    before = threading.active_count()
    with served() as port, ExitStack() as stack:
        peers = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=SECONDS)) for _ in range(200)
        ]
        for peer in peers:
            with suppress(ConnectionError):  # one that there is no room for is closed
                peer.sendall(b"GET /metrics HTTP/1.0\r\n")
        assert threading.active_count() <= before + 1 + MOST_CONNECTIONS
        for peer in peers:
            with suppress(ConnectionError):
                assert peer.recv(1) == b""
        assert scraped(f"http://127.0.0.1:{port}/metrics")


@pytest.mark.parametrize(
    "said", [b"\0\xff\r\n\r\n", b"GET " + b"x" * 100_000, b"GET / HTTP/1.0\r\n" + b"A: b\r\n" * 5000]
)
def test_a_peer_that_speaks_rubbish_and_hangs_up_is_not_told_of(said: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with served() as port:
        with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with suppress(ConnectionError):
                peer.sendall(said)
        assert scraped(f"http://127.0.0.1:{port}/metrics")
    assert capfd.readouterr().err == ""


@contextmanager
def served() -> Iterator[int]:
    """The port at which metrics are served in this process."""
    port = free_port()
    with observing(Endpoint("127.0.0.1", port)):
        yield port
