"""Failures by cause, the death certificates behind them, and logs that are out of reach."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import Desk, finished, staffed_desk

FLOW = """
import os, signal, time
from pathlib import Path
from overnight import TaskGraph


def by_value(number):
    print(f"looked at {number}")
    if not Path("mended").exists():
        raise ValueError(f"number {number}")
    return number


def by_key(number):
    return {}[number]


def dies(number):
    print("about to die")
    os.kill(os.getpid(), signal.SIGSEGV)


def waits(path):
    print("has begun", flush=True)
    import logging
    logging.getLogger("flow").warning("a warning of the task")
    while not Path(path).exists():
        time.sleep(0.02)
    print("has ended")


def build():
    graph = TaskGraph()
    values = [graph.create_task(f"value {n}", by_value, args=[n]) for n in range(3)]
    graph.create_task("sum", sum, args=[values])
    graph.create_task("key 0", by_key, args=[0])
    for n in range(2):
        graph.create_task(f"dies {n}", dies, args=[n])
    return graph


def waiting():
    graph = TaskGraph()
    graph.create_task("waits", waits, args=["gate"])
    return graph


def repeated():
    graph = TaskGraph()
    graph.create_task("dies", dies, args=[0], retries=1)
    return graph
"""


@pytest.fixture(scope="module")
def place(short_directory: Path) -> Iterator[Desk]:
    """A desk whose local processes stay from command to command, because this process uses them too."""
    with staffed_desk(short_directory / "causes", FLOW) as given:
        yield given


def test_failures_are_told_by_cause_and_one_cause_is_retried_alone(place: Desk) -> None:
    assert place.run("run", "flow.py:build", "-k").status == 1
    told = place.run("status").out
    assert "3 causes explain 6 failures:\n  failed: 3 tasks: ValueError (flow.py:10 in by_value)\n" in told
    assert "    skipped for them: 1 task\n" in told
    assert "  failed: 2 tasks: TaskDied (flow.py:20 in dies, SIGSEGV)\n" in told
    causes = {cause["type"]: cause for cause in place.run("status", "--json").facts["causes"]}
    assert (causes["ValueError"]["failed"], causes["ValueError"]["skipped"]) == (3, 1)
    assert causes["KeyError"]["example"] == {"task": "key 0", "message": "0"}
    (place.directory / "mended").touch()
    retried = place.run(*causes["ValueError"]["retry"].split()[1:])
    assert retried.status == 0
    assert " goes on with 3 tasks that had failed. Watch it: overnight follow " in retried.out
    assert place.run("follow").status == 1
    after = place.run("status", "--json").facts
    assert after["counts"] == {"done": 4, "failed": 3}
    assert place.run("retry", "last", "-t", "key 0").status == 0
    assert place.run("follow").status == 1
    [history] = place.run("why", "last", "key 0", "--json").facts["more"]
    assert history.startswith("it was handed out 2 times: 1 attempt failed and 1 does not count any more: ")
    # The other causes are still known by the names that they had.
    assert {cause["cause"] for cause in after["causes"]} == {causes[one]["cause"] for one in ("KeyError", "TaskDied")}


def test_a_cause_is_named_by_its_beginning_or_its_type_and_a_slip_names_those_there_are(place: Desk) -> None:
    place.run("run", "flow.py:build", "-k", "-f")
    name = place.run("status", "--json").facts["causes"][0]["cause"]
    unknown = place.run("retry", "last", "--cause", "Valu")
    assert unknown.status == 2
    assert "'Valu' is no cause of failures in run " in unknown.sentence
    assert f"there are {name} (TaskDied, flow.py:20 in dies, SIGSEGV)" in unknown.sentence
    assert place.run("retry", "last", "--cause", "x", "-t", "key 0").status == 2
    for given, tasks in ((name[:4], "2 tasks that had"), ("KeyError", "1 task that had")):
        assert f"goes on with {tasks} failed" in place.run("retry", "last", "--cause", given).out
        assert place.run("follow").status == 1


def test_every_failed_attempt_of_a_task_is_certified_and_told(place: Desk) -> None:
    assert place.run("run", "flow.py:repeated").status == 1
    told = place.run("status", "last", "dies").out
    for attempt in (1, 2):
        assert re.search(
            rf"  attempt {attempt} ended by SIGSEGV: TaskDied: The process of the task on worker \S+ was killed by "
            r"SIGSEGV, peak memory \d+ MB\. \(flow\.py:20 in dies\)\n"
            r"    \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, after \d+ ms, on worker \S+, peak memory \d+ MB\n"
            r"    \| about to die\n    \| Fatal Python error: Segmentation fault\n    \| \n"
            r"    \| Current thread \w+ \(most recent call first\):\n    \|   File \"\S+flow\.py\", line 20 in dies\n",
            told,
        ), told
    assert told.count("about to die") == 2, told
    assert re.search(r"\n  error: TaskDied: The process .* was killed by SIGSEGV, peak memory \d+ MB\.\n$", told), told
    why = place.run("why", "last", "dies").out
    assert re.search(r": TaskDied: The process .* was killed by SIGSEGV, peak memory \d+ MB\.\n", why), why
    deaths = place.run("status", "last", "dies", "--json").facts["deaths"]
    assert [death["attempt"] for death in deaths] == [1, 2]
    assert all(death["ended"] > death["started"] > 1e9 for death in deaths)


def test_a_log_out_of_reach_is_told_from_what_the_server_keeps(place: Desk) -> None:
    logs = place.directory / "logs-elsewhere"
    assert place.run("run", "flow.py:build", "-k", "-f", "--task-log-dir", str(logs)).status == 1
    whole = place.run("logs", "last", "dies 0").out
    assert "about to die" in whole
    assert "(from the server)" not in whole
    shutil.rmtree(logs)
    kept = place.run("logs", "last", "dies 0")
    assert kept.status == 0
    assert re.search(r"^---- dies 0 run \S+ attempt 1 .* \(from the server\)\nabout to die\n", kept.out)
    assert kept.out.count("about to die") == 1
    facts = place.run("logs", "last", "key 0", "--json").facts
    assert [attempt["from"] for attempt in facts["attempts"]] == ["server"]
    assert "KeyError: 0 (flow.py:" in facts["attempts"][0]["text"]
    assert "return {}[number]" in facts["attempts"][0]["text"]


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv of util-linux is not installed")
def test_a_user_who_may_not_read_the_logs_reads_all_that_the_server_keeps(place: Desk) -> None:
    logs = place.directory / "logs-of-others"
    (place.directory / "mended").touch()
    assert place.run("run", "flow.py:build", "-k", "-f", "--task-log-dir", str(logs)).status == 1
    as_anyone = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
    logs.chmod(0)
    try:
        status, why, report, kept, unknown = (
            finished(place.start(*words, inside=as_anyone))
            for words in (
                ("status", "last"),
                ("why", "last", "key 0"),
                ("report", "last", "-o", "others.html"),
                ("logs", "last", "dies 0"),
                ("logs", "last", "value 1"),
            )
        )
    finally:
        logs.chmod(0o700)
    assert [one.status for one in (status, why, report, kept)] == [0, 0, 0, 0], (status, why, report, kept)
    assert "log: " not in status.out
    assert re.search(r"^---- dies 0 run \S+ attempt 1 .* \(from the server\)\nabout to die\n", kept.out)
    assert unknown.sentence.startswith("overnight: Task 'value 1' may have a log, which this user may not read: ")
    assert str(logs) in unknown.sentence


def test_a_log_holds_the_attempts_of_the_run_that_was_named(place: Desk) -> None:
    runs = []
    for _ in range(2):
        place.run("run", "flow.py:repeated", "-f")
        runs.append(place.run("status", "--json").facts["run"])
    for run in runs:
        assert re.findall(r"^---- dies run (\S+) attempt (\d) ", place.run("logs", run, "dies").out, re.MULTILINE) == [
            (run, "1"),
            (run, "2"),
        ]


def test_a_log_is_followed_until_its_task_has_ended(place: Desk) -> None:
    gate = place.directory / "gate"
    gate.unlink(missing_ok=True)
    assert place.run("submit", "flow.py:waiting").status == 0
    follower = place.start("logs", "last", "waits", "-f")
    assert follower.stdout is not None
    said = ""
    while "a warning of the task" not in said:
        said += follower.stdout.readline()
    assert "has begun" in said
    assert follower.poll() is None
    gate.touch()
    ended = finished(follower)
    assert ended.status == 0
    assert ended.out.endswith("has ended\n")


def test_following_a_log_ends_on_ctrl_c(place: Desk) -> None:
    (place.directory / "gate").unlink(missing_ok=True)
    assert place.run("submit", "flow.py:waiting", "-f").status == 0
    follower = place.start("logs", "last", "waits", "-f")
    assert follower.stdout is not None
    follower.stdout.readline()
    follower.send_signal(signal.SIGINT)
    assert finished(follower).status == 130
    (place.directory / "gate").touch()
    assert place.run("follow").status == 0


def test_a_report_is_written_whole_or_not_at_all(place: Desk) -> None:
    place.run("run", "flow.py:repeated", "-f")
    reported = place.run("report")
    run = place.run("status", "--json").facts["run"]
    assert reported.status == 0
    assert f"Wrote {place.directory}/report-{run}.html (" in reported.out
    assert (place.directory / f"report-{run}.html").stat().st_mode & 0o777 == 0o600
    assert place.run("report", "last", "-o", "-").out.startswith("<!doctype html>")
    refused = place.run("report", "last", "-o", "nowhere/report.html")
    assert refused.status == 2
    assert "cannot be written to" in refused.sentence
    assert not list(place.directory.glob(".report*"))


def test_a_report_names_the_place_where_it_is(place: Desk) -> None:
    told = place.run("report", "-o", "../told.html").out
    page = place.directory.parent / "told.html"
    assert f"Open it in a browser: {page.resolve().as_uri()}\n" in told
    page.unlink()


def test_status_tells_the_time_left_of_a_run_that_goes_on(place: Desk) -> None:
    gate = place.directory / "gate"
    gate.unlink(missing_ok=True)
    assert place.run("submit", "flow.py:waiting", "-f").status == 0
    deadline = time.monotonic() + 30
    while not (facts := place.run("status", "--json").facts)["running"] or facts["running"][0]["seconds"] is None:
        assert time.monotonic() < deadline, facts
    assert facts["running"][0]["task"] == "waits"
    assert facts["running"][0]["memory"] > 1e6
    assert facts["seconds_left"].keys() == {"least", "most"}
    gate.touch()
    assert place.run("follow").status == 0
    assert place.run("status", "--json").facts["seconds_left"] is None
