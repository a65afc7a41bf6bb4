"""How long it takes to decide what must run, and to plan it: 100,000 tasks in two layers, half of them with a flag.

Prints a table. Run: ``python -m tests.benchmarks.status_100k [TASKS]``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from overnight.cache import FileTaskCache, identity_of
from overnight.flag_writing import write_flags
from overnight.flags import AttemptFacts, encode_flag, record_of, sealed_header
from overnight.graph import TaskGraph
from overnight.inspection import decide
from overnight.keyring import Keyring
from overnight.lineage import DependencyRecord
from overnight.naming import flag_name
from overnight.recording import success_record
from overnight.task import Task

T = TypeVar("T")
FACTS = AttemptFacts("run-1", 1, "2026-01-01T00:00:00+00:00", "2026-01-01T00:00:01+00:00", 1.0)


def work(*_args: object) -> None:
    """Stand for a task's function."""


def built(tasks: int) -> TaskGraph:
    graph = TaskGraph()
    half = tasks // 2
    for number in range(half):
        graph.create_task(f"part-{number}", work, args=[number])
    for number in range(half, tasks):
        graph.create_task(f"join-{number}", work, args=[Task(f"part-{number - half}"), Task("part-0")])
    return graph


def written(graph: TaskGraph, directory: str, count: int) -> None:
    flags: list[tuple[str, bytes]] = []
    records: dict[Task, DependencyRecord] = {}
    for task in graph.tasks[:count]:
        desc = graph.get_declared(task)[0]
        header, body = success_record(identity_of(desc), task.task_id, FACTS)
        records[task] = record_of(sealed_header(header, body))
        flags.append((flag_name(task.task_id), encode_flag(header, body, Keyring())))
    failed = [outcome.error for outcome in write_flags(directory, flags) if outcome.error]
    if failed:
        raise failed[0]


def parsed_plainly(directory: str) -> None:
    """The least that reading all headers can cost: the yardstick for `decide`."""
    for path in Path(directory).iterdir():
        with path.open("rb") as file:
            json.loads(file.read(4096).split(b"\n", 2)[1])


def timed(what: str, action: Callable[[], T]) -> T:
    start, cpu = time.perf_counter(), time.process_time()
    answer = action()
    print(f"{what:<44} {time.perf_counter() - start:8.2f} s   {time.process_time() - cpu:8.2f} s of CPU")
    return answer


def planned(tasks: int, directory: str) -> None:
    """Carry out the command, which builds the graph itself; its output is as long as the plan."""
    words = ["plan", f"{Path(__file__)}:built", "-p", f"tasks={tasks}", "-d", directory, "--state-dir", directory]
    subprocess.run([sys.executable, "-m", "overnight.commands", *words], stdout=subprocess.DEVNULL, check=True)


def main(tasks: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        graph = timed(f"build a graph of {tasks} tasks", lambda: built(tasks))
        timed(f"write {tasks // 2} flags", lambda: written(graph, directory, tasks // 2))
        timed("open and parse each header, nothing else", lambda: parsed_plainly(directory))
        timed("topological order", graph.topological_order)
        decisions = timed("decide (orders, reads flags, applies rule)", lambda: decide(graph, FileTaskCache(directory)))
        timed("overnight plan, as a command of its own", lambda: planned(tasks, directory))
        print(f"completed {len(decisions.completed)}, must run {len(decisions.must_run)}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
