"""`overnight plan`, `run -n`, and `why` and `graph` of a target: what a run would do, before it is run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overnight.fleet_files import fleet_files
from overnight.local_fleet import ensure_fleet
from overnight.state_dir import is_locked, wait_until
from tests.support.command import SECONDS, Desk, desk, finished
from tests.support.servers import free_port

TARGET = "tests.support.planned:build"
GRAPHS = "tests.support.graphs"
HOUR = 3600
WIDE = """
from pathlib import Path
from overnight import TaskGraph
def make(out): Path(out).write_text("x")
def build():
    if not Path("out0").exists(): Path("in.txt").write_text("x")
    graph = TaskGraph()
    made = [graph.create_task(f"make {n}", make, args=[f"out{n}"], input_files=["in.txt"], output_files=[f"out{n}"])
            for n in range(3)]
    graph.create_task("end", make, args=["end"], deps=made)
    return graph
"""


@pytest.fixture(scope="module")
def ran(short_directory: Path) -> Iterator[Desk]:
    """A desk at which the pipeline has been run once; records are in ``records``."""
    with desk(short_directory / "plan") as given:
        assert given.run("run", TARGET, "-j", "1", "-d", "records").status == 0
        yield given


@pytest.fixture
def place(ran: Desk) -> Iterator[Desk]:
    """That desk, all of whose files have their times again afterwards."""
    kept = {path: path.stat().st_mtime_ns for path in ran.directory.iterdir() if path.is_file()}
    yield ran
    for path, mtime in kept.items():
        if not path.exists():
            path.write_text("0 regions.bed")
        os.utime(path, ns=(mtime, mtime))


def plan_of(place: Desk, *words: str) -> dict[str, Any]:
    facts: dict[str, Any] = place.run("plan", TARGET, "-d", "records", *words, "--json").facts
    return facts


def reasons_of(facts: dict[str, Any]) -> dict[str, str]:
    return {task["task"]: task["reason"] for task in facts["would_run"]}


def later(path: Path, seconds: float) -> None:
    os.utime(path, (path.stat().st_atime, (path.parent / "part.tsv").stat().st_mtime + seconds))


def test_a_plan_of_what_never_ran_tells_so_and_makes_nothing(tmp_path: Path) -> None:
    given = Desk(tmp_path)
    told = given.run("plan", f"{GRAPHS}:chain", "-p", "n=2")
    assert told.status == 0
    assert told.out.splitlines() == [
        "TASK    REASON",
        "link 0  never ran",
        "link 1  never ran",
        "2 of 2 tasks would run.",
        "How long that takes is not known: no task of these functions has ended yet (no server runs here).",
    ]
    assert given.run("run", f"{GRAPHS}:chain", "-p", "n=2", "-n").out == told.out
    assert list(tmp_path.iterdir()) == []


def test_after_a_run_nothing_would_run(place: Desk) -> None:
    told = place.run("plan", TARGET, "-d", "records", "-v")
    assert "0 of 4 tasks would run. 4 are up to date." in told.out
    assert "up to date: count a\n" in told.out
    assert plan_of(place)["up_to_date"] == ["count a", "count b", "merge", "annotate"]


def test_each_task_has_one_reason_and_what_leads_to_it_is_counted(place: Desk) -> None:
    later(place.directory / "regions.bed", 2 * HOUR)
    facts = plan_of(place)
    assert reasons_of(facts) == {"annotate": "input regions.bed is newer than output part.tsv by 2 h"}
    os.utime(place.directory / "a.txt")
    facts = plan_of(place)
    assert [(task["task"], task["cause"]) for task in facts["would_run"]] == [
        ("count a", None), ("merge", "count a"), ("annotate", None),
    ]  # fmt: skip
    assert reasons_of(facts)["merge"] == "needs count a, which will run"
    assert [(cause["tasks"], cause["dependants"]) for cause in facts["causes"]] == [(1, 1), (1, 0)]
    assert facts["up_to_date"] == ["count b"]


def test_reasons_that_differ_only_in_what_a_task_makes_are_one_cause(tmp_path: Path) -> None:
    given = Desk(tmp_path)
    (tmp_path / "wide.py").write_text(WIDE)
    assert given.run("run", "wide.py:build", "-j", "1").status == 0
    os.utime(tmp_path / "in.txt", (0, (tmp_path / "out0").stat().st_mtime + HOUR))
    told = given.run("plan", "wide.py:build")
    assert "  input in.txt is newer than what was made from it: 3, and 1 because of them\n" in told.out
    (tmp_path / "in.txt").unlink()
    (tmp_path / "out1").unlink()
    causes = given.run("plan", "wide.py:build", "--json").facts["causes"]
    assert {cause["reason"] for cause in causes} == {"input in.txt is missing", "output out1 is missing"}
    given.close()


def test_a_deleted_output_and_another_function_are_reasons(place: Desk) -> None:
    (place.directory / "part.tsv").unlink()
    assert reasons_of(plan_of(place)) == {"annotate": "output part.tsv is missing"}
    changed = reasons_of(plan_of(place, "-p", "again=true"))["annotate"]
    assert changed == "function changed from tests.support.planned:annotate to tests.support.planned:annotate_again"


def test_durations_come_from_records_where_no_server_tells_them(place: Desk) -> None:
    facts = plan_of(place, "-f", "-j", "2")
    assert set(reasons_of(facts).values()) == {"forced (-f)"}
    expected = facts["expected"]
    assert 0 < expected["longest_chain_seconds"] <= expected["least_seconds"] <= expected["most_seconds"]
    assert (expected["workers"], expected["unknown_tasks"]) == (2, 0)
    assert expected["work_seconds"] == pytest.approx(sum(task["seconds"] for task in facts["would_run"]), abs=1e-4)


def test_a_task_of_a_function_that_never_ran_is_of_unknown_duration(place: Desk) -> None:
    (place.directory / "part.tsv").unlink()
    told = place.run("plan", TARGET, "-d", "elsewhere", "-j", "2").out
    assert "How long that takes is not known" in told
    facts = plan_of(place, "-p", "again=true")
    assert [task["seconds"] is None for task in facts["would_run"]] == [False]


def test_a_server_that_does_not_answer_does_not_keep_a_plan_from_being_made(place: Desk) -> None:
    later(place.directory / "regions.bed", HOUR)
    told = place.run("plan", TARGET, "-d", "records", "-u", f"redis://127.0.0.1:{free_port()}/0")
    assert told.status == 0
    assert "1 of 4 tasks would run. 3 are up to date." in told.out


def test_what_a_server_has_learned_tells_how_long_other_tasks_of_a_function_take(short_directory: Path) -> None:
    with desk(short_directory / "learned") as given:
        lease = ensure_fleet(given.state_dir, workers=2)  # which keeps the server
        assert given.run("run", f"{GRAPHS}:sleeps", "-p", "n=3", "-p", "seconds=0.2", "-j", "2").status == 0
        facts = given.run("plan", f"{GRAPHS}:sleeps", "-p", "n=5", "-p", "seconds=0.2", "-j", "2", "--json").facts
        lease.close(stop=False)
    seconds = [task["seconds"] for task in facts["would_run"]]
    assert len(seconds) == 5
    assert all(0.2 <= one < 1 for one in seconds)
    assert facts["expected"]["least_seconds"] == pytest.approx(sum(seconds) / 2, rel=0.01)


def test_a_run_that_works_with_the_same_records_is_named(short_directory: Path) -> None:
    with desk(short_directory / "active") as given:
        fifo = given.directory / "plan.fifo"
        os.mkfifo(fifo)
        gated = [f"{GRAPHS}:gated", "-p", f"fifo={fifo}", "-p", "ledger=plan.ledger"]
        run_id = given.run("submit", *gated, "-j", "1", "--json").facts["run"]
        gate = os.open(fifo, os.O_WRONLY)
        assert given.run("plan", *gated, "--json").facts["active_run"] == run_id
        assert f"Run {run_id} works with these records now" in given.run("plan", *gated).out
        os.close(gate)
        assert given.run("follow").status == 0


def test_why_tells_of_a_task_of_a_target_all_that_leads_to_its_run(place: Desk) -> None:
    os.utime(place.directory / "a.txt")
    facts = place.run("why", TARGET, "annotate", "-d", "records", "--json").facts
    assert (facts["state"], facts["reason"]) == ("would_run", "needs merge, which will run")
    assert [step["task"] for step in facts["because_of"]] == ["merge", "count a"]
    assert facts["because_of"][-1]["reason"].startswith("input a.txt is newer than its record by ")
    told = place.run("why", TARGET, "count b", "-d", "records").out
    assert told.startswith("Task count b would not run: its record stands: its input file is not newer")
    slip = place.run("why", TARGET, "cuont a", "-d", "records")
    assert (slip.status, "did you mean 'count a'?" in slip.sentence) == (2, True)


def test_a_graph_is_drawn_with_what_would_run(place: Desk) -> None:
    os.utime(place.directory / "b.txt")
    for ending in ("svg", "dot", "mmd"):
        facts = place.run("graph", TARGET, "-d", "records", "-o", f"flow.{ending}", "--json").facts
        assert (facts["tasks"], facts["counts"]) == (4, {"up to date": 1, "would run": 3})
        text = (place.directory / f"flow.{ending}").read_text()
        assert [name for name in ("count a", "count b", "merge", "annotate") if name not in text] == []


def test_a_picture_that_cannot_be_written_leaves_the_former_one_as_it_was(place: Desk) -> None:
    words = ("graph", TARGET, "-o", "kept.svg")
    assert place.run(*words).status == 0
    former = (place.directory / "kept.svg").read_bytes()
    without_room = ("/bin/sh", "-c", 'ulimit -f 0; exec "$@"', "sh")
    found = finished(place.start(*words, inside=without_room))
    assert found.status == 2
    assert "The picture cannot be written to kept.svg: File too large." in found.sentence
    assert (place.directory / "kept.svg").read_bytes() == former
    assert not list(place.directory.glob(".kept*"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["graph", TARGET, "-o", "flow.png"], "A picture is a file ending in .svg, .dot or .mmd, not 'flow.png'."),
        (["graph", TARGET, "-o", "no/flow.svg"], "cannot be written to no/flow.svg: No such file or directory."),
        (["graph", "last", "-o", "x.svg", "-p", "a=b"], "-p, -t and -d belong to a TARGET"),
        (["why", "last", "merge", "-p", "a=b"], "-p and -d belong to a TARGET"),
        (["why"], "Missing argument 'TASK'"),
    ],
)
def test_what_cannot_be_told_or_drawn_is_one_sentence(place: Desk, words: list[str], sentence: str) -> None:
    found = place.run(*words)
    assert found.status == 2
    assert sentence in found.sentence


FAILING = """
from pathlib import Path
from overnight import TaskGraph


def part(number):
    if number and not Path("mended").exists():
        raise RuntimeError(number)


def build():
    graph = TaskGraph()
    parts = [graph.create_task(f"part {number}", part, args=[number]) for number in range(2)]
    graph.create_task("sum", len, args=[parts])
    return graph
"""


def test_what_failed_while_no_client_was_there_is_not_said_never_to_have_run(short_directory: Path) -> None:
    with desk(short_directory / "unseen") as place:
        (place.directory / "flow.py").write_text(FAILING)
        lease = ensure_fleet(place.state_dir, workers=1)
        try:
            run_id = place.run("submit", "flow.py:build", "-k", "--json").facts["run"]
            while place.run("status", "--json").facts["phase"] == "active":
                pass
            reason = f"failed with RuntimeError in run {run_id}"
            for words in (["plan"], ["run", "-n"]):
                facts: dict[str, Any] = place.run(*words, "flow.py:build", "--json").facts
                assert reasons_of(facts) == {"part 1": reason, "sum": "never ran"}
            assert place.run("why", "flow.py:build", "part 1", "--json").facts["reason"] == reason
            (place.directory / "mended").touch()
            assert place.run("run", "flow.py:build").status == 0
            assert place.run("plan", "flow.py:build", "--json").facts["would_run"] == []
        finally:
            lease.close(stop=False)


def test_what_failed_unseen_is_known_when_the_private_server_has_ended(short_directory: Path) -> None:
    with desk(short_directory / "gone") as place:
        place.environ["OVERNIGHT_IDLE_SECONDS"] = "0.5"
        (place.directory / "flow.py").write_text(FAILING)
        run_id = place.run("submit", "flow.py:build", "-k", "-j", "1", "--json").facts["run"]
        keeper = fleet_files(place.state_dir, None).keeper_lock
        assert wait_until(lambda: not is_locked(keeper), SECONDS)
        assert reasons_of(place.run("plan", "flow.py:build", "--json").facts)["part 1"] == "failed with RuntimeError"
        facts = place.run("why", "flow.py:build", "part 1", "--json").facts
        assert (facts["record"]["state"], facts["record"]["run"]) == ("failed", run_id)
        assert not is_locked(keeper)


def test_of_many_tasks_that_are_alike_a_few_stand_for_all(tmp_path: Path) -> None:
    with desk(tmp_path / "many") as place:
        told = place.run("plan", f"{GRAPHS}:noops", "-p", "n=300").out.splitlines()
        assert [line.split("  ")[0] for line in told[:5]] == [
            "TASK",
            "noop 0",
            "noop 1",
            "noop 2",
            "... 297 more of noop",
        ]
        assert told[5] == "300 of 300 tasks would run."
        assert len(place.run("plan", f"{GRAPHS}:noops", "-p", "n=300", "-v").out.splitlines()) > 300
        assert len(place.run("plan", f"{GRAPHS}:noops", "-p", "n=300", "--json").facts["would_run"]) == 300
        assert "... " not in place.run("plan", f"{GRAPHS}:noops", "-p", "n=12").out
