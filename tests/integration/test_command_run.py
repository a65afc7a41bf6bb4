"""`overnight run`: what it prints, what it leaves, what it exits with."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.local_fleet import ensure_fleet
from tests.support.command import Desk, desk, finished
from tests.support.graphs import read_ledger

GRAPHS = "tests.support.graphs"
FORGETFUL = """
from pathlib import Path
from overnight import TaskGraph


def build():
    graph = TaskGraph()
    graph.create_task("writes", Path.touch, args=[Path("there")], output_files=["there"])
    graph.create_task("forgets", int, args=[], output_files=["nowhere/y"], intermediate_output_files=["gone"])
    return graph
"""


@pytest.fixture(scope="module")
def kept_desk(short_directory: Path) -> Iterator[Desk]:
    """A desk whose local processes stay from command to command, because this process uses them too."""
    with desk(short_directory / "run") as given:
        lease = ensure_fleet(given.state_dir, workers=2)
        yield given
        lease.close(stop=False)


def test_a_run_ends_with_its_counts_and_a_second_one_starts_nothing(short_directory: Path) -> None:
    """P11: 0 only when all succeeded; nothing to run needs no server, scheduler or worker."""
    with desk(short_directory / "twice") as fresh:
        first = fresh.run("run", f"{GRAPHS}:diamond", "-j", "1")
        assert (first.status, first.err) == (0, "")
        assert "4 done" in first.out
        server_log = fresh.state_dir / "server" / "redis.log"
        said = server_log.read_bytes()
        second = fresh.run("run", f"{GRAPHS}:diamond")
        assert second.status == 0
        assert second.out.startswith("Nothing to do: all 4 tasks are finished")
        assert server_log.read_bytes() == said


def test_a_forced_run_runs_everything_again(kept_desk: Desk) -> None:
    """B14."""
    command = ("run", f"{GRAPHS}:ledger_chain", "-p", "ledger=forced", "-p", "n=2")
    assert kept_desk.run(*command).status == 0
    assert kept_desk.run(*command, "--force").status == 0
    assert read_ledger(kept_desk.directory / "forced").count(("start", "entry 0")) == 2


def test_other_parameters_find_no_records_of_these(kept_desk: Desk) -> None:
    """Arguments are no part of a record's identity, so each set of parameters has its own records."""
    assert kept_desk.run("run", f"{GRAPHS}:sleeps", "-p", "seconds=0.01").status == 0
    assert "1 of 1 tasks would run" in kept_desk.run("run", f"{GRAPHS}:sleeps", "-p", "seconds=0.02", "-n").out


def test_task_ids_run_a_task_and_what_it_needs(kept_desk: Desk) -> None:
    """G24."""
    facts = kept_desk.run("run", f"{GRAPHS}:chain", "-p", "n=5", "-t", "link 1", "--json").facts
    assert (facts["phase"], facts["counts"]) == ("succeeded", {"done": 2})


def test_a_failure_stops_the_run_and_names_error_log_and_next_command(kept_desk: Desk) -> None:
    command = ("run", f"{GRAPHS}:raises", "-p", "message=a\x1b[31mb")
    failed = kept_desk.run(*command)
    assert failed.status == 1
    assert r"failed: culprit: ValueError: a\x1b[31mb" in failed.out
    assert "\x1b" not in failed.out
    log = next(line for line in failed.out.splitlines() if line.startswith("    log: ")).removeprefix("    log: ")
    assert "ValueError" in Path(log).read_text()
    assert "this continues: overnight run" in failed.out


def test_keep_going_runs_what_does_not_depend_on_a_failure(kept_desk: Desk) -> None:
    facts = kept_desk.run("run", f"{GRAPHS}:raises", "-p", "message=kept", "-k", "--json")
    assert facts.status == 1
    assert facts.facts["counts"] == {"done": 1, "failed": 1, "skipped": 1}
    assert [failed["type"] for failed in facts.facts["failed"]] == ["ValueError"]


def test_programs_are_told_of_every_failure_and_people_of_each_cause(kept_desk: Desk) -> None:
    words = ("run", f"{GRAPHS}:many_raise", "-p", "n=30", "-k")
    told = kept_desk.run(*words)
    assert "\n1 cause explains 30 failures:\n" in told.out
    group = re.search(
        r"  failed: 30 tasks: ValueError \((culprits\.py:\d+ in \w+)\)\n    such as culprit 0: ValueError: number 0 "
        r"\(\1\)\n      log: \S+\n    run them again: overnight retry \S+ --cause (\w{6})\n",
        told.out,
    )
    assert group, told.out
    for again in (("follow",), ("status",), words):
        facts = kept_desk.run(*again, "--json").facts
        assert {(one["task"], one["message"]) for one in facts["failed"]} == {
            (f"culprit {n}", f"number {n}") for n in range(30)
        }
        [cause] = facts["causes"]
        assert (cause["cause"], cause["type"], cause["where"]) == (group[2], "ValueError", group[1])
        assert (cause["failed"], cause["skipped"]) == (30, 0)


def test_verbose_shows_the_traceback_of_the_task(kept_desk: Desk) -> None:
    assert "raise ValueError(message)" in kept_desk.run("run", f"{GRAPHS}:raises", "-p", "message=long", "-v").out


def test_a_file_defines_tasks_that_workers_import(kept_desk: Desk) -> None:
    file = kept_desk.directory / "sub" / "flow_of_a_file.py"
    file.parent.mkdir()
    file.write_text(
        "from overnight import TaskGraph\n"
        "class Kind:\n    pass\n"
        "def make():\n    return Kind()\n"
        "def check(kind):\n    assert type(kind) is Kind\n"
        "def build():\n"
        "    graph = TaskGraph()\n"
        "    graph.create_task('check', check, args=[graph.create_task('make', make, args=[])])\n"
        "    return graph\n"
    )
    found = kept_desk.run("run", "sub/flow_of_a_file.py:build", "-v")
    assert found.status == 0, found.out


def test_a_declared_output_that_was_not_written_is_told(kept_desk: Desk) -> None:
    """C9: its task runs again each time, and would say `succeeded` each time."""
    (kept_desk.directory / "forgetful.py").write_text(FORGETFUL)
    said = "1 task has succeeded and not written what it declares; it runs again next time: forgets (nowhere/y)"
    first = kept_desk.run("run", "forgetful.py:build")
    assert (first.status, first.out.splitlines()[-1]) == (0, said)
    again = kept_desk.run("run", "forgetful.py:build", "--json")
    assert (again.facts["counts"], again.err.splitlines()[-1]) == ({"done": 1, "cached": 1}, said)


def test_a_closed_standard_output_does_not_stop_the_run(kept_desk: Desk) -> None:
    """ADVERSITY 7, row 52."""
    reader, writer = os.pipe()
    process = kept_desk.start("run", f"{GRAPHS}:sleeps", "-p", "n=3", stdout=writer)
    os.close(writer)
    os.close(reader)
    assert finished(process).status == 0
    assert process.stderr is not None


FULL = Path("/dev/full")
TOLD_OF_FULL = "overnight: Standard output cannot be written: No space left on device."


@pytest.mark.skipif(not FULL.exists(), reason="the kernel has no /dev/full")
@pytest.mark.parametrize(
    "words", [("runs",), ("runs", "--json"), ("status",), ("--help",), ("--version",), ("doctor",)]
)
def test_a_full_disk_under_standard_output_is_one_sentence_and_no_success(kept_desk: Desk, words: tuple[str]) -> None:
    if words == ("status",):
        assert kept_desk.run("run", f"{GRAPHS}:noops", "-p", "n=1").status == 0
    with FULL.open("w") as full:
        found = finished(kept_desk.start(*words, stdout=full))
    assert (found.status, found.sentence) == (1, TOLD_OF_FULL)


@pytest.mark.skipif(not FULL.exists(), reason="the kernel has no /dev/full")
def test_a_run_that_cannot_be_told_of_ends_all_the_same(kept_desk: Desk, tmp_path: Path) -> None:
    records = tmp_path / "records"
    with FULL.open("w") as full:
        found = finished(kept_desk.start("run", f"{GRAPHS}:noops", "-p", "n=2", "-d", str(records), stdout=full))
    assert (found.status, found.sentence) == (1, TOLD_OF_FULL)
    assert len(list(records.glob("*.flag"))) == 2


@pytest.mark.parametrize(
    "words", [("runs",), ("runs", "--json"), ("doctor",), ("plan", f"{GRAPHS}:noops", "-p", "n=2")]
)
def test_what_only_tells_ends_in_silence_where_nobody_reads(kept_desk: Desk, words: tuple[str]) -> None:
    """As a program does that a closed pipe ends."""
    reader, writer = os.pipe()
    os.close(reader)
    found = finished(kept_desk.start(*words, stdout=writer))
    os.close(writer)
    assert (found.status, found.err) == (128 + signal.SIGPIPE, "")


def test_following_ends_with_its_reader_and_the_run_goes_on(kept_desk: Desk, tmp_path: Path) -> None:
    fifo, ledger = tmp_path / "gate", tmp_path / "ledger"
    os.mkfifo(fifo)
    run = kept_desk.start("run", f"{GRAPHS}:gated", "-p", f"fifo={fifo}", "-p", f"ledger={ledger}")
    with fifo.open("w"):  # the run is there as soon as this is open
        reader, writer = os.pipe()
        os.close(reader)
        assert finished(kept_desk.start("follow", stdout=writer)).status == 128 + signal.SIGPIPE
        os.close(writer)
    assert finished(run).status == 0


def test_given_directories_hold_records_and_logs(kept_desk: Desk, tmp_path: Path) -> None:
    status_dir, log_dir = tmp_path / "records", tmp_path / "logs"
    run = ("run", f"{GRAPHS}:noops", "-p", "n=2", "-d", str(status_dir), "--task-log-dir", str(log_dir), "-v")
    assert kept_desk.run(*run).status == 0
    assert len(list(status_dir.glob("*.flag"))) == 2
    assert len(list(log_dir.glob("log_*.log"))) == 2


def test_nothing_is_coloured_off_a_terminal(kept_desk: Desk) -> None:
    assert "\x1b" not in kept_desk.run("run", f"{GRAPHS}:noops", "-p", "n=3").out


def test_a_part_of_the_demo_ends_with_its_totals(kept_desk: Desk) -> None:
    told = kept_desk.run("demo", "--limit", "5", "--out", "counted")
    assert told.status == 0
    totals = json.loads((kept_desk.directory / "counted" / "census.json").read_text())["totals"]
    assert totals["files"] == 5
    assert "The census: 5 files" in told.out
    assert str(kept_desk.directory / "counted") in told.out
