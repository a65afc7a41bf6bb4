"""What `doctor` and `workers` tell of a deployment: each thing that would spoil a night, and what to do."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from overnight.store.records import WorkerRecord
from overnight.store.redis import RedisStore
from overnight.wire import PROTOCOL
from tests.support.command import Desk, Finished, desk, finished
from tests.support.servers import connect, running_server, server_binary

HERE = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"


@pytest.fixture(scope="module")
def url(short_directory: Path) -> Iterator[str]:
    with running_server(
        server_binary("redis"), short_directory / "doctor", appendonly="yes", maxmemory="100mb"
    ) as found:
        yield found


@pytest.fixture
def place(url: str, tmp_path: Path) -> Iterator[Desk]:
    """A desk at a server that nobody else uses now."""
    with connect(url) as client:
        client.flushall()
    with desk(tmp_path / "desk") as given:
        given.environ["OVERNIGHT_REDIS_URL"] = url
        yield given


@pytest.fixture
def at_work(place: Desk) -> Iterator[Desk]:
    """A scheduler, and two workers that call their host `node7`."""
    with ExitStack() as stack:
        for words in (("scheduler",), ("worker", "-j", "2", "-q", "default")):
            place.environ["OVERNIGHT_HOST_NAME"] = "node7"
            process = place.start(*words)
            stack.callback(finished, process)
            stack.callback(process.terminate)
        while len(place.run("workers", "--json").facts) < 2:
            pass
        yield place


def findings(told: Finished, verdict: str) -> dict[str, str]:
    """The findings of one verdict by what was looked at."""
    return {found["what"]: found["text"] for found in told.facts if found["verdict"] == verdict}


def announce(url: str, ahead: float = 0.0, **changes: object) -> None:
    """Register a worker that is what `changes` say; its clock is ahead of the server's."""
    now = time.time() + ahead
    record = WorkerRecord(
        "w" * 32, "node9", 7, ("default",), HERE, PROTOCOL, now - 180.0, overnight=version("overnight"), clock=now
    )
    with connect(url) as client:
        RedisStore(client, "overnight").register(replace(record, **changes), 60.0)  # type: ignore[arg-type]


def test_all_is_well_where_scheduler_and_workers_serve(at_work: Desk) -> None:
    told = at_work.run("doctor", "--json")
    assert told.status == 0
    fine = findings(told, "ok")
    looked_at = {"server", "persistence", "eviction", "memory", "latency", "clock", "scheduler", "workers", "disk"}
    assert looked_at - fine.keys() == set()
    assert fine["persistence"] == "append-only file, synced everysec"
    assert "MB used of 105 MB (maxmemory)" in fine["memory"]
    assert findings(told, "warning") == findings(told, "fault") == {}
    assert "overnight doctor -d DIR" in findings(told, "note")["directories"]


def test_the_workers_try_a_directory_themselves(at_work: Desk) -> None:
    (at_work.directory / "records").mkdir()
    good, bad = str(at_work.directory / "records"), str(at_work.directory / "not-mounted")
    told = at_work.run("doctor", "-d", good, "-d", bad)
    assert told.status == 4
    lines = [line for line in told.out.splitlines() if " directory: " in line and "state directory" not in line]
    assert lines[0] == f"ok       directory: {good} can be written to by the workers on node7"
    assert lines[1].startswith(f"fault    directory: {bad} cannot be written to by the workers on node7 (")
    assert lines[1].endswith("mount it there, or give the workers' user the right to write")
    assert len(lines) == 2
    assert list((at_work.directory / "records").iterdir()) == []


def test_the_last_run_is_never_one_of_doctor(at_work: Desk) -> None:
    assert at_work.run("doctor", "-d", str(at_work.directory)).status == 0
    assert "There is no run yet" in at_work.run("status", "last").err
    assert at_work.run("run", "tests.support.graphs:layers", "-p", "n=2").status == 0
    mine = at_work.run("status", "last", "--json").facts["run"]
    assert at_work.run("doctor", "-d", str(at_work.directory)).status == 0
    assert at_work.run("status", "last", "--json").facts["run"] == mine


def test_a_queue_without_a_worker_is_named_with_the_command_that_starts_one(at_work: Desk) -> None:
    told = at_work.run("doctor", "-q", "default", "-q", "gpu", "--json")
    said = findings(told, "warning")["queue"]
    assert said == "no worker serves gpu; its tasks wait. Start one: overnight worker -q gpu"


@pytest.mark.parametrize(
    ("changes", "what", "text"),
    [
        ({"ahead": 7200.0}, "clock", "worker host node9 is 7200 s ahead of the server"),
        ({"ahead": -7200.0}, "clock", "worker host node9 is 7200 s behind the server"),
        ({"overnight": "0.0.1"}, "versions", "host node9 runs overnight 0.0.1, this one "),
        ({"key": "f00d"}, "key", "a worker on node9 signs with another key than this host"),
        ({"python": "3.99.0"}, "workers", f"none has Python {HERE.rpartition('.')[0]} and protocol {PROTOCOL}"),
    ],
)
def test_a_worker_that_does_not_fit_is_told(
    place: Desk, url: str, changes: dict[str, object], what: str, text: str
) -> None:
    announce(url)
    assert what not in findings(place.run("doctor", "--json"), "warning")
    announce(url, **changes)  # type: ignore[arg-type]
    assert text in findings(place.run("doctor", "--json"), "warning")[what]


def test_a_server_without_persistence_or_room_is_told(tmp_path: Path, short_directory: Path) -> None:
    with running_server(server_binary("valkey"), short_directory / "poor") as url:
        given = Desk(tmp_path)
        given.environ["OVERNIGHT_REDIS_URL"] = url
        with connect(url) as client:
            client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 1.1))
        told = given.run("doctor")
    assert "warning  server: The server keeps no append-only file" in told.out
    assert "warning  memory: " in told.out
    assert "raise maxmemory" in told.out
    assert "memory is" not in told.out  # it is told once
    assert "persistence" not in told.out


def test_a_server_that_is_full_is_a_fault(place: Desk, url: str) -> None:
    with connect(url) as client:
        [was] = client.config_get("maxmemory").values()
        client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 0.9))
        told = place.run("doctor", "--json")
        client.config_set("maxmemory", was)
    assert told.status == 5
    assert findings(told, "fault")["memory"].endswith("refuses changes, so no run can start or go on. Raise maxmemory")
    assert "memory" not in findings(told, "warning").get("server", "")


def test_what_is_asked_for_is_looked_at_before_there_is_a_server(tmp_path: Path) -> None:
    """Local workers are this user on this host; of another queue nobody is there to be asked."""
    with desk(tmp_path / "desk") as given:
        (given.directory / "records").write_text("a file")
        words = ("-d", "new", "-d", str(given.directory), "-d", "records", "-q", "big")
        told = given.run("doctor", *words, "--json")
    directories = [found for found in told.facts if found["what"] == "directory"]
    assert [found["verdict"] for found in directories] == ["ok", "ok", "fault"]
    assert "is made by the first run" in directories[0]["text"]
    assert "records cannot be written to (Not a directory)" in directories[2]["text"]
    assert "no worker serves big now" in findings(told, "note")["queue"]
    assert told.status == 4


def test_the_list_of_workers_tells_what_each_is_and_does(at_work: Desk) -> None:
    titles, *rows = at_work.run("workers").out.splitlines()
    assert titles.split() == ["HOST", "PID", "QUEUES", "VERSIONS", "UP", "SEEN", "MEMORY", "DOING"]
    assert len(rows) == 2
    for row, fact in zip(rows, at_work.run("workers", "--json").facts, strict=True):
        assert row.split()[:3] == ["node7", str(fact["pid"]), "default"]
        assert f"{version('overnight')} on {HERE}" in row
        assert row.endswith("waiting")
        assert " ago " in row
        assert fact["overnight"] == version("overnight")


def test_an_age_is_told_by_the_workers_own_clock(place: Desk, url: str) -> None:
    """A worker whose clock is two hours ahead has not been up for minus two hours."""
    announce(url, ahead=7200.0)
    [row] = place.run("workers").out.splitlines()[1:]
    assert " 3:0" in row


def test_workers_of_a_host_in_quarantine_are_not_counted_on(place: Desk, url: str) -> None:
    """They take what nobody else serves."""
    announce(url)
    announce(url, instance="v" * 32, host="node8", queues=("default", "big"))
    with connect(url) as client:
        for task in range(3):
            RedisStore(client, "overnight").accuse("node8", "r1", task, 3600.0)
    told = place.run("workers", "--wanted", "1h", "-q", "default", "-q", "big", "--json").facts["queues"]
    assert {one["queue"]: one["present"] for one in told} == {"big": 1, "default": 1}
    said = findings(place.run("doctor", "--json"), "warning")["host in quarantine"]
    assert said.startswith("node8 takes no work for ")
    assert said.endswith("overnight workers --release node8")
