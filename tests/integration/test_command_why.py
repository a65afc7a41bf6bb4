"""`overnight why` of tasks of a run: before, while and after they run."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overnight.local_fleet import ensure_fleet
from tests.support.command import Desk, desk, finished

GRAPHS = "tests.support.graphs"
SEVERAL = """
from pathlib import Path
from overnight import TaskGraph


def part(number):
    if not Path("mended").exists():
        raise ValueError(number)
    return number


def build():
    graph = TaskGraph()
    parts = [graph.create_task(f"part {number}", part, args=[number]) for number in range(7)]
    graph.create_task("sum", sum, args=[parts])
    return graph
"""


@pytest.fixture(scope="module")
def place(short_directory: Path) -> Iterator[Desk]:
    """A desk whose two workers stay from command to command."""
    with desk(short_directory / "why") as given:
        lease = ensure_fleet(given.state_dir, workers=2)
        yield given
        lease.close(stop=False)


def why(place: Desk, *words: str) -> dict[str, Any]:
    found = place.run("why", *words, "--json")
    assert found.status == 0, found.err
    facts: dict[str, Any] = found.facts
    return facts


def started(place: Desk, name: str, *more: str) -> int:
    """Start a gated run, wait until its gate runs, and return what opens the gate when it is closed."""
    fifo = place.directory / f"{name}.fifo"
    os.mkfifo(fifo)
    gated = [f"{GRAPHS}:gated", "-p", f"fifo={fifo}", "-p", f"ledger={name}.ledger", *more]
    assert place.run("submit", *gated).status == 0
    return os.open(fifo, os.O_WRONLY)


def test_a_task_that_waits_names_what_runs_in_the_end_and_one_that_runs_its_worker(place: Desk) -> None:
    gate = started(place, "waits", "-p", "n=1")
    waits = why(place, "entry 0")
    assert (waits["kind"], waits["reason"]) == ("dependencies", "it waits for its dependency: gate")
    assert [(one["task"], one["state"]) for one in waits["waits_for"]] == [("gate", "running")]
    assert waits["had_to_run"] == "never ran"
    while " for " not in (reason := why(place, "gate")["reason"]):  # its worker names it with its next heartbeat
        assert "holds it and runs it now" in reason
    assert reason.startswith("it is running for ")
    assert "on " in place.run("why", "entry 0").out
    os.close(gate)
    assert place.run("follow").status == 0
    assert why(place, "entry 0")["kind"] == "done"


def test_a_paused_run_says_so_and_with_what_it_goes_on(place: Desk) -> None:
    gate = started(place, "pauses")
    assert place.run("pause").status == 0
    told = place.run("why", "last", "entry 0").out
    assert "is pending: the run is paused. This lets it go on: overnight resume " in told
    assert "  it waits for its dependency: gate\n" in told
    assert place.run("resume").status == 0
    os.close(gate)
    assert place.run("follow").status == 0


def test_a_task_on_a_queue_that_nobody_serves_says_how_to_start_a_worker(place: Desk) -> None:
    submitted = place.run("submit", f"{GRAPHS}:noops", "-p", "n=1", "-q", "nobody's", "-f", "--json")
    run_id = submitted.facts["run"]
    facts = why(place, run_id, "noop 0")
    assert facts["kind"] == "no_worker"
    assert "overnight worker -q 'nobody'\"'\"'s'" in facts["reason"]
    assert facts["had_to_run"] == "forced (-f)"
    assert place.run("cancel", run_id).status == 0
    assert place.run("follow", run_id).status == 5
    assert why(place, run_id, "noop 0")["reason"] == "the run was cancelled"


def test_a_failed_attempt_is_said_to_be_repeated_and_when(place: Desk) -> None:
    flaky = [f"{GRAPHS}:flaky", "-p", "ledger=why.ledger", "-p", "failures=9", "-p", "retries=9"]
    run_id = place.run("submit", *flaky, "-p", "retry_delay=3000", "--json").facts["run"]
    while (facts := why(place, run_id, "flaky"))["kind"] != "backing_off":
        assert facts["kind"] != "failed"
    assert facts["reason"].startswith("it failed once and is tried again at ")
    assert "its last attempt failed: RuntimeError: attempt 1 fails" in facts["more"][-1]
    assert place.run("cancel", run_id).status == 0
    assert place.run("follow", run_id).status == 5


def test_what_failed_and_what_was_skipped_for_it_say_why_and_what_to_type(place: Desk) -> None:
    assert place.run("run", f"{GRAPHS}:raises", "-k").status == 1
    failed, skipped = why(place, "culprit"), why(place, "dependant")
    assert failed["reason"].startswith("attempt 1 failed: ValueError: on purpose (")
    assert skipped["reason"].startswith("it needs culprit, which failed: ValueError: on purpose (")
    assert any("overnight retry" in line and "-t culprit" in line for line in failed["advice"])
    assert place.run("why", "dependant").out.startswith(f"Task dependant of run {failed['run']} was skipped: it needs")


def test_what_was_skipped_names_all_that_failed_and_what_runs_all_of_it_again(place: Desk) -> None:
    (place.directory / "several.py").write_text(SEVERAL)
    assert place.run("run", "several.py:build", "-k").status == 1
    told = why(place, "sum")
    assert {waited["task"] for waited in told["waits_for"]} == {f"part {number}" for number in range(7)}
    assert {waited["state"] for waited in told["waits_for"]} == {"failed"}
    assert "it also needs 6 more that failed: part " in told["more"][-1]
    [advice] = told["advice"]
    assert advice.startswith("run all of them again when the causes are mended: overnight retry ")
    (place.directory / "mended").touch()
    retry = shlex.split(advice.partition(": overnight ")[2])
    assert place.run(*retry).status == 0
    assert place.run("follow").status == 0, "the advice does what it says"


def test_a_second_run_says_what_was_up_to_date_and_why_the_rest_ran(place: Desk) -> None:
    assert place.run("run", f"{GRAPHS}:raises", "-k").status == 1
    assert why(place, "culprit")["had_to_run"] == "failed with ValueError"
    assert why(place, "dependant")["had_to_run"] == "never ran"
    cached = why(place, "bystander")
    assert (cached["kind"], cached["had_to_run"]) == ("cached", None)
    assert cached["more"][0].startswith("its record is from run ")


def test_a_run_that_ends_at_its_first_failure_says_so_of_what_it_cancelled(place: Desk) -> None:
    assert place.run("run", f"{GRAPHS}:many_raise", "-p", "n=40", "-f").status == 1
    run = place.run("status", "--json").facts
    assert run["counts"]["cancelled"] > 0
    ids = [f"culprit {number}" for number in range(40)]
    answers = (why(place, "last", task) for task in reversed(ids))
    cancelled = next(answer for answer in answers if answer["state"] == "cancelled")
    assert cancelled["reason"].startswith(
        "the run ends at its first failure (it was started without --keep-going), and "
    )


def test_an_unknown_task_is_a_slip_with_the_nearest(place: Desk) -> None:
    assert place.run("run", f"{GRAPHS}:raises", "-k").status == 1
    found = place.run("why", "culprti")
    assert (found.status, "did you mean 'culprit'?" in found.sentence) == (2, True)


LIMITED = """
from pathlib import Path
from overnight import TaskGraph


def waits(fifo):
    Path(fifo).read_text()


def build(*, fifo: str, greedy: bool = False):
    graph = TaskGraph()
    graph.create_task("n0", waits, args=[fifo], resources={"db": 1}, priority=1)
    graph.create_task("n1", int, args=[], resources={"db": 1})
    if greedy:
        graph.create_task("greedy", int, args=[], resources={"db": 5})
    return graph
"""


def test_a_limit_over_all_runs_is_told_with_who_holds_it_and_which_task_never_starts(
    tmp_path: Path, redis_url: str
) -> None:
    """O6, decision 0047."""
    with desk(tmp_path / "limited") as place:
        (place.directory / "flow.py").write_text(LIMITED)
        os.mkfifo(fifo := place.directory / "fifo")
        place.environ["OVERNIGHT_REDIS_URL"] = redis_url
        served = [place.start("scheduler", "--limit", "db=1"), place.start("worker", "-j", "2")]
        try:
            target = ["flow.py:build", "-p", f"fifo={fifo}"]
            first = place.run("submit", *target, "-p", "greedy=1", "-k", "--json").facts["run"]
            gate = os.open(fifo, os.O_WRONLY)
            in_use = "it needs 1 of db, of which 1 of 1 for all runs are in use by "
            facts = why(place, "n1")
            assert (facts["kind"], facts["reason"]) == ("limit", f"{in_use}n0")
            assert [waited["task"] for waited in facts["waits_for"]] == ["n0"]
            assert (
                "db, of which its scheduler has only 1 for all runs: it never starts" in why(place, "greedy")["reason"]
            )
            assert "Task greedy needs 5 of 'db'" in place.run("status").out
            assert place.run("submit", *target).status == 0
            assert why(place, "last", "n1")["reason"] == f"{in_use}run {first}"
            os.close(gate)
        finally:
            for process in served:
                process.terminate()
                finished(process)


def test_a_limit_that_is_given_to_a_run_holds_for_it_beside_a_scheduler_that_has_none(short_directory: Path) -> None:
    """O6: what the scheduler that is there does over all runs is told."""
    with desk(short_directory / "unlimited") as place:
        (place.directory / "flow.py").write_text(LIMITED)
        os.mkfifo(fifo := place.directory / "fifo")
        target = ["flow.py:build", "-p", f"fifo={fifo}"]
        lease = ensure_fleet(place.state_dir, workers=2)
        try:
            assert place.run("run", f"{GRAPHS}:diamond").status == 0  # after which the scheduler is there
            place.environ["OVERNIGHT_RESOURCE_LIMITS"] = "db=1"
            assert "needs 5 of 'db', and there are only 1" in place.run("submit", *target, "-p", "greedy=1").sentence
            submitted = place.run("submit", *target)
            alone = "OVERNIGHT_RESOURCE_LIMITS=db=1 holds for this run alone."
            assert f"The scheduler that is there has other limits over all runs: none; {alone}\n" in submitted.err
            gate = os.open(fifo, os.O_WRONLY)
            facts = why(place, "n1")
            assert (facts["kind"], facts["reason"]) == ("limit", "it needs 1 of db, of which 1 of 1 are in use by n0")
            place.environ["OVERNIGHT_RESOURCE_LIMITS"] = "db=2"
            again = place.run("submit", *target)
            assert "OVERNIGHT_RESOURCE_LIMITS=db=2 does not hold for this run, which began with: db=1." in again.err
            os.close(gate)
            assert place.run("follow").status == 0
        finally:
            lease.close(stop=False)
