"""The processes of a system under measurement: which they are, and what memory and time they took."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import psutil

from overnight.state_dir import wait_until


def fleet(state: Path) -> list[psutil.Process]:
    """Return the live processes of a state directory: its keeper and all below it, and its server."""
    heads = [process for process in psutil.process_iter() if str(state) in " ".join(_command(process))]
    found = {process.pid: process for process in heads}
    for head in heads:
        found.update({process.pid: process for process in _below(head)})
    found.pop(psutil.Process().pid, None)
    return list(found.values())


def peak_memory(state: Path) -> float | None:
    """Return the sum of the peaks of resident memory of the fleet's processes, in MB; None where it is not told."""
    return peak_of(fleet(state))


def peak_of(processes: Iterable[psutil.Process]) -> float | None:
    """Return the sum of the peaks of resident memory of processes, in MB; None where it is not told."""
    try:
        return sum(_peak_kb(process.pid) for process in processes) / 1000
    except OSError:
        return None


def with_children(pids: Iterable[int]) -> list[psutil.Process]:
    """Return the live ones of these processes, and all below them."""
    heads = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    return heads + [process for head in heads for process in _below(head)]


def _peak_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def await_end(state: Path) -> None:
    """Wait until the fleet has ended by itself; what does not end is killed by its id."""
    if not wait_until(lambda: not fleet(state), 30):
        for process in fleet(state):
            process.kill()


def started_here(word: str) -> list[psutil.Process]:
    """Return the processes below this one that have a word in their command."""
    return [process for process in _below(psutil.Process()) if word in " ".join(_command(process))]


def cpu_seconds(process: psutil.Process) -> float:
    """Return the processor time that a process has used, all its threads together, to the microsecond."""
    tasks = Path(f"/proc/{process.pid}/task")
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9
