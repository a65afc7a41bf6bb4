"""A pipeline of 300 tasks that does not go well: two causes of failure in 40 tasks, one that asks for more memory than
there is, and a slow one. What is wrong lies outside, in the current directory, and can be mended there."""

from __future__ import annotations

import time
from pathlib import Path

from overnight import TaskGraph

SAMPLES = 99
WITHOUT_REFERENCE = 15
UNREADABLE = 25


def fetch(number: int) -> int:
    """Return what later steps work on."""
    return number


def parse(number: int) -> int:
    """Fail for every fourth sample until ``schema-2`` is there."""
    print(f"parsing sample {number}")
    if number % 4 == 0 and not Path("schema-2").exists():
        raise ValueError(f"sample {number}, line 7: expected 9 columns, found 8")
    return number


def annotate(number: int) -> int:
    """Fail for the first fifteen of another fourth of the samples until ``reference`` is there."""
    if number % 4 == 1 and number < 4 * WITHOUT_REFERENCE:
        Path("reference").read_text(encoding="ascii")
    return number


def index() -> int:
    """Hold more and more memory, in a few steps up to what `memory-cap` says in MB (600 if it is not there)."""
    cap = Path("memory-cap")
    most = int(cap.read_text(encoding="ascii")) if cap.exists() else 600
    print("building the index")
    held = [b"x" * 10_000_000 for _ in range(most // 10)]
    return len(held)


def align(seconds: float) -> str:
    """Take long."""
    time.sleep(seconds)
    return "aligned"


def merge(values: list[int], entries: int, state: str) -> int:
    """Return the sum of all samples' numbers."""
    Path("merged").write_text(f"{entries} {state}", encoding="ascii")
    return sum(values)


def build(*, seconds: float = 5.0) -> TaskGraph:
    """Three steps for each sample, an index, an alignment, and what brings all of it together."""
    graph = TaskGraph()
    annotated = []
    for number in range(SAMPLES):
        fetched = graph.create_task(f"fetch {number}", fetch, args=[number])
        parsed = graph.create_task(f"parse {number}", parse, args=[fetched])
        annotated.append(graph.create_task(f"annotate {number}", annotate, args=[parsed]))
    entries = graph.create_task("index", index, args=[])
    state = graph.create_task("align", align, args=[seconds])
    graph.create_task("merge", merge, args=[annotated, entries, state], output_files=["merged"])
    return graph
