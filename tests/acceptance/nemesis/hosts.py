"""Hosts on one machine: network namespaces with a link each, and file systems of their own that can be full.

What this machine does not allow is said by name, and loopback or a plain directory stands in for it. Names carry the
process id, so that what a killed run has left is removed by the next one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

PREFIX = "ovnemesis"
_NAMESPACE = re.compile(rf"{PREFIX}-(\d+)-\w+")
_DIRECTORY = re.compile(rf"/{PREFIX}-(\d+)-")


def _call(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(words[:3])}: {done.stderr.strip() or done.returncode}")


@dataclass(frozen=True)
class Host:
    """Where processes run: what precedes their commands, and by which address they reach the proxy."""

    name: str
    gateway: str
    words: tuple[str, ...] = ()
    device: str | None = None

    def set_link(self, state: str) -> None:
        """Put the link ``up`` or ``down``."""
        if self.device is not None:
            _call("ip", "link", "set", self.device, state)


class Grounds:
    """All that is made on this machine for one run. `lacking` says what it does not allow."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._undo: list[tuple[str, ...]] = []
        self.lacking: list[str] = []
        remove_stale()

    def host(self, number: int) -> Host:
        """A host of its own, or this one."""
        name = f"host{number}"
        try:
            return self._namespace(name, number)
        except OSError as error:
            self._lacks(f"network namespace for {name} ({error}): it is on loopback")
            return Host(name, "127.0.0.1")

    def _namespace(self, name: str, number: int) -> Host:
        pid = os.getpid()
        space, device, peer = f"{PREFIX}-{pid}-{name}", f"ov{pid}h{number}", f"ov{pid}p{number}"
        net = f"10.{64 + pid % 64}.{pid // 64 % 256}"
        _call("ip", "netns", "add", space)
        self._undo.append(("ip", "netns", "del", space))
        _call("ip", "link", "add", device, "type", "veth", "peer", "name", peer, "netns", space)
        gateway = f"{net}.{4 * number + 1}"
        _call("ip", "addr", "add", f"{gateway}/30", "dev", device)
        _call("ip", "link", "set", device, "up")
        inside = ("ip", "netns", "exec", space)
        _call(*inside, "ip", "addr", "add", f"{net}.{4 * number + 2}/30", "dev", peer)
        _call(*inside, "ip", "link", "set", peer, "up")
        _call(*inside, "ip", "link", "set", "lo", "up")
        return Host(name, gateway, inside, device)

    def disk(self, path: Path, megabytes: int) -> bool:
        """Make a directory that is a file system of its own; False: it is a plain one."""
        path.mkdir(parents=True)
        try:
            _call("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "tmpfs", str(path))
        except OSError as error:
            self._lacks(f"file system of its own for {path.name} ({error}): it is never full")
            return False
        self._undo.append(("umount", "--lazy", str(path)))
        return True

    def _lacks(self, what: str) -> None:
        self.lacking.append(what)
        self._say(f"not allowed here: {what}")

    def close(self) -> None:
        """Take everything away again."""
        for words in reversed(self._undo):
            with suppress(OSError):
                _call(*words)


def remove_stale() -> None:
    """Remove namespaces and mounts of runs whose process is gone."""
    if shutil.which("ip"):
        listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout
        for found in _NAMESPACE.finditer(listed):
            if not psutil.pid_exists(int(found[1])):
                with suppress(OSError):
                    _call("ip", "netns", "del", found[0])
    mounts = Path("/proc/mounts")
    for line in mounts.read_text("utf-8").splitlines() if mounts.exists() else []:
        place = line.split()[1]
        found_in = _DIRECTORY.search(place)
        if found_in and not psutil.pid_exists(int(found_in[1])):
            with suppress(OSError):
                _call("umount", "--lazy", place)
