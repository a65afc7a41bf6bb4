"""A task that looks for secrets wherever a process of its user may look."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path


def places_with(secrets: list[str]) -> list[str]:
    """Name the places at which this process, its ancestors or its descriptors show one of the secrets, or could."""
    found = [f"own variable {name}" for name, value in os.environ.items() if _shows(value.encode(), secrets)]
    found += [f"own argument {word}" for word in sys.argv if _shows(word.encode(), secrets)]
    for link in Path("/proc/self/fd").iterdir():
        if link.is_symlink() and re.search(r"\.(?:key|lock|spool)", str(link.readlink())):
            found.append(f"descriptor on {link.readlink()}")
    for pid in ancestors():
        found += [f"{name} of ancestor" for name in ("environ", "cmdline") if _read_shows(pid, name, secrets)]
        if memory_opens(pid):
            found.append("memory of ancestor")
    return found


def ancestors() -> list[int]:
    """The processes above this one that are workers."""
    above: list[int] = []
    pid = os.getppid()
    while pid > 1 and b"overnight_worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
        above.append(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return above


def can_look_into_others() -> bool:
    """Tell whether a process of this user that hides nothing can be looked into from here."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, env={"A": "canary"}) as other:
        environ = Path(f"/proc/{other.pid}/environ")
        while b"canary" not in environ.read_bytes():  # until it has become that program
            pass
        return memory_opens(other.pid)


def memory_opens(pid: int) -> bool:
    try:
        os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY))
    except OSError:
        return False
    return True


def _read_shows(pid: int, name: str, secrets: list[str]) -> bool:
    try:
        return _shows(Path(f"/proc/{pid}/{name}").read_bytes(), secrets)
    except OSError:
        return False


def _shows(data: bytes, secrets: list[str]) -> bool:
    # The secrets come reversed, so that the arguments of this task are not what is found.
    return any(secret[::-1].encode() in data for secret in secrets)


def look(secrets: list[str]) -> tuple[int, bool, list[str]]:
    """Return how many workers are above, whether looking into others works at all, and what was found."""
    return len(ancestors()), can_look_into_others(), places_with(secrets)
