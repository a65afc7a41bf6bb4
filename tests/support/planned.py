"""A pipeline with files: samples are counted, counts are merged, the merge is annotated with regions."""

from __future__ import annotations

from pathlib import Path

from overnight.graph import TaskGraph


def count(sample: str) -> int:
    return len(Path(sample).read_text(encoding="utf-8"))


def merge(*counts: int) -> int:
    return sum(counts)


def annotate(total: int, regions: str, out: str) -> None:
    Path(out).write_text(f"{total} {Path(regions).read_text(encoding='utf-8')}", encoding="utf-8")


def annotate_again(total: int, regions: str, out: str) -> None:
    annotate(total, regions, out)


def build(*, again: bool = False) -> TaskGraph:
    """``count a``, ``count b`` -> ``merge`` -> ``annotate``; its files are in the current directory."""
    graph = TaskGraph()
    for path in ("a.txt", "b.txt", "regions.bed"):
        if not Path(path).exists():
            Path(path).write_text(path, encoding="utf-8")
    counts = [graph.create_task(f"count {n}", count, args=[f"{n}.txt"], input_files=[f"{n}.txt"]) for n in "ab"]
    merged = graph.create_task("merge", merge, args=counts)
    function = annotate_again if again else annotate
    graph.create_task(
        "annotate",
        function,
        args=[merged, "regions.bed", "part.tsv"],
        input_files=["regions.bed"],
        output_files=["part.tsv"],
    )
    return graph
