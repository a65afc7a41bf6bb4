"""Three programs of users, each on every executor: first run, re-run, list, status, -t, --force, failures, healing.

The programs (`tests/acceptance/tools`) know the documented API alone. Each task adds a line to a ledger, which tells
what ran. Every call is a process of its own, as when a user types it.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from overnight.local_fleet import ensure_fleet

TOOLS = Path(__file__).parent / "tools"
EXECUTORS = {
    "sequential": ("-j", "1"),
    "process-pool": ("-j", "2", "--pp"),
    "dask": ("-j", "2", "--executor", "dask"),
    "queue": ("-j", "2", "--executor", "queue"),
}


@dataclass
class Desk:
    """A directory in which a user runs one tool with the options of one executor."""

    directory: Path
    tool: str
    options: tuple[str, ...]
    executor: tuple[str, ...]

    def call(self, *words: str, exit_status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run the tool; check its exit status."""
        command = [
            sys.executable,
            str(TOOLS / f"{self.tool}.py"),
            *words[:1],
            *self.options,
            *self.executor,
            *words[1:],
        ]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OVERNIGHT_")}
        done = subprocess.run(
            command, cwd=self.directory, env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == exit_status, done.stderr
        return done

    def ran(self, *words: str, exit_status: int = 0) -> list[str]:
        """Return what ran in a call, sorted."""
        ledger = self.directory / "ledger"
        ledger.unlink(missing_ok=True)
        self.call(*words, exit_status=exit_status)
        return sorted(ledger.read_text(encoding="utf-8").splitlines()) if ledger.exists() else []

    def states(self, *words: str) -> dict[str, str]:
        """Return the state of each task by `status`."""
        lines = self.call("status", *words).stdout.splitlines()[1:]
        return {line[:50].rstrip(): line[50:].strip() for line in lines if not line.startswith((" ", "Traceback"))}


Open = Callable[[str, dict[str, str], tuple[str, ...]], Desk]


@pytest.fixture(params=EXECUTORS)
def open_desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    def opened(tool: str, files: dict[str, str], options: tuple[str, ...]) -> Desk:
        for name, content in files.items():
            (tmp_path / name).write_text(content, encoding="utf-8")
        return Desk(tmp_path, tool, options, EXECUTORS[request.param])

    # On the queue, server and workers stay from call to call, as they do for a user who calls again soon.
    lease = ensure_fleet(tmp_path / ".overnight", workers=2) if request.param == "queue" else None
    yield opened
    if lease is not None:
        lease.close(stop=True)


def positions(bad: int | None = None) -> str:
    return "".join(f"{at}\t{'?' if at == bad else 'ACGT'[at % 4]}\n" for at in range(1, 51))


def test_the_annotator(open_desk: Open) -> None:
    desk = open_desk("annotate", {"positions.tsv": positions()}, ("--positions", "positions.tsv"))
    everything = [*(f"annotate {n}1-{n + 1}0".replace("annotate 01", "annotate 1") for n in range(5)), "compress",
                  "concatenate", "index"]  # fmt: skip
    assert set(desk.states().values()) == {"NEEDS_COMPUTE"}
    assert desk.ran("run", "-v") == everything
    packed = desk.directory / "annotated.tsv.gz"
    assert len(gzip.decompress(packed.read_bytes()).splitlines()) == 50
    assert (desk.directory / "annotated.tsv.gz.idx").read_text() == "1-50 50\n"
    assert not list(desk.directory.glob("part_*"))
    logs = "".join(log.read_text() for log in (desk.directory / ".task-log").iterdir())
    assert "annotating 11-20" in logs

    assert desk.ran("run") == []
    assert set(desk.states().values()) == {"COMPUTED"}
    (desk.directory / "annotated.tsv.gz.idx").unlink()
    assert desk.ran("run") == ["index"]
    assert desk.ran("run", "-t", "annotate:11-20", "--force") == ["annotate 11-20"]
    assert desk.ran("run", "--force") == everything

    (desk.directory / "positions.tsv").write_text(positions(bad=15))
    assert set(desk.states().values()) == {"NEEDS_COMPUTE"}
    assert "position 15 has no base" in desk.call("run", exit_status=1).stderr
    kept_going = desk.call("run", "--keep-going", exit_status=1)
    assert "Task annotate:11-20 failed with:" in kept_going.stderr
    assert "position 15 has no base" in kept_going.stdout
    states = desk.states()
    assert states["annotate:11-20"] == "ERROR (-v to see exception)"
    assert states["annotate:1-10"] == states["annotate:41-50"] == "COMPUTED"
    assert states["concat"] == states["index"] == "SKIPPED (annotate:11-20)"
    assert "position 15 has no base" in desk.call("status", "-v").stdout

    (desk.directory / "positions.tsv").write_text(positions())
    assert desk.ran("run") == everything
    assert desk.ran("run") == []


def test_the_resource_statistics(open_desk: Open) -> None:
    numbers = {f"r{n}.txt": "\n".join(str(value * n) for value in range(1, 9)) for n in (1, 2, 3)}
    desk = open_desk("resource_stats", numbers, ("--resources", *numbers))
    stages = {stage: [f"{stage} {Path(name).stem}" for name in numbers] for stage in ("range", "histogram")}
    everything = sorted([*stages["range"], *stages["histogram"], "common range", "save"])
    assert desk.ran("run") == everything
    report = json.loads((desk.directory / "statistics.json").read_text())
    assert report == {"title": "values", "range": {"low": 1.0, "high": 24.0}, "counts": [11, 7, 4, 2]}

    assert desk.ran("run", "-v") == []
    listed = desk.call("list").stdout.splitlines()
    assert [line.split()[-1] for line in listed] == ["Status"] + ["COMPUTED"] * 8
    (desk.directory / "statistics.json").unlink()
    assert desk.ran("run") == ["save"]
    assert desk.ran("run", "-t", "r1 range", "r2 range", "--force") == ["range r1", "range r2"]

    (desk.directory / "r2.txt").write_text("1\nmany\n")
    assert "could not convert string to float" in desk.call("run", exit_status=1).stderr
    desk.call("run", "--keep-going", exit_status=1)
    states = desk.states()
    assert states["r2 range"] == "ERROR (-v to see exception)"
    assert states["save"] == "SKIPPED (r2 range)"
    (desk.directory / "r2.txt").write_text(numbers["r2.txt"])
    assert "range r2" in desk.ran("run")
    assert json.loads((desk.directory / "statistics.json").read_text()) == report
    assert desk.ran("run", "--force") == everything


def test_the_importer(open_desk: Open) -> None:
    tables = {f"{name}.csv": "id,name\n" + "".join(f"{n},{name}{n}\n" for n in range(5)) for name in "ab"}
    desk = open_desk("importer", tables, ("--tables", *tables))
    steps = [f"{step} {name}{mark}{bucket}" for name in "ab" for bucket in (0, 1) for step, mark in
             (("read", " "), ("write", "."))]  # fmt: skip
    everything = sorted(["schema a", "schema b", *steps, "merge", "count"])
    assert desk.ran("run", "-v") == everything
    rows = [json.loads(line) for line in (desk.directory / "store.jsonl").read_text().splitlines()]
    assert len(rows) == 10
    assert (desk.directory / "store.jsonl.count").read_text() == "10 rows"

    assert desk.ran("run") == []
    assert set(desk.states().values()) == {"COMPUTED"}
    (desk.directory / "store.jsonl.count").unlink()
    assert desk.ran("run") == ["count"]
    assert desk.ran("run", "-t", "schema b.csv", "--force") == ["schema b"]

    (desk.directory / "b.csv").write_text(tables["b.csv"] + "6\n")
    assert "b.csv: 1 values for 2 columns" in desk.call("run", exit_status=1).stderr
    desk.call("run", "--keep-going", exit_status=1)
    states = desk.states()
    assert states["import b.1"] == "ERROR (-v to see exception)"
    assert states["import a.0"] == states["import b.0"] == "COMPUTED"
    assert states["merge"] == states["count"] == "SKIPPED (import b.1)"
    assert "1 values for 2 columns" in desk.call("status", "-v").stdout
    (desk.directory / "b.csv").write_text(tables["b.csv"])
    desk.call("run")
    assert len((desk.directory / "store.jsonl").read_text().splitlines()) == 10
    assert desk.ran("run", "--force") == everything


def test_an_unknown_task_and_an_unknown_option_are_usage_errors(open_desk: Open) -> None:
    desk = open_desk("annotate", {"positions.tsv": positions()}, ("--positions", "positions.tsv"))
    assert "index" in desk.call("run", "-t", "indexx", exit_status=1).stderr
    desk.call("run", "--no-such-option", exit_status=2)
