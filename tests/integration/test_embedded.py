"""The embedded server, on every server program of this machine."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis

from overnight.embedded import EmbeddedServer
from overnight.errors import Unreachable, UsageError
from overnight.server_binary import BINARY_VARIABLE, find_server_binary, wheel_binaries
from overnight.socket_places import LONGEST_SOCKET_PATH
from overnight.state_dir import try_lock, wait_until
from tests.support.servers import KINDS, connect, server_binary

SECONDS = 20.0
START_AND_PRINT_RUN_ID = """
import sys, redis
from overnight.embedded import EmbeddedServer
with redis.Redis.from_url(EmbeddedServer(sys.argv[1]).ensure()) as connection:
    print(connection.info("server")["run_id"], flush=True)
    if len(sys.argv) > 2:
        sys.stdin.read()
"""

MakeServer = Callable[[Path], EmbeddedServer]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kind of server that the test's embedded servers are."""
    monkeypatch.setenv(BINARY_VARIABLE, str(server_binary(request.param)))
    return str(request.param)


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[MakeServer]:
    """Makes servers that are stopped after the test."""
    made: list[EmbeddedServer] = []

    def make(directory: Path) -> EmbeddedServer:
        made.append(EmbeddedServer(directory))
        return made[-1]

    yield make
    for server in made:
        server.stop()


@pytest.fixture
def server(kind: str, tmp_path: Path, make_server: MakeServer) -> EmbeddedServer:
    return make_server(tmp_path / "state")


def pid_of(url: str) -> int:
    with connect(url) as connection:
        return int(connection.info("server")["process_id"])


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def set_value(url: str, key: str, value: str) -> None:
    with connect(url) as connection:
        connection.set(key, value)


def value(url: str, key: str) -> str | None:
    with connect(url) as connection:
        found = connection.get(key)
    return found.decode() if isinstance(found, bytes) else None


def newest_log_part(server: EmbeddedServer) -> Path:
    return max(server.data_dir.rglob("*.incr.aof"), key=lambda path: int(path.name.split(".")[2]))


def test_it_listens_on_a_private_socket_alone_and_never_evicts(server: EmbeddedServer, tmp_path: Path) -> None:
    with connect(server.ensure()) as connection:
        settings = connection.config_get("*")
    wanted = {
        "port": "0",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "save": "",
        "no-appendfsync-on-rewrite": "no",
        "aof-load-truncated": "yes",
        "daemonize": "no",
        "loglevel": "notice",
    }
    assert {name: settings[name] for name in wanted} == wanted
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "state" / "redis.sock").stat().st_mode) == 0o700


def test_its_data_are_back_after_a_kill(server: EmbeddedServer, tmp_path: Path) -> None:
    """QX6."""
    url = server.ensure()
    set_value(url, "kept", "yes")
    kill(pid_of(url))
    assert wait_until(lambda: not server.is_present(), SECONDS)
    assert (tmp_path / "state" / "redis.sock").exists(), "the kill left the stale socket"
    assert server.ensure() == url
    assert value(url, "kept") == "yes"


def test_a_server_whose_lock_was_removed_never_shares_its_data_with_the_next_one(server: EmbeddedServer) -> None:
    """P8. Both would write to one append-only file, and nobody would ever end the first."""
    url = server.ensure()
    set_value(url, "kept", "yes")
    first = psutil.Process(pid_of(url))
    (server.data_dir.parents[1] / "server.lock").unlink()
    assert server.start_if_absent()
    assert not first.is_running()
    assert server.ensure() == url
    assert value(url, "kept") == "yes"


def test_a_server_whose_socket_was_removed_can_be_stopped(server: EmbeddedServer) -> None:
    server.ensure()
    Path(server.url.removeprefix("unix://").removesuffix("?db=0")).unlink()
    server.stop(5.0)
    assert not server.is_present()


def test_a_stop_keeps_the_data_and_may_be_repeated(server: EmbeddedServer) -> None:
    set_value(server.ensure(), "kept", "yes")
    server.stop()
    assert not server.is_running()
    server.stop()
    assert value(server.ensure(), "kept") == "yes"


def test_an_append_only_file_that_was_cut_short_loads_up_to_the_cut(server: EmbeddedServer) -> None:
    url = server.ensure()
    set_value(url, "whole", "yes")
    set_value(url, "cut", "yes")
    kill(pid_of(url))
    assert wait_until(lambda: not server.is_present(), SECONDS)
    log = newest_log_part(server)
    log.write_bytes(log.read_bytes()[:-3])
    server.ensure()
    assert value(url, "whole") == "yes"
    assert value(url, "cut") is None


def test_a_start_that_fails_says_why_in_the_servers_words(server: EmbeddedServer) -> None:
    url = server.ensure()
    set_value(url, "first", "yes")
    server.stop()
    log = newest_log_part(server)
    log.write_bytes(b"damaged" + log.read_bytes())
    with pytest.raises(Unreachable, match=r"ended as soon as it was started: .*Bad file format .*log: ") as caught:
        server.ensure()
    assert "\n" not in str(caught.value)
    assert not server.is_present()


def test_a_server_that_is_killed_while_it_rewrites_its_file_comes_back(server: EmbeddedServer) -> None:
    """P8. The rewriting child, which would take 50 seconds, does not outlive its server."""
    url = server.ensure()
    with connect(url) as connection:
        for number in range(50):
            connection.set(f"key-{number}", number)
        connection.config_set("rdb-key-save-delay", 1_000_000)
        process = psutil.Process(connection.info("server")["process_id"])
        connection.bgrewriteaof()
    assert wait_until(lambda: len(process.children()) == 1, SECONDS)
    process.kill()
    server.ensure(SECONDS)
    with connect(url) as connection:
        assert connection.dbsize() == 50


def test_loading_is_waited_for(
    kind: str, tmp_path: Path, make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make_server(tmp_path / "state")
    url = server.ensure()
    with connect(url) as connection, connection.pipeline(transaction=False) as pipeline:
        for number in range(20_000):
            pipeline.set(f"key-{number}", number)
        pipeline.execute()
    server.stop()
    slow = wrapped_server(kind, tmp_path, arguments="--key-load-delay 50")
    monkeypatch.setenv(BINARY_VARIABLE, str(slow))
    assert server.start_if_absent()
    assert wait_until(lambda: is_loading(url), SECONDS)
    server.ensure()
    with connect(url) as connection:
        assert connection.dbsize() == 20_000


def wrapped_server(kind: str, directory: Path, *, before: str = "", arguments: str = "") -> Path:
    """Return a server program that first runs a line of shell and gets more arguments."""
    program = directory / "wrapped-server"
    program.write_text(f'#!/bin/sh\n{before}\nexec {server_binary(kind)} "$@" {arguments}\n')
    program.chmod(0o755)
    return program


def is_loading(url: str) -> bool:
    with connect(url) as connection:
        try:
            connection.ping()
        except redis.BusyLoadingError:
            return True
        except redis.ConnectionError:
            return False
    return False


def test_a_server_that_does_not_answer_is_an_error_with_the_time_waited(server: EmbeddedServer) -> None:
    url = server.ensure()
    process = psutil.Process(pid_of(url))
    process.suspend()
    try:
        with pytest.raises(Unreachable, match=r"did not answer within 0\.1 s"):
            server.ensure(timeout=0.1)
    finally:
        process.resume()
    assert server.ensure() == url


@pytest.mark.parametrize(("writer", "reader"), [("redis", "valkey"), ("valkey", "redis")])
def test_either_kind_of_server_takes_over_the_data_of_the_other(
    writer: str, reader: str, tmp_path: Path, make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make_server(tmp_path / "state")
    monkeypatch.setenv(BINARY_VARIABLE, str(server_binary(writer)))
    with connect(server.ensure()) as connection:
        connection.hset("hash", mapping={str(number): number for number in range(1000)})
        connection.xadd("stream", {"event": "rewritten"})
        connection.bgrewriteaof()
        assert wait_until(lambda: not connection.info("persistence")["aof_rewrite_in_progress"], SECONDS)
        connection.xadd("stream", {"event": "appended"})
    server.stop()
    monkeypatch.setenv(BINARY_VARIABLE, str(server_binary(reader)))
    with connect(server.ensure()) as connection:
        assert connection.hlen("hash") == 1000
        assert connection.xlen("stream") == 2


def test_a_state_directory_with_a_long_path_gets_its_socket_elsewhere(
    kind: str, tmp_path: Path, make_server: MakeServer, monkeypatch: pytest.MonkeyPatch, short_directory: Path
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(short_directory))
    server = make_server(tmp_path / "long" / ("x" * LONGEST_SOCKET_PATH) / "state")
    url = server.ensure()
    set_value(url, "kept", "yes")
    socket = Path(url.removeprefix("unix://").removesuffix("?db=0"))
    assert socket.parent.parent == short_directory
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    server.stop()
    assert server.ensure() == url
    server.stop()
    socket.parent.rmdir()
    assert server.ensure() == url, "a directory that was cleaned away is made again: clients look for the server there"
    server.stop()
    socket.parent.rmdir()
    socket.parent.symlink_to(tmp_path)
    assert server.ensure() != url, "one that another made in its place is not used"
    assert value(server.url, "kept") == "yes"


def test_a_path_with_blanks_and_quotes_works(kind: str, tmp_path: Path, make_server: MakeServer) -> None:
    server = make_server(tmp_path / "a b'c\"d#é")
    set_value(server.ensure(), "kept", "yes")
    server.stop()
    assert value(server.ensure(), "kept") == "yes"


def test_five_starts_at_once_make_one_server(server: EmbeddedServer, tmp_path: Path) -> None:
    command = [sys.executable, "-c", START_AND_PRINT_RUN_ID, str(tmp_path / "state")]
    starters = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(5)]
    answers = [starter.communicate(timeout=60)[0].strip() for starter in starters]
    assert len(set(answers)) == 1, answers
    assert answers[0]
    log = (tmp_path / "state" / "server" / "redis.log").read_text()
    assert log.count("eady to accept connections") == 1


def test_it_outlives_the_process_group_of_its_starter(server: EmbeddedServer, tmp_path: Path) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", START_AND_PRINT_RUN_ID, str(tmp_path / "state"), "stay"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with starter:
        assert starter.stdout
        run_id = starter.stdout.readline().strip()
        os.killpg(starter.pid, signal.SIGKILL)
    assert starter.returncode == -signal.SIGKILL
    with connect(server.url) as connection:
        assert connection.info("server")["run_id"] == run_id


def test_it_does_not_see_the_secrets_of_its_starter(
    kind: str, tmp_path: Path, make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ADVERSITY 8: the key never enters the embedded server."""
    seen = tmp_path / "environment"
    monkeypatch.setenv("OVERNIGHT_SECRET_KEY", "do-not-pass-on")
    monkeypatch.setenv(BINARY_VARIABLE, str(wrapped_server(kind, tmp_path, before=f"env > {seen}")))
    make_server(tmp_path / "state").ensure()
    assert "PATH=" in seen.read_text()
    assert "OVERNIGHT" not in seen.read_text()


def test_a_directory_that_others_can_open_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "shared"
    directory.mkdir()
    (directory / "file").touch()
    directory.chmod(0o755)
    with pytest.raises(UsageError, match=r"open to other users \(mode 0755\)"):
        EmbeddedServer(directory).ensure()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o755


def test_data_in_parts_are_not_given_to_a_server_that_would_not_see_them(
    tmp_path: Path, make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make_server(tmp_path / "state")
    set_value(server.ensure(), "kept", "yes")
    server.stop()
    monkeypatch.setenv(BINARY_VARIABLE, str(program_that_says(tmp_path, "Redis server v=6.2.7 sha=0")))
    with pytest.raises(Unreachable, match=r"is version 6\.2\.7, but the data .* were written by 7\.0 or newer"):
        server.ensure()
    free = try_lock(tmp_path / "state" / "server.lock")
    assert free is not None
    os.close(free)


def program_that_says(directory: Path, line: str) -> Path:
    program = directory / "redis-server"
    program.write_text(f"#!/bin/sh\necho '{line}'\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Redis server v=6.0.16 sha=0", r"version 6\.0\.16, 6\.2 or newer is needed"),
        ("something else", r"is no Redis or Valkey server \(something else\)"),
    ],
)
def test_a_named_program_that_is_unfit_is_an_error_and_one_on_the_path_is_passed_over(
    tmp_path: Path, line: str, reason: str
) -> None:
    program = program_that_says(tmp_path, line)
    with pytest.raises(UsageError, match=reason):
        find_server_binary({BINARY_VARIABLE: str(program)})
    assert find_server_binary({"PATH": f"{tmp_path}:/usr/bin:/bin"}).path != program


def test_without_a_server_on_the_path_the_one_of_the_wheel_is_used(tmp_path: Path) -> None:
    binary = find_server_binary({"PATH": str(tmp_path)})
    assert binary.path == wheel_binaries()[0]
    assert (binary.kind, binary.version >= (6, 2, 0)) == ("valkey", True)


def test_a_named_program_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        find_server_binary({BINARY_VARIABLE: str(tmp_path / "nowhere")})
