"""Parts -> one file of them -> compressed -> index, each step deleting what it consumed, and a report beside it.

Every task notes its id in the ledger, a file of lines. The graph declares the consumed files as intermediate.
"""

from __future__ import annotations

import gzip
import os
from pathlib import Path

from overnight.graph import TaskGraph

PARTS = 3
STEPS = frozenset({*(f"part {number}" for number in range(PARTS)), "concat", "compress", "index"})


class Pipeline:
    """The files of a pipeline below a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.sources = [directory / f"source{number}" for number in range(PARTS)]
        self.joined, self.packed = directory / "joined", directory / "joined.gz"
        self.index, self.notes, self.report = directory / "index", directory / "notes", directory / "report"
        self.ledger = directory / "ledger"
        for source in [*self.sources, self.notes]:
            source.write_text(f"{source.name}\n")

    def graph(self) -> TaskGraph:
        """Return a new graph over the files."""
        graph, ledger = TaskGraph(), str(self.ledger)
        parts = [str(self.directory / f"part{number}") for number in range(PARTS)]
        joined, packed, index = str(self.joined), str(self.packed), str(self.index)
        ends = [
            graph.create_task(
                f"part {number}", copy, args=[f"part {number}", str(self.sources[number]), part, ledger],
                input_files=[str(self.sources[number])], intermediate_output_files=[part],
            )
            for number, part in enumerate(parts)
        ]  # fmt: skip
        concat = graph.create_task(
            "concat", concatenate, args=[parts, joined, ledger],
            deps=ends, input_files=parts, intermediate_output_files=[joined],
        )  # fmt: skip
        compress = graph.create_task(
            "compress", pack, args=[joined, packed, ledger], deps=[concat], input_files=[joined], output_files=[packed]
        )
        graph.create_task(
            "index", copy, args=["index", packed, index, ledger],
            deps=[compress], input_files=[packed], output_files=[index],
        )  # fmt: skip
        graph.create_task(
            "report", copy, args=["report", str(self.notes), str(self.report), ledger],
            input_files=[str(self.notes)], output_files=[str(self.report)],
        )  # fmt: skip
        return graph

    def ran(self) -> list[str]:
        """Return the ids of the tasks that ran since the last call, sorted."""
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        self.ledger.write_text("")
        return sorted(lines)

    def age(self, seconds: float) -> None:
        """Make all files below the directory older, flags included, so that what changes now is the newest."""
        for path in self.directory.rglob("*"):
            if path.is_file():
                earlier = path.stat().st_mtime_ns - int(seconds * 10**9)
                os.utime(path, ns=(earlier, earlier))


def _note(ledger: str, task_id: str) -> None:
    with Path(ledger).open("a") as file:
        file.write(f"{task_id}\n")


def copy(task_id: str, source: str, target: str, ledger: str) -> None:
    """Copy a file."""
    _note(ledger, task_id)
    Path(target).write_bytes(Path(source).read_bytes())


def concatenate(parts: list[str], joined: str, ledger: str) -> None:
    """Join files and delete them."""
    _note(ledger, "concat")
    Path(joined).write_text("".join(Path(part).read_text() for part in parts))
    for part in parts:
        Path(part).unlink()


def pack(joined: str, packed: str, ledger: str) -> None:
    """Compress a file and delete it."""
    _note(ledger, "compress")
    Path(packed).write_bytes(gzip.compress(Path(joined).read_bytes()))
    Path(joined).unlink()
