"""What the kernel says of memory: whom it has killed for want of it, under which limit, and whom it is to kill first.

Each memory cgroup counts the kills among its processes (`memory.events` in version 2, `memory.oom_control` in version
1). A process shares the cgroup of its parent, so the parent compares that count from before the work and after the
death. Where no such count can be read, that of the whole machine takes its place (`/proc/vmstat`).

Left to itself the kernel kills the process that holds most, which may be a server, a supervisor or a client with large
results. Tasks can be repeated, so the process that runs them asks to be taken first, with all that it starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

#: Thousandths of the memory that the kernel adds to what a process of tasks holds before it compares.
_TAKEN_FIRST = 500
_MOST_TAKEN_FIRST = 1000
#: Version 1 writes the largest multiple of a page below 2**63 where there is no limit.
_NO_LIMIT = 1 << 62
_COUNTS = ("memory.events", "memory.oom_control")
_LIMITS = ("memory.max", "memory.limit_in_bytes")


class MemoryKills:
    """The kills in the memory cgroup that this process is in now. `root` is where `/proc` and `/sys` are.

    `groups` are the directories of that cgroup and of those around it, as far as they can be seen.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.groups = tuple(_groups(root))
        counts = [group / name for group in self.groups[:1] for name in _COUNTS]
        self._counts = [path for path in (*counts, root / "proc/vmstat") if _kills(path) is not None]

    def count(self) -> int:
        """Return how many processes the kernel has killed so far; 0 if it does not say."""
        return (_kills(self._counts[0]) or 0) if self._counts else 0

    def limit(self) -> int | None:
        """Return the bytes that the cgroup, or the tightest of those around it, may hold; None without a limit."""
        limits = [_limit(group / name) for group in self.groups for name in _LIMITS]
        return min((limit for limit in limits if limit is not None), default=None)


def be_taken_first() -> None:
    """Have the kernel kill this process, and those that it will start, before others when memory runs out."""
    path = Path("/proc/self/oom_score_adj")
    # Elsewhere than on Linux there is nothing to ask.
    with suppress(OSError):
        path.write_text(str(min(int(path.read_text()) + _TAKEN_FIRST, _MOST_TAKEN_FIRST)))


def _groups(root: Path) -> Iterator[Path]:
    """Yield the directory of this process's memory cgroup, then of those around it as far as they can be seen."""
    group = _memory_group(_lines(root / "proc/self/cgroup"))
    if group is None:
        return
    path, in_version_2 = group
    mount = _mount(_lines(root / "proc/self/mountinfo"), in_version_2=in_version_2)
    if mount is None:
        return
    origin, point = mount
    top = root / point.lstrip("/")
    # In a container the path may be told as the host sees it, and the mount be the container's own cgroup.
    inside = path.removeprefix(origin.rstrip("/")).strip("/") if path.startswith(origin) else ""
    directory = top / inside
    if ".." in directory.parts or not directory.is_dir():
        directory = top
    yield directory
    while directory != top:
        directory = directory.parent
        yield directory


def _memory_group(lines: list[str]) -> tuple[str, bool] | None:
    """Return the path of the memory cgroup and whether it is of version 2. Of both, version 1 has the controller."""
    found = None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return path, False
        if not controllers:
            found = path, True
    return found


def _mount(lines: list[str], *, in_version_2: bool) -> tuple[str, str] | None:
    """Return the path inside the hierarchy that is mounted, and where."""
    for line in lines:
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        origin, point = before.split(" ")[3:5]
        if kind == "cgroup2" if in_version_2 else kind == "cgroup" and "memory" in options.split(","):
            return origin, point
    return None


def _kills(path: Path) -> int | None:
    for line in _lines(path):
        name, _, value = line.partition(" ")
        if name == "oom_kill":
            return int(value)
    return None


def _limit(path: Path) -> int | None:
    for line in _lines(path):
        if line.isdigit() and int(line) < _NO_LIMIT:
            return int(line)
    return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
