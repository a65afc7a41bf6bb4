"""Private Redis and Valkey servers for tests.

A server is a child of the test process, listens on a unix socket or on a free loopback port, and is stopped by its
process id when its context ends.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from overnight.server_binary import wheel_binaries
from overnight.state_dir import wait_until

KINDS = ("redis", "valkey")
_INSTALL = "Tests run against Redis too: install it with `apt-get install redis-server` (or `brew install redis`)."


def server_binaries() -> dict[str, Path]:
    """Return the server programs of this machine by kind: "valkey" always, "redis" where it is installed."""
    installed = shutil.which("redis-server")
    found = {"redis": Path(installed)} if installed else {}
    return found | {"valkey": wheel_binaries()[0]}


def server_binary(kind: str) -> Path:
    """Return the program of one kind, or fail with what to install."""
    binaries = server_binaries()
    if kind not in binaries:
        raise FileNotFoundError(_INSTALL)
    return binaries[kind]


@dataclass(frozen=True)
class RunningServer:
    """A started server: its URL and its process, to be paused or killed by tests of faults."""

    url: str
    process: subprocess.Popen[bytes]


def connect(url: str) -> redis.Redis:
    """Return a client that never repeats a command by itself."""
    return redis.Redis.from_url(url, socket_timeout=10, retry=Retry(NoBackoff(), 0))


@contextmanager
def server_process(
    binary: Path, directory: Path, *, tcp: bool = False, password: str | None = None, **config: str
) -> Iterator[RunningServer]:
    """Run a server whose files are in `directory`; `config` are its directives with ``_`` for ``-``.

    By default nothing is kept on disk. A second server in the same directory finds the data of the first, if
    `appendonly="yes"`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port() if tcp else 0
    path = directory / "s.sock"
    settings = {"port": str(port), "bind": "127.0.0.1", "dir": str(directory), "save": "", "appendonly": "no"}
    settings |= {} if tcp else {"unixsocket": str(path), "unixsocketperm": "700"}
    settings |= {"requirepass": password} if password else {}
    settings |= {name.replace("_", "-"): value for name, value in config.items()}
    arguments = [word for name, value in settings.items() for word in (f"--{name}", value)]
    log = directory / "server.log"
    with log.open("ab") as output:
        process = subprocess.Popen([binary, *arguments], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    secret = f":{quote(password)}@" if password else ""
    url = f"redis://{secret}127.0.0.1:{port}/0" if tcp else f"unix://{secret}{quote(str(path))}?db=0"
    try:
        _await_answer(process, url, log)
        yield RunningServer(url, process)
    finally:
        process.kill()
        process.wait()


@contextmanager
def running_server(
    binary: Path, directory: Path, *, tcp: bool = False, password: str | None = None, **config: str
) -> Iterator[str]:
    """Run a server as `server_process` does; give its URL."""
    with server_process(binary, directory, tcp=tcp, password=password, **config) as server:
        yield server.url


def _await_answer(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    def is_settled() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"The server ended with status {process.returncode}:\n{log.read_text()[-2000:]}")
        return answers(url)

    if not wait_until(is_settled, 30):
        raise TimeoutError(f"The server at {url} did not answer:\n{log.read_text()[-2000:]}")


def answers(url: str) -> bool:
    """Tell whether a server answers, if only that it wants a password."""
    with connect(url) as connection:
        try:
            return bool(connection.ping())
        except redis.AuthenticationError:  # nobody may do anything without a password
            return True
        except redis.ConnectionError:  # not listening yet, or loading its data
            return False


def free_port() -> int:
    """Return a loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
