"""The proxy of the nemesis between a client and a real server: what each of its faults does to a call."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from overnight.state_dir import wait_until
from tests.support.command import ROOT
from tests.support.proxy import Control
from tests.support.servers import connect, free_port, server_binaries, server_process

COUNT_UP = "return redis.call('INCR', KEYS[1])"


@dataclass
class Line:
    """A server, the proxy before it, and clients on both sides of that."""

    control: Control
    url: str
    direct: redis.Redis

    def client(self, *, repeats: int = 0, seconds: float = 30) -> redis.Redis:
        """A client that goes through the proxy and repeats a failed call so often."""
        return redis.Redis.from_url(self.url, protocol=2, socket_timeout=seconds, retry=Retry(NoBackoff(), repeats))

    def count(self, name: str) -> int:
        return self.control().get("one", {}).get(name, 0)


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    binary = next(iter(server_binaries().values()))
    with (
        tempfile.TemporaryDirectory(prefix="ov-") as directory,
        server_process(binary, Path(directory), tcp=True) as up,
    ):
        control, port = Path(directory) / "control", free_port()
        to = up.url.removeprefix("redis://").removesuffix("/0")
        words = [sys.executable, "-m", "tests.support.proxy", str(control), to, f"one=127.0.0.1:{port}"]
        with subprocess.Popen(words, cwd=ROOT) as process:
            steering = Control(control)
            with connect(up.url) as direct:
                yield Line(steering, f"redis://127.0.0.1:{port}/0", direct)
            steering.close()
            process.kill()


def test_bytes_pass_unchanged_whole_or_in_slices(line: Line) -> None:
    value = bytes(range(256)) * 400
    with line.client() as client:
        client.set("whole", value)
        line.control("one", slice=1000)
        client.set("sliced", value)
        assert client.get("sliced") == value
        line.control("one", slice=None)
    assert line.direct.get("whole") == line.direct.get("sliced") == value


def test_a_dropped_reply_leaves_the_script_carried_out_and_the_client_repeats_it(line: Line) -> None:
    with line.client(repeats=3) as client:
        sha = client.script_load(COUNT_UP)
        line.control("one", drop_in=2)
        assert client.evalsha(sha, 1, "counted") == 1
        assert client.evalsha(sha, 1, "counted") == 3
    assert line.count("dropped") == 1
    assert line.count("repeated") == 1


def test_a_reset_breaks_all_connections_and_new_ones_work(line: Line) -> None:
    with line.client() as client:
        held = client.client()  # keeps its connection, so that nobody looks whether that still stands
        held.ping()
        line.control("one", reset=True)
        with pytest.raises(redis.ConnectionError):
            held.ping()
        assert client.ping()


def test_a_connection_is_cut_after_so_many_bytes(line: Line) -> None:
    with line.client() as client:
        client.ping()
        line.control("one", cut_after=50_000)
        with pytest.raises(redis.ConnectionError):
            client.set("cut", b"x" * 200_000)
        assert client.get("cut") is None
    assert line.count("cut") == 1


def test_in_a_black_hole_calls_time_out_and_what_was_sent_arrives_when_it_ends(line: Line) -> None:
    line.control("one", black_hole=True)
    with line.client(seconds=0.5) as client, pytest.raises(redis.TimeoutError):
        client.set("swallowed", 1)
    answered = threading.Event()

    def ask() -> None:
        with line.client() as client:
            client.set("held back", 1)
            answered.set()

    asking = threading.Thread(target=ask)
    asking.start()
    assert wait_until(lambda: line.count("swallowed") > 0, 30)
    assert not answered.is_set()
    line.control("one", black_hole=False)
    asking.join(30)
    assert answered.is_set()


@pytest.mark.parametrize(
    ("fault", "calm"), [({"latency": 0.2}, {"latency": 0.0}), ({"bandwidth": 1000}, {"bandwidth": None})]
)
def test_delay_and_narrowness_make_a_call_slow(line: Line, fault: dict[str, float], calm: dict[str, float]) -> None:
    with line.client() as client:
        client.ping()
        line.control("one", **fault)
        began = time.monotonic()
        client.set("slow", b"x" * 300)
        assert time.monotonic() - began > 0.25
        line.control("one", **calm)


def test_a_slow_close_keeps_the_other_end_open_for_a_while(line: Line) -> None:
    line.control("one", slow_close=1.0)
    with line.client() as client:
        client.client_setname("leaving")
    assert any(client["name"] == "leaving" for client in line.direct.client_list())
    assert wait_until(lambda: all(client["name"] != "leaving" for client in line.direct.client_list()), 30)
    line.control("one", slow_close=0.0)
