"""Small graphs whose tasks stamp what they do: each execution has a token, and its value names those it was given.

A ledger line is ``start <time> <task id>`` or ``end <time> <task id>``, times in ns since the epoch. From the tokens
in the recorded values a test sees whether each was computed from exactly the recorded values of its dependencies.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from overnight.graph import Task, TaskGraph
from tests.support.ledgers import write_line
from tests.support.servers import connect

SHAPES: dict[str, list[list[int]]] = {
    "chain": [[], [0], [1], [2], [3], [4]],
    "diamond": [[], [0], [0], [1, 2], [3]],
    "fan_out": [[], [0], [0], [0], [0], [0], [0], [0]],
    # Enough tasks that some share a batch, once their function is known to be quick.
    "wide": [[], *([0] for _ in range(24))],
    "row": [[], *([number] for number in range(40))],
    # The second may lose what is recorded of the first, which the third needs too.
    "loss": [[], [0], [0, 1]],
}


@dataclass(frozen=True)
class Stamp:
    """The value of a task: its token, and the tokens of the values that it was computed from."""

    token: str
    used: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """A line of the ledger; `at` is in ns since the epoch."""

    event: str
    at: int
    task_id: str


def stamped(
    *, ledger: str, shape: str, seconds: float = 0.02, first: float = 0.0, retries: int = 0, loses: str = ""
) -> TaskGraph:
    """``task 0`` .. of one of the `SHAPES`, each of `seconds`; the first execution of ``task 0`` takes `first` more.
    ``task 1`` loses what is recorded of the result of ``task 0`` on the server at the URL `loses`, if there is one."""
    graph = TaskGraph()
    path = str(Path(ledger).absolute())
    tasks: list[Task] = []
    for number, before in enumerate(SHAPES[shape]):
        pauses = [first + seconds, seconds] if number == 0 else [seconds, seconds]
        args = [path, f"task {number}", pauses, [tasks[index] for index in before]]
        call, more = (stamp_and_lose, [loses]) if loses and number == 1 else (stamp, [])
        tasks.append(graph.create_task(f"task {number}", call, args=args + more, retries=retries))
    return graph


def stamp(ledger: str, task_id: str, pauses: Sequence[float], values: Sequence[Stamp]) -> Stamp:
    """Return a fresh stamp, between a start line and an end line; the first execution and later ones pause."""
    strays = [name for name in os.environ if name.startswith("OVERNIGHT_FAILPOINT") or name == "OVERNIGHT_TESTING"]
    if strays:
        raise RuntimeError(f"a task sees {strays}")
    is_first = all(entry.task_id != task_id for entry in read_entries(ledger))
    write_line(ledger, f"start {time.time_ns()} {task_id}")
    time.sleep(pauses[0 if is_first else 1])
    write_line(ledger, f"end {time.time_ns()} {task_id}")
    return Stamp(secrets.token_hex(8), tuple(value.token for value in values))


def stamp_and_lose(ledger: str, task_id: str, pauses: Sequence[float], values: Sequence[Stamp], url: str) -> Stamp:
    """Stamp, and delete what is recorded of the result of the first task. Nobody knows how long this one takes, so that
    it goes alone, and the next one takes its inputs from the server."""
    with connect(url) as client:
        for results in client.keys("*:results"):
            client.hdel(results, "0")
    return stamp(ledger, task_id, pauses, values)


def read_entries(ledger: str | Path) -> list[Entry]:
    """Return the lines of a ledger in the order in which they were written."""
    path = Path(ledger)
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    split = [line.split(" ", 2) for line in lines]
    return [Entry(event, int(at), task_id) for event, at, task_id in split]
