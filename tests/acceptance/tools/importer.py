"""Imports tables into a store of JSON lines: bound methods, lambdas, chained tasks and barriers between the stages."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from overnight.cli_tools import TaskGraphCli
from overnight.graph import Task, TaskGraph, chain_tasks, sync_tasks


class Importer:
    """Reads tables in buckets, checks them, and writes one store; each step is a method and a task."""

    def __init__(self, tables: list[str], store: str, buckets: int, ledger: str) -> None:
        self.tables = tables
        self.store = store
        self.buckets = buckets
        self.ledger = ledger

    def note(self, name: str) -> None:
        with Path(self.ledger).open("a", encoding="utf-8") as out:
            out.write(f"{name}\n")

    def schema(self, table: str) -> list[str]:
        self.note(f"schema {Path(table).stem}")
        with Path(table).open(encoding="utf-8") as lines:
            return lines.readline().rstrip("\n").split(",")

    def read_bucket(self, table: str, bucket: int, columns: list[str]) -> list[dict[str, str]]:
        self.note(f"read {Path(table).stem} {bucket}")
        lines = Path(table).read_text(encoding="utf-8").splitlines()[1:]
        rows = [line.split(",") for number, line in enumerate(lines) if number % self.buckets == bucket]
        for row in rows:
            if len(row) != len(columns):
                raise ValueError(f"{Path(table).name}: {len(row)} values for {len(columns)} columns")
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def write_bucket(self, name: str, rows: list[dict[str, str]]) -> str:
        self.note(f"write {name}")
        out = f"{self.store}.{name}"
        Path(out).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return out

    def merge(self, *, buckets: dict[str, list[str]]) -> int:
        self.note("merge")
        lines = [
            line
            for table in sorted(buckets)
            for bucket in buckets[table]
            for line in Path(bucket).read_text(encoding="utf-8").splitlines()
        ]
        Path(self.store).write_text("\n".join(sorted(lines)) + "\n", encoding="utf-8")
        return len(lines)

    def save_count(self, rows: int, unit: str) -> None:
        self.note("count")
        Path(self.store + ".count").write_text(f"{rows}{unit}", encoding="utf-8")

    def graph(self) -> TaskGraph:
        graph = TaskGraph()
        schemas = {
            table: graph.create_task(f"schema {Path(table).name}", self.schema, args=[table], input_files=[table])
            for table in self.tables
        }
        checked = graph.create_task("all schemas", sync_tasks, args=[], deps=list(schemas.values()))
        buckets = {table: self._buckets(graph, table, schemas[table], checked) for table in self.tables}
        written = graph.create_task(
            "all written", sync_tasks, args=[], deps=[task for tasks in buckets.values() for task in tasks]
        )
        graph.create_task(
            "merge", self.merge, args=[], kwargs={"buckets": buckets}, deps=[written], output_files=[self.store]
        )
        graph.create_task(
            "count",
            lambda rows: self.save_count(rows, " rows"),
            args=[Task("merge")],
            output_files=[self.store + ".count"],
        )
        return graph

    def _buckets(self, graph: TaskGraph, table: str, schema: Task, checked: Task) -> list[Task]:
        tasks = []
        for bucket in range(self.buckets):
            name = f"{Path(table).stem}.{bucket}"
            read = TaskGraph.make_task(
                f"read {name}", self.read_bucket, args=[table, bucket, schema], deps=[checked], input_files=[table]
            )
            write = TaskGraph.make_task(f"import {name}", self.write_bucket, args=[name, read.task])
            tasks.append(graph.add_task(chain_tasks(read, write)))
        return tasks


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=Path, nargs="+", required=True)
    parser.add_argument("--store", type=Path, default=Path("store.jsonl"))
    parser.add_argument("--buckets", type=int, default=2)
    parser.add_argument("--ledger", type=Path, default=Path("ledger"))
    parser.add_argument("-v", "--verbose", action="count", default=0)
    TaskGraphCli.add_arguments(parser)
    args = parser.parse_args(argv)
    tables = [str(table.resolve()) for table in args.tables]
    importer = Importer(tables, str(args.store.resolve()), args.buckets, str(args.ledger.resolve()))
    return 0 if TaskGraphCli.process_graph(importer.graph(), **vars(args)) else 1


if __name__ == "__main__":
    sys.exit(main())
