"""Which counter and which limit of the kernel a worker reads, on the layouts of machines (ADVERSITY 7, row 28)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from overnight.errors import TaskDied
from overnight_worker.death import Vigil
from overnight_worker.memory_kills import MemoryKills

MB = 1_000_000
UNLIMITED = "9223372036854771712\n"
VERSION_1 = "30 29 0:26 / /sys/fs/cgroup/memory rw,nosuid,relatime shared:9 - cgroup cgroup rw,memory\n"
VERSION_2 = "31 24 0:27 / /sys/fs/cgroup rw,nosuid,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
EVENTS = "low 0\nhigh 0\nmax 71\noom 3\noom_kill {}\noom_group_kill 0\n"
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"
VMSTAT = "nr_free_pages 5701732\noom_kill {}\ndrop_pagecache 0\n"


@dataclass(frozen=True)
class Layout:
    """What a process reads of its cgroup and mounts, the file that counts, and further files below `/`."""

    cgroup: str
    mounts: str
    counter: str
    counts: str
    files: Mapping[str, str]
    limit: int | None


LAYOUTS = {
    "version 1, limited by the group around": Layout(
        "5:cpu,cpuacct:/job\n4:memory:/job/7\n0::/\n",
        VERSION_1,
        "sys/fs/cgroup/memory/job/7/memory.oom_control",
        CONTROL,
        {
            "sys/fs/cgroup/memory/job/7/memory.limit_in_bytes": UNLIMITED,
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": f"{300 * MB}\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": UNLIMITED,
        },
        300 * MB,
    ),
    "version 1 in a container, told the host's path": Layout(
        "4:memory:/docker/4a5b\n",
        VERSION_1.replace(" / ", " /docker/4a5b "),
        "sys/fs/cgroup/memory/memory.oom_control",
        CONTROL,
        {"sys/fs/cgroup/memory/memory.limit_in_bytes": f"{512 * MB}\n"},
        512 * MB,
    ),
    "version 1 with the memory, version 2 beside it": Layout(
        "4:memory:/job\n0::/\n",
        VERSION_2.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified ") + VERSION_1,
        "sys/fs/cgroup/memory/job/memory.oom_control",
        CONTROL,
        {"sys/fs/cgroup/memory/job/memory.limit_in_bytes": UNLIMITED},
        None,
    ),
    "version 2, a service of systemd in a limited slice": Layout(
        "0::/batch.slice/worker.service\n",
        VERSION_2,
        "sys/fs/cgroup/batch.slice/worker.service/memory.events",
        EVENTS,
        {
            "sys/fs/cgroup/batch.slice/worker.service/memory.max": f"{800 * MB}\n",
            "sys/fs/cgroup/batch.slice/memory.max": f"{600 * MB}\n",
        },
        600 * MB,
    ),
    "version 2 in a container with a namespace": Layout(
        "0::/\n",
        VERSION_2,
        "sys/fs/cgroup/memory.events",
        EVENTS,
        {"sys/fs/cgroup/memory.max": f"{400 * MB}\n"},
        400 * MB,
    ),
    "version 2 in a container, told a path outside of it": Layout(
        "0::/../other\n",
        VERSION_2,
        "sys/fs/cgroup/memory.events",
        EVENTS,
        {"sys/fs/cgroup/memory.max": "max\n"},
        None,
    ),
    "version 2, the root group, which counts nothing": Layout("0::/\n", VERSION_2, "proc/vmstat", VMSTAT, {}, None),
    "cgroups that are not mounted": Layout("4:memory:/job\n0::/\n", "", "proc/vmstat", VMSTAT, {}, None),
}


def laid_out(root: Path, layout: Layout) -> Path:
    """Write the files of a layout, with other numbers in those that do not count; return the counter."""
    files = {"proc/vmstat": VMSTAT.format(900), **layout.files, layout.counter: layout.counts.format(5)}
    files |= {"proc/self/cgroup": layout.cgroup, "proc/self/mountinfo": layout.mounts}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root / layout.counter


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_the_count_of_the_own_group_and_the_tightest_limit_are_found(tmp_path: Path, layout: Layout) -> None:
    counter = laid_out(tmp_path, layout)
    kills = MemoryKills(tmp_path)
    assert (kills.count(), kills.limit()) == (5, layout.limit)
    counter.write_text(layout.counts.format(6))
    assert kills.count() == 6


def test_where_the_kernel_says_nothing_no_kill_is_told(tmp_path: Path) -> None:
    kills = MemoryKills(tmp_path)
    assert (kills.count(), kills.limit()) == (0, None)


def test_a_group_that_is_gone_counts_nothing(tmp_path: Path) -> None:
    counter = laid_out(tmp_path, LAYOUTS["version 2 in a container with a namespace"])
    kills = MemoryKills(tmp_path)
    counter.unlink()
    assert kills.count() == 0


def died(root: Path, layout: str, *, kills: int, again: bool = False, code: int = -9) -> TaskDied:
    """Return the error of a task whose process died after the kernel had killed so many."""
    counter = laid_out(root, LAYOUTS[layout])
    vigil = Vigil(root)
    counter.write_text(LAYOUTS[layout].counts.format(5 + kills))
    if again:
        vigil.again()
    return vigil.death(code, 250 * MB, "last words").error("node7")


def test_a_kill_for_memory_is_told_with_its_limit_and_what_to_do(tmp_path: Path) -> None:
    error = died(tmp_path, "version 2 in a container with a namespace", kills=1)
    assert str(error) == (
        "The process of the task on worker node7 was killed by the kernel, out of memory (SIGKILL, peak memory 250 MB, "
        "limit of its cgroup 400 MB). Let the task hold less at once, run fewer tasks beside it (-j), or raise the "
        "limit. Its last output:\nlast words"
    )
    assert (error.signal, error.exit_code, error.worker) == ("SIGKILL", None, "node7")


def test_without_a_limit_the_machine_was_too_small(tmp_path: Path) -> None:
    error = died(tmp_path, "cgroups that are not mounted", kills=1)
    assert "(SIGKILL, peak memory 250 MB). Let the task" in str(error)
    assert "or run it on a machine with more memory." in str(error)


@pytest.mark.parametrize(
    ("kills", "again"), [(0, False), (1, True)], ids=["no kill", "a kill before the process was given more"]
)
def test_a_kill_that_is_not_the_kernels_is_told_as_the_signal(tmp_path: Path, kills: int, again: bool) -> None:
    error = died(tmp_path, "version 2 in a container with a namespace", kills=kills, again=again)
    assert "was killed by SIGKILL, peak memory 250 MB." in str(error)
    assert "out of memory" not in str(error)


def test_another_signal_beside_a_kill_is_told_as_that_signal(tmp_path: Path) -> None:
    error = died(tmp_path, "version 2 in a container with a namespace", kills=1, code=-11)
    assert "was killed by SIGSEGV" in str(error)
