"""Statistics of resources: value ranges first, then histograms within the common range, merged and written.

Results travel as arguments: through a fan-in, out to every histogram again, and through a second fan-in.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from overnight.cli_tools import TaskGraphCli
from overnight.graph import TaskGraph


class Histogram:
    def __init__(self, low: float, high: float, bins: int) -> None:
        self.low, self.high = low, high
        self.counts = [0] * bins

    def add(self, value: float) -> None:
        place = int((value - self.low) / (self.high - self.low) * len(self.counts))
        self.counts[min(place, len(self.counts) - 1)] += 1

    @staticmethod
    def merge(*histograms: Histogram) -> Histogram:
        merged = Histogram(histograms[0].low, histograms[0].high, len(histograms[0].counts))
        merged.counts = [sum(column) for column in zip(*(each.counts for each in histograms), strict=True)]
        return merged


def note(ledger: str, name: str) -> None:
    with Path(ledger).open("a", encoding="utf-8") as out:
        out.write(f"{name}\n")


def values_of(resource: str) -> list[float]:
    return [float(line) for line in Path(resource).read_text(encoding="utf-8").split()]


def value_range(resource: str, *, ledger: str) -> tuple[float, float]:
    note(ledger, f"range {Path(resource).stem}")
    values = values_of(resource)
    return min(values), max(values)


def common_range(*ranges: tuple[float, float], ledger: str) -> dict[str, float]:
    note(ledger, "common range")
    return {"low": min(low for low, _ in ranges), "high": max(high for _, high in ranges)}


def histogram(resource: str, limits: dict[str, float], *, bins: int, ledger: str) -> Histogram:
    note(ledger, f"histogram {Path(resource).stem}")
    result = Histogram(limits["low"], limits["high"], bins)
    for value in values_of(resource):
        result.add(value)
    return result


def save(report: dict[str, Any], out: str, ledger: str) -> int:
    note(ledger, "save")
    merged = Histogram.merge(*report["parts"])
    content = {"title": report["title"], "range": report["range"], "counts": merged.counts}
    Path(out).write_text(json.dumps(content), encoding="utf-8")
    return sum(merged.counts)


def build_graph(resources: list[Path], out: str, bins: int, ledger: str) -> TaskGraph:
    graph = TaskGraph()
    files = {path.stem: str(path.resolve()) for path in resources}
    ranges = [
        graph.create_task(f"{name} range", value_range, args=[file], kwargs={"ledger": ledger}, input_files=[file])
        for name, file in files.items()
    ]
    limits = graph.create_task("common range", common_range, args=ranges, kwargs={"ledger": ledger})
    histograms = [
        graph.create_task(
            f"{name} histogram", histogram, args=[file, limits], kwargs={"bins": bins, "ledger": ledger},
            input_files=[file],
        )
        for name, file in files.items()
    ]  # fmt: skip
    report = {"title": "values", "range": limits, "parts": histograms}
    graph.create_task("save", save, args=[report, out, ledger], output_files=[out])
    return graph


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resources", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, default=Path("statistics.json"))
    parser.add_argument("--bins", type=int, default=4)
    parser.add_argument("--ledger", type=Path, default=Path("ledger"))
    parser.add_argument("-v", "--verbose", action="count", default=0)
    TaskGraphCli.add_arguments(parser, default_task_status_dir="status")
    args = parser.parse_args(argv)
    graph = build_graph(args.resources, str(args.out.resolve()), args.bins, str(args.ledger.resolve()))
    return 0 if TaskGraphCli.process_graph(graph, **vars(args)) else 1


if __name__ == "__main__":
    sys.exit(main())
