"""The processes of the nemesis: server, proxy, schedulers and workers, each started again under its own name.

All of them are told by the kernel to end with this process. Every connection to the server goes through the proxy,
by a link of its own for each host and each scheduler; `admin` alone is direct.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil
import redis

from overnight.keyring import Keyring
from tests.acceptance.nemesis.hosts import PREFIX, Grounds, Host
from tests.acceptance.nemesis.schedule import LEASE_SECONDS
from tests.support.command import ROOT
from tests.support.proxy import Control
from tests.support.servers import connect, free_port, server_binaries

HOSTS, WORKERS_A_HOST, SCHEDULERS = 3, 2, 2
SERVER, PROXY = "server", "proxy"


class Cluster:
    """Everything that runs for the clients. Processes are known by name; a name without one is down."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-{os.getpid()}-"))
        self.directory.chmod(0o755)
        self.grounds = Grounds(say)
        self.disk, self.data = self.directory / "disk", self.directory / "server"
        self.is_bounded = self.grounds.disk(self.disk, 1500) & self.grounds.disk(self.data, 1500)
        self.logs = self.directory / "logs"
        self.logs.mkdir()
        self.password, self.keys = secrets.token_hex(16), [secrets.token_hex(32)]
        self.key_file = self.directory / "keys"
        self.write_keys()
        self.hosts = [self.grounds.host(number) for number in range(HOSTS)]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.links: dict[str, str] = {host.name: f"{host.gateway}:{free_port()}" for host in self.hosts}
        self.links |= {name: f"127.0.0.1:{free_port()}" for name in (*self.schedulers, "client")}
        self._port = free_port()
        self.control: Control | None = None

    # Who is who.

    @property
    def schedulers(self) -> list[str]:
        return [f"scheduler{number}" for number in range(SCHEDULERS)]

    @property
    def workers(self) -> list[str]:
        return [f"{host.name}-worker{number}" for host in self.hosts for number in range(WORKERS_A_HOST)]

    def host_of(self, worker: str) -> Host:
        """The host of a worker."""
        return self.hosts[int(worker[len("host")])]

    @property
    def keyring(self) -> Keyring:
        return Keyring(tuple(bytes.fromhex(key) for key in self.keys))

    @property
    def admin_url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self._port}/0"

    def admin(self) -> redis.Redis:
        """A connection that no fault befalls but those of the server itself."""
        return connect(self.admin_url)

    def url(self, link: str) -> str:
        """The server as it is seen through a link."""
        return f"redis://:{self.password}@{self.links[link]}/0"

    # Starting.

    def start(self) -> None:
        """Start everything."""
        self.start_server()
        self.start_proxy()
        for name in (*self.schedulers, *self.workers):
            self.start_member(name)

    def start_server(self) -> None:
        """Start the server on the data that lies there; it is waited for by whoever needs it."""
        fsync = "everysec"
        words = ["--port", str(self._port), "--bind", "127.0.0.1", "--dir", str(self.data), "--save", ""]
        words += ["--appendonly", "yes", "--appendfsync", fsync, "--auto-aof-rewrite-percentage", "0"]
        words += ["--requirepass", self.password, "--aof-load-truncated", "yes"]
        binaries = server_binaries()
        configuration = self.directory / "server.conf"
        pairs = zip(words[::2], words[1::2], strict=True)
        configuration.write_text("".join(f'{name[2:]} "{value}"\n' for name, value in pairs))
        self._start(SERVER, [str(binaries.get("redis", binaries["valkey"])), str(configuration)], {})

    def start_proxy(self) -> None:
        """Start the proxy and take its control."""
        place = self.directory / "control"
        links = [f"{name}={where}" for name, where in self.links.items()]
        words = ["-m", "tests.support.proxy", str(place), f"127.0.0.1:{self._port}", *links]
        self._start(PROXY, [sys.executable, *words], {"PYTHONPATH": str(ROOT)})
        self.control = Control(place)

    def steer(self, link: str = "*", **wish: object) -> dict[str, dict[str, int]]:
        """Give the proxy an order; return its counts."""
        if self.control is None:
            raise RuntimeError("the proxy has not been started")
        return self.control(link, **wish)

    def start_member(self, name: str) -> None:
        """Start a scheduler or a worker, unless it is there."""
        if self.lives(name):
            return
        if name in self.schedulers:
            words = [sys.executable, "-P", "-m", "overnight.commands", "scheduler"]
            self._start(name, words, self.environment(name, name))
        else:
            self.start_worker(name, self.host_of(name))

    def start_worker(self, name: str, host: Host, *, python: str = sys.executable, **environ: str) -> None:
        """Start a worker on a host, perhaps with another Python or environment than it should have."""
        words = [*host.words, python, "-P", "-m", "overnight_worker", "--name", name]
        self._start(name, words, self.environment(name, host.name) | environ)

    def environment(self, name: str, link: str) -> dict[str, str]:
        """The environment of a process that reaches the server by a link."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("OVERNIGHT_")}
        return kept | {
            "PYTHONPATH": str(ROOT),
            "OVERNIGHT_REDIS_URL": self.url(link),
            "OVERNIGHT_SECRET_KEY_FILE": str(self.key_file),
            "OVERNIGHT_STATE_DIR": str(self.disk / "states" / (link if link.startswith("host") else name)),
            "OVERNIGHT_LEASE_SECONDS": str(LEASE_SECONDS),
            "OVERNIGHT_HEARTBEAT_SECONDS": str(LEASE_SECONDS / 3),
            "OVERNIGHT_CONNECT_SECONDS": "5",
        }

    def _start(self, name: str, words: Sequence[str], environ: dict[str, str]) -> None:
        self.processes[name] = self.spawn(words, environ, self.log(name))

    def spawn(
        self, words: Sequence[str], environ: dict[str, str], log: Path, stdout: IO[bytes] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process in a session of its own that ends with this one."""
        tied = ["setpriv", "--pdeathsig", "KILL", *words] if shutil.which("setpriv") else list(words)
        with log.open("ab") as output:
            return subprocess.Popen(
                tied,
                cwd=self.directory,
                env=environ or None,
                stdin=subprocess.DEVNULL,
                stdout=stdout or output,
                stderr=output,
                start_new_session=True,
            )

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def write_keys(self) -> None:
        """Write the key file, the first key first."""
        self.key_file.touch(0o600)
        self.key_file.write_text("".join(f"{key}\n" for key in self.keys), "ascii")

    # Striking and mending.

    def lives(self, name: str) -> bool:
        """Whether the process of that name runs."""
        return name in self.processes and self.processes[name].poll() is None

    def kill(self, name: str, *, alone: bool = False) -> bool:
        """Kill a process and, unless `alone`, all that it has started; False if it was not there."""
        if not self.lives(name):
            return False
        family = [] if alone else [child.pid for child in self.family(name)]
        for pid in (self.processes[name].pid, *family):
            send(pid, signal.SIGKILL)
        self.processes.pop(name).wait()
        return True

    def family(self, name: str) -> list[psutil.Process]:
        """What a process has started."""
        with suppress(psutil.Error):
            return psutil.Process(self.processes[name].pid).children(recursive=True)
        return []

    def signal(self, name: str, number: signal.Signals) -> bool:
        """Send a signal to a process and all that it has started."""
        if not self.lives(name):
            return False
        for pid in (self.processes[name].pid, *(child.pid for child in self.family(name))):
            send(pid, number)
        return True

    def close(self) -> None:
        """End all processes, and what was made for them."""
        if self.control is not None:
            self.control.close()
        for name in list(self.processes):
            self.signal(name, signal.SIGCONT)
            self.kill(name)
        self.grounds.close()


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
