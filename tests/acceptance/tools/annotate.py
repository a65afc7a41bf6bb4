"""Annotates a table of positions, region by region: parts, one file of them, compressed, with an index.

The parts are deleted once they are joined and the joined file once it is compressed, so only the compressed table
and its index stay.
"""

from __future__ import annotations

import argparse
import gzip
import logging
import sys
from pathlib import Path

from overnight.cli_tools import TaskGraphCli
from overnight.graph import TaskGraph

logger = logging.getLogger(__name__)


def note(ledger: str, name: str) -> None:
    with Path(ledger).open("a", encoding="utf-8") as out:
        out.write(f"{name}\n")


def annotate_region(positions: str, first: int, last: int, part: str, ledger: str) -> str:
    note(ledger, f"annotate {first}-{last}")
    logger.info("annotating %d-%d", first, last)
    lines = []
    for line in Path(positions).read_text(encoding="utf-8").splitlines():
        position, base = line.split("\t")
        if first <= int(position) <= last:
            if base == "?":
                raise ValueError(f"position {position} has no base")
            lines.append(f"{position}\t{base}\t{'purine' if base in 'AG' else 'pyrimidine'}\n")
    Path(part).write_text("".join(lines), encoding="utf-8")
    return part


def concatenate(parts: list[str], joined: str, ledger: str) -> None:
    note(ledger, "concatenate")
    with Path(joined).open("w", encoding="utf-8") as out:
        out.writelines(Path(part).read_text(encoding="utf-8") for part in parts)
    for part in parts:
        Path(part).unlink()


def compress(joined: str, packed: str, ledger: str) -> None:
    note(ledger, "compress")
    Path(packed).write_bytes(gzip.compress(Path(joined).read_bytes(), mtime=0))
    Path(joined).unlink()


def index(packed: str, out: str, ledger: str) -> None:
    note(ledger, "index")
    with gzip.open(packed, "rt", encoding="utf-8") as lines:
        positions = [line.split("\t")[0] for line in lines]
    Path(out).write_text(f"{positions[0]}-{positions[-1]} {len(positions)}\n", encoding="utf-8")


def build_graph(positions: str, work: Path, regions: int, length: int, ledger: str) -> TaskGraph:
    graph = TaskGraph()
    graph.input_files.append(positions)
    parts = []
    tasks = []
    for number in range(regions):
        part = str(work / f"part_{number}.tsv")
        first, last = number * length + 1, (number + 1) * length
        tasks.append(
            graph.create_task(
                f"annotate:{first}-{last}",
                annotate_region,
                args=[positions, first, last, part, ledger],
                intermediate_output_files=[part],
            )
        )
        parts.append(part)
    joined, packed = str(work / "joined.tsv"), str(work / "annotated.tsv.gz")
    concat_task = graph.create_task(
        "concat", concatenate, args=[parts, joined, ledger], deps=tasks, input_files=parts,
        intermediate_output_files=[joined],
    )  # fmt: skip
    compress_task = graph.create_task(
        "compress", compress, args=[joined, packed, ledger], deps=[concat_task], input_files=[joined],
        output_files=[packed],
    )  # fmt: skip
    graph.create_task(
        "index", index, args=[packed, packed + ".idx", ledger], deps=[compress_task], input_files=[packed],
        output_files=[packed + ".idx"],
    )  # fmt: skip
    return graph


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--positions", type=Path, required=True)
    parser.add_argument("--work-dir", type=Path, default=Path())
    parser.add_argument("--regions", type=int, default=5)
    parser.add_argument("--length", type=int, default=10)
    parser.add_argument("--ledger", type=Path, default=Path("ledger"))
    parser.add_argument("-v", "--verbose", action="count", default=0)
    TaskGraphCli.add_arguments(parser)
    args = parser.parse_args(argv)
    graph = build_graph(
        str(args.positions.resolve()), args.work_dir.resolve(), args.regions, args.length, str(args.ledger.resolve())
    )
    return 0 if TaskGraphCli.process_graph(graph, **vars(args)) else 1


if __name__ == "__main__":
    sys.exit(main())
