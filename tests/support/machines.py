"""Machines on this one: each has a network, an /etc, a /srv and a /var/lib of its own, and nothing of it stays.

A machine is a process that holds a network and a mount namespace. What is written to those directories goes to layers
in the test's own directory; what has to be the same on all machines is mounted there. Needs root and overlayfs.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from overnight.state_dir import wait_until
from tests.acceptance.nemesis.hosts import Grounds, Host

SECONDS = 120.0
_OWN = ("/etc", "/srv", "/var/lib")


@dataclass(frozen=True)
class Machine:
    """One machine. `holder` is the process whose namespaces it is."""

    name: str
    address: str
    host: Host
    holder: subprocess.Popen[bytes]

    @property
    def words(self) -> list[str]:
        """What precedes a command that runs there."""
        return [*_entering(self.holder.pid)]

    def run(self, script: str, log: Path, environment: Mapping[str, str]) -> int:
        """Type commands there, in the home directory; return the status. Output goes to a file, also in background."""
        with log.open("ab") as output:
            return subprocess.run(
                [*self.words, "/bin/sh", "-euc", f'cd "$HOME"\n{script}'],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=SECONDS,
                check=False,
            ).returncode

    def processes(self) -> list[psutil.Process]:
        """What runs there, but for the holder."""
        space = Path(f"/proc/{self.holder.pid}/ns/mnt").readlink()
        found = []
        for process in psutil.process_iter():
            try:
                if process.pid != self.holder.pid and Path(f"/proc/{process.pid}/ns/mnt").readlink() == space:
                    found.append(process)
            except OSError:
                continue
        return found


def _entering(pid: int) -> Sequence[str]:
    return ("nsenter", f"--target={pid}", "--net", "--mount")


@contextmanager
def machines(directory: Path, shared: str, *names: str) -> Iterator[list[Machine]]:
    """Run machines that know each other by name; `shared` is one directory on all of them.

    Raises OSError where this machine does not allow it.
    """
    lacking: list[str] = []
    (directory / "shared").mkdir()
    grounds = Grounds(lacking.append)
    with ExitStack() as stack:
        stack.callback(grounds.close)
        hosts = [grounds.host(number) for number in range(len(names))]
        if lacking:
            raise OSError("; ".join(lacking))
        known = "".join(f"{_own_address(host)} {name}\n" for host, name in zip(hosts, names, strict=True))
        _let_through(hosts, stack)
        given = []
        for name, host in zip(names, hosts, strict=True):
            holder = _held(directory / name, host, shared, directory / "shared", f"127.0.0.1 localhost\n{known}")
            machine = Machine(name, _own_address(host), host, holder)
            stack.callback(_end, machine)
            given.append(machine)
        yield given


def _own_address(host: Host) -> str:
    """The address inside: the next after that of this side."""
    start, _, last = host.gateway.rpartition(".")
    return f"{start}.{int(last) + 1}"


def _let_through(hosts: Sequence[Host], stack: ExitStack) -> None:
    """Let this machine carry what hosts send each other, over links that are the test's own."""
    for host in hosts:
        subprocess.run([*host.words, "ip", "route", "add", "default", "via", host.gateway], check=True)
        switch = Path(f"/proc/sys/net/ipv4/conf/{host.device}/forwarding")
        switch.write_text("1")


def _held(own: Path, host: Host, shared: str, there: Path, hosts: str) -> subprocess.Popen[bytes]:
    """Start the process that holds a machine; its directories are layers above this machine's."""
    lines = []
    for place in _OWN:
        layer = own / place.strip("/").replace("/", "-")
        (layer / "upper").mkdir(parents=True)
        (layer / "work").mkdir()
        what = f"lowerdir={place},upperdir={layer}/upper,workdir={layer}/work"
        lines.append(f"mount -t overlay overlay -o {shlex.quote(what)} {place}")
    (own / "home").mkdir()
    (own / "hosts").write_text(hosts, encoding="utf-8")
    lines += [f"mkdir -p {shared}", f"mount --bind {there} {shared}", f"cat {own}/hosts >/etc/hosts"]
    lines += [f"touch {own}/up", "exec sleep infinity"]
    words = [*host.words, "unshare", "--mount", "--propagation", "private", "/bin/sh", "-euc", "\n".join(lines)]
    log = own / "holder.log"
    with log.open("wb") as output:
        holder = subprocess.Popen(words, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    if not wait_until(lambda: (own / "up").exists() or holder.poll() is not None, 30) or holder.poll() is not None:
        holder.kill()
        holder.wait()
        raise OSError(f"no machine could be made: {log.read_text(encoding='utf-8')}")
    return holder


def _end(machine: Machine) -> None:
    for process in machine.processes():
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    machine.holder.kill()
    machine.holder.wait()


def lacks() -> str | None:
    """What this machine lacks to make others; None: nothing."""
    if os.geteuid() != 0:
        return "machines are made of namespaces, which takes root"
    missing = [
        program for program in ("ip", "nsenter", "unshare", "openssl", "redis-server") if not shutil.which(program)
    ]
    return (
        f"not installed: {', '.join(missing)} (apt-get install iproute2 util-linux openssl redis)" if missing else None
    )
