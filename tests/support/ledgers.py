"""Graphs that leave a trace: every task appends a line when it starts and one when it ends."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from overnight.examples.stdlib_census import build as build_census
from overnight.graph import Task, TaskGraph
from tests.support.functions import one_more


def write_line(ledger: str, line: str) -> None:
    """Append a line by one write, whole also when many processes append and are killed."""
    descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def read_ledger(ledger: str | Path) -> list[tuple[str, str]]:
    """Return the pairs (``start`` or ``end``, task id) in the order in which they were written."""
    path = Path(ledger)
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [(event, task_id) for event, _, task_id in (line.partition(" ") for line in lines)]


def recorded(ledger: str, task_id: str, seconds: float, values: Sequence[int]) -> int:
    """Return one more than the largest of `values`, between a start line and an end line."""
    write_line(ledger, f"start {task_id}")
    if seconds > 0:
        time.sleep(seconds)
    value = one_more(*values)
    write_line(ledger, f"end {task_id}")
    return value


def ledger_graph(*, ledger: str, n: int = 20, edges: int = 2, seed: int = 0, seconds: float = 0.0) -> TaskGraph:
    """``entry 0`` .. ``entry n-1``: each depends on up to `edges` earlier ones, chosen by `seed`.

    `ledger_values` tells the value of each; `ledger_edges` its dependencies.
    """
    graph = TaskGraph()
    tasks: list[Task] = []
    for number, earlier in enumerate(ledger_edges(n=n, edges=edges, seed=seed)):
        task_id = f"entry {number}"
        args = [str(Path(ledger).absolute()), task_id, seconds, [tasks[index] for index in earlier]]
        tasks.append(graph.create_task(task_id, recorded, args=args))
    return graph


def ledger_edges(*, n: int = 20, edges: int = 2, seed: int = 0) -> list[list[int]]:
    """Return for each entry of `ledger_graph` the numbers of those that it depends on."""
    chance = random.Random(seed)
    return [sorted(chance.sample(range(number), min(number, chance.randint(0, edges)))) for number in range(n)]


def ledger_values(*, n: int = 20, edges: int = 2, seed: int = 0) -> dict[str, int]:
    """Return the value of each task of `ledger_graph`, computed without tasks."""
    values: list[int] = []
    for earlier in ledger_edges(n=n, edges=edges, seed=seed):
        values.append(max((values[index] for index in earlier), default=-1) + 1)
    return {f"entry {number}": value for number, value in enumerate(values)}


def ledger_chain(*, ledger: str, n: int = 10, seconds: float = 0.0) -> TaskGraph:
    """``entry 0`` -> .. -> ``entry n-1``, each recorded in the ledger; each value is its number."""
    graph = TaskGraph()
    before: list[Task] = []
    for number in range(n):
        task_id = f"entry {number}"
        args = [str(Path(ledger).absolute()), task_id, seconds, before]
        before = [graph.create_task(task_id, recorded, args=args)]
    return graph


def gated(*, fifo: str, ledger: str, n: int = 1) -> TaskGraph:
    """``gate`` waits until the FIFO has been opened for writing and closed again, then ``entry 0`` .. follow.

    Opening the FIFO for writing waits for the task in turn: once it is open, ``gate`` is known to be running.
    """
    graph = TaskGraph()
    path = str(Path(ledger).absolute())
    gate = graph.create_task("gate", pass_gate, args=[str(Path(fifo).absolute()), path])
    for number in range(n):
        graph.create_task(f"entry {number}", recorded, args=[path, f"entry {number}", 0.0, [gate]])
    return graph


def gated_beside(*, fifo: str, ledger: str) -> TaskGraph:
    """``entry 1`` needs ``entry 0`` and the ``gate`` of `gated`."""
    graph = gated(fifo=fifo, ledger=ledger, n=0)
    path = str(Path(ledger).absolute())
    first = graph.create_task("entry 0", recorded, args=[path, "entry 0", 0.0, []])
    graph.create_task("entry 1", recorded, args=[path, "entry 1", 0.0, [first, Task("gate")]])
    return graph


def pass_gate(fifo: str, ledger: str) -> int:
    write_line(ledger, "start gate")
    Path(fifo).read_bytes()
    write_line(ledger, "end gate")
    return 0


def flaky(*, ledger: str, failures: int = 1, retries: int = 1, retry_delay: float = 0.0) -> TaskGraph:
    """``flaky`` fails in its first `failures` attempts, then returns their number; each attempt is a start line."""
    graph = TaskGraph()
    path = str(Path(ledger).absolute())
    graph.create_task("flaky", fail_at_first, args=[path, failures], retries=retries, retry_delay=retry_delay)
    return graph


def fail_at_first(ledger: str, failures: int) -> int:
    write_line(ledger, "start flaky")
    attempt = read_ledger(ledger).count(("start", "flaky"))
    if attempt <= failures:
        raise RuntimeError(f"attempt {attempt} fails")
    write_line(ledger, "end flaky")
    return failures


def ledger_census(*, root: str, out: str, ledger: str, slow: float = 0.0) -> TaskGraph:
    """The census of the files under `root`, each task recorded in the ledger."""
    path = str(Path(ledger).absolute())
    graph = TaskGraph()
    census = build_census(root=root, out=out, slow=slow)
    for desc in [census.get_task_desc(task) for task in census.tasks]:
        graph.add_task(replace(desc, func=recorded_call, args=[path, desc.task.task_id, desc.func, *desc.args]))
    return graph


def recorded_call(ledger: str, task_id: str, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function between a start line and an end line."""
    write_line(ledger, f"start {task_id}")
    value = func(*args, **kwargs)
    write_line(ledger, f"end {task_id}")
    return value
