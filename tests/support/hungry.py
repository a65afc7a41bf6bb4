"""Graphs with a task ``hungry`` that allocates without bound; ``dependant`` needs it, ``innocent <n>`` need nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

from overnight.graph import TaskGraph
from tests.support.functions import value_of

INNOCENT = 20
_STEP = 4_000_000
_held: list[bytes] = []


def unbounded(*, ledger: str, retries: int = 0, ballast: int = 0) -> TaskGraph:
    """The process that builds the graph holds `ballast` MB from then on."""
    _held.append(b"x" * (ballast * 1_000_000))
    graph = TaskGraph()
    innocent = [graph.create_task(f"innocent {number}", value_of, args=[number]) for number in range(INNOCENT)]
    hungry = graph.create_task("hungry", devour, args=[ledger], deps=innocent[:5], retries=retries)
    graph.create_task("dependant", value_of, args=["reached", hungry])
    return graph


def takes_its_supervisor_along(*, ledger: str, times: int = 1) -> TaskGraph:
    """``hungry`` has the kernel prefer its supervisor so many times, and returns "sated" after that."""
    graph = TaskGraph()
    hungry = graph.create_task("hungry", devour_after_the_supervisor, args=[ledger, times])
    graph.create_task("dependant", value_of, args=["reached", hungry])
    for number in range(INNOCENT):
        graph.create_task(f"innocent {number}", value_of, args=[number])
    return graph


def devour(ledger: str) -> NoReturn:
    """Note this process in the ledger, then hold more and more."""
    with Path(ledger).open("a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")
    print("hungry", flush=True)
    while True:
        _held.append(b"x" * _STEP)


def devour_after_the_supervisor(ledger: str, times: int) -> str:
    if Path(ledger).exists() and len(Path(ledger).read_text(encoding="utf-8").splitlines()) >= times:
        return "sated"
    Path("/proc/self/oom_score_adj").write_text("0", encoding="ascii")
    Path(f"/proc/{os.getppid()}/oom_score_adj").write_text("1000", encoding="ascii")
    devour(ledger)
