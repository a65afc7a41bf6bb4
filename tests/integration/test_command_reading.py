"""The verbs that look at runs and steer them: submit, status, runs, follow, logs, workers, pause, retry, doctor."""

from __future__ import annotations

import os
import pty
import pwd
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from overnight.local_fleet import ensure_fleet
from tests.support.command import Desk, desk, finished
from tests.support.servers import free_port, running_server, server_binary

GRAPHS = "tests.support.graphs"


@pytest.fixture(scope="module")
def place(short_directory: Path) -> Iterator[Desk]:
    """A desk whose local processes stay from command to command, because this process uses them too."""
    with desk(short_directory / "reading") as given:
        lease = ensure_fleet(given.state_dir, workers=2)
        yield given
        lease.close(stop=False)


def test_a_submitted_run_goes_on_while_readers_come_and_go(short_directory: Path) -> None:
    """QX7; a reader wants nothing of the local processes, and so takes none away."""
    with desk(short_directory / "alone") as given:
        fifo = given.directory / "fifo"
        os.mkfifo(fifo)
        gated = ["-p", f"fifo={fifo}", "-p", "ledger=ledger", "-p", "n=2"]
        submitted = given.run("submit", f"{GRAPHS}:gated", *gated, "--json", "-j", "1")
        assert submitted.facts["attached"] is False
        run_id = submitted.facts["run"]
        gate = os.open(fifo, os.O_WRONLY)
        facts = given.run("status", "--json").facts
        assert (facts["counts"]["running"], [running["task"] for running in facts["running"]]) == (1, ["gate"])
        assert "gate" in given.run("status").out
        assert given.run("runs", "--json").facts[0]["run"] == run_id
        assert len(given.run("workers", "--json").facts) == 1
        follower = given.start("follow", run_id[:-1])
        os.close(gate)
        followed = finished(follower)
        assert (followed.status, "3 done" in followed.out) == (0, True)


def test_status_logs_and_runs_tell_of_a_failed_run(place: Desk) -> None:
    assert place.run("run", f"{GRAPHS}:raises", "-k").status == 1
    told = place.run("status")
    assert re.search(r"failed: culprit: ValueError: on purpose \(culprits\.py:\d+ in \w+\)\n", told.out), told.out
    assert "3 of 3 tasks ended: 1 done, 1 failed, 1 skipped" in told.out
    task = place.run("status", "last", "dependant", "--json").facts
    assert (task["state"], task["skipped_for"], task["dependencies"]) == ("skipped", "culprit", ["culprit"])
    culprit = place.run("status", "last", "culprit")
    assert "raise ValueError(message)" in culprit.out
    assert "overnight_worker" not in culprit.out
    assert "ValueError: on purpose" in place.run("logs", "last", "culprit").out
    assert "failed" in place.run("runs").out
    assert place.run("follow").status == 1


def test_a_paused_run_starts_nothing_until_it_is_resumed(place: Desk) -> None:
    fifo = place.directory / "pause.fifo"
    os.mkfifo(fifo)
    parameters = ["-p", f"fifo={fifo}", "-p", "ledger=pause.ledger", "-p", "n=1"]
    run_id = place.run("submit", f"{GRAPHS}:gated", *parameters, "--json").facts["run"]
    gate = os.open(fifo, os.O_WRONLY)
    assert place.run("pause", run_id).status == 0
    os.close(gate)
    while (counts := place.run("status", run_id, "--json").facts["counts"]).get("done") != 1:
        pass
    assert counts["pending"] == 1
    told = place.run("status", run_id).out
    assert ("paused" in told, "tasks/" in told, " left" in told) == (True, True, False)
    assert place.run("resume", run_id).status == 0
    assert place.run("follow", run_id).status == 0


def test_retry_runs_what_failed_and_what_was_skipped_for_it(place: Desk) -> None:
    flaky = [f"{GRAPHS}:flaky", "-p", "ledger=retry.ledger", "-p", "failures=1", "-p", "retries=0"]
    assert place.run("run", *flaky, "-k").status == 1
    assert place.run("retry").status == 0
    assert place.run("follow").status == 0


def test_ctrl_c_ends_following_and_not_the_run(place: Desk) -> None:
    fifo = place.directory / "follow.fifo"
    os.mkfifo(fifo)
    parameters = ["-p", f"fifo={fifo}", "-p", "ledger=follow.ledger", "-p", "n=1"]
    place.run("submit", f"{GRAPHS}:gated", *parameters)
    gate = os.open(fifo, os.O_WRONLY)
    follower = place.start("follow")
    assert follower.stdout is not None
    follower.stdout.readline()
    follower.send_signal(signal.SIGINT)
    ended = finished(follower)
    assert (ended.status, "The run goes on." in ended.out) == (130, True)
    os.close(gate)
    assert place.run("follow").status == 0


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["status", "no-such-run"], 2, "There is no run 'no-such-run'"),
        (["logs", "last", "culprti"], 2, "The run has no task 'culprti'; did you mean 'culprit'?"),
        (["status", "last", "nothing-like-it"], 2, "The run has no task 'nothing-like-it'"),
        (["cancel"], 5, "is over (failed)"),
        (["pause"], 5, "is over (failed)"),
        (["retry", "-t", "nobody"], 2, "The run has no task 'nobody'"),
    ],
)
def test_what_cannot_be_read_or_steered_is_one_sentence(
    place: Desk, words: list[str], status: int, sentence: str
) -> None:
    assert place.run("run", f"{GRAPHS}:raises").status == 1
    found = place.run(*words)
    assert found.status == status
    assert sentence in found.sentence


@pytest.mark.parametrize("verb", ["status", "runs", "workers", "follow", "cancel", "retry"])
def test_where_nothing_was_ever_run_that_is_said_and_nothing_is_made(tmp_path: Path, verb: str) -> None:
    given = Desk(tmp_path)
    found = given.run(verb)
    assert found.status == 5
    assert "There are no runs here" in found.sentence
    assert list(tmp_path.iterdir()) == []


def test_doctor_tells_what_is_right(place: Desk) -> None:
    while len(place.run("workers", "--json").facts) < 2:
        pass
    told = place.run("doctor")
    assert told.status == 0, told.out
    assert {line.split()[0] for line in told.out.splitlines()} == {"ok"}, told.out
    assert "2 on queue default" in told.out


def test_doctor_tells_a_server_that_does_not_answer(tmp_path: Path) -> None:
    given = Desk(tmp_path)
    given.environ["OVERNIGHT_CONNECT_SECONDS"] = "0.5"
    told = given.run("doctor", "-u", f"redis://:secret@127.0.0.1:{free_port()}/0")
    assert told.status == 4
    assert "fault    server:" in told.out
    assert "secret" not in told.out


def test_doctor_tells_a_server_that_evicts(tmp_path: Path, short_directory: Path) -> None:
    """ADVERSITY 7, row 49."""
    with running_server(
        server_binary("valkey"), short_directory / "evicts", maxmemory="100mb", maxmemory_policy="allkeys-lru"
    ) as url:
        told = Desk(tmp_path).run("doctor", "-u", url)
    assert told.status == 5
    assert "maxmemory-policy noeviction" in told.out


def test_scheduler_and_worker_serve_a_run_on_a_server_of_ones_own(tmp_path: Path, short_directory: Path) -> None:
    with running_server(server_binary("redis"), short_directory / "own") as url:
        given = Desk(tmp_path)
        given.environ["OVERNIGHT_REDIS_URL"] = url
        processes = [given.start("scheduler", stderr=None), given.start("worker", "-j", "2", stderr=None)]
        try:
            assert given.run("run", f"{GRAPHS}:diamond").status == 0
        finally:
            for process in processes:
                process.terminate()
            statuses = [process.wait(30) for process in processes]
            for process in processes:
                process.communicate()
    assert statuses == [0, 0]


def test_a_task_that_wrote_nothing_says_so_and_one_that_did_not_run_says_where_to_look(place: Desk) -> None:
    assert place.run("run", f"{GRAPHS}:raises", "-k", "-f").status == 1
    run_id = place.run("status", "--json").facts["run"]
    silent = place.run("logs", "last", "bystander")
    levels = "Of what tasks log, records below WARNING are kept with run -v."
    assert (silent.status, silent.out, silent.err) == (0, "", f"Task 'bystander' wrote nothing to its log. {levels}\n")
    skipped = place.run("logs", "last", "dependant")
    assert skipped.status == 5
    assert f"it is skipped. This tells of it: overnight status {run_id} dependant" in skipped.sentence


def test_a_task_is_told_in_units_that_people_read_and_a_cached_one_with_its_origin(place: Desk) -> None:
    first = place.run("run", f"{GRAPHS}:raises", "-k", "-f", "--json").facts["run"]
    told = place.run("status", "last", "bystander").out
    assert re.search(r"  started: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\n  took: \d+ [mµ]s\n  peak memory: \d+ MB\n", told), (
        told
    )
    assert place.run("run", f"{GRAPHS}:raises", "-k").status == 1
    cached = place.run("status", "last", "bystander")
    assert re.match(rf"Task bystander: cached, from run {first}, recorded \d{{4}}-\d\d-\d\d ", cached.out), cached.out
    assert place.run("status", "last", "bystander", "--json").facts["record"]["run"] == first


def test_a_run_is_said_to_be_started_by_a_login_name(place: Desk) -> None:
    place.environ["USER"] = ""
    assert place.run("run", f"{GRAPHS}:diamond").status == 0
    assert f" by {pwd.getpwuid(os.getuid()).pw_name}@" in place.run("status").out


def test_workers_names_the_task_that_each_runs(place: Desk) -> None:
    fifo = place.directory / "workers.fifo"
    os.mkfifo(fifo)
    parameters = ["-p", f"fifo={fifo}", "-p", "ledger=workers.ledger", "-p", "n=1"]
    run_id = place.run("submit", f"{GRAPHS}:gated", *parameters, "--json").facts["run"]
    gate = os.open(fifo, os.O_WRONLY)
    held = re.compile(rf"They hold \d tasks? of run {run_id} that none of them names yet\.")
    while f"gate (run {run_id})" not in (told := place.run("workers").out):
        assert held.search(told)
    os.close(gate)
    assert place.run("follow").status == 0
    after = place.run("workers").out  # what they said with their last heartbeat is over
    assert "gate" not in after
    assert f"run {run_id}" not in after


def test_a_log_that_could_not_be_written_is_not_taken_for_silence(place: Desk) -> None:
    logs = place.directory / "logs-that-go"
    assert place.run("run", f"{GRAPHS}:raises", "-k", "-f", "--task-log-dir", str(logs)).status == 1
    shutil.rmtree(logs)
    found = place.run("logs", "last", "bystander")
    assert found.status == 5
    assert f"its directory {logs} cannot be written to" in found.sentence


def test_a_retry_of_what_did_not_fail_is_refused(place: Desk) -> None:
    assert place.run("run", f"{GRAPHS}:diamond", "-f").status == 0
    run_id = place.run("status", "--json").facts["run"]
    for words in ((), ("-t", "left", "-t", "bottom")):
        found = place.run("retry", "last", *words)
        assert found.status == 5
        assert "There is nothing to retry" in found.sentence
        assert run_id in found.sentence
    assert place.run("status", "--json").facts["phase"] == "succeeded"


def test_a_retry_of_a_run_that_goes_on_is_refused_for_tasks_that_have_not_failed(place: Desk) -> None:
    fifo = place.directory / "retry.fifo"
    os.mkfifo(fifo)
    gated = [f"{GRAPHS}:gated", "-p", f"fifo={fifo}", "-p", "ledger=retry.ledger"]
    assert place.run("submit", *gated).status == 0
    gate = os.open(fifo, os.O_WRONLY)
    assert place.run("retry").status == 5
    os.close(gate)
    assert place.run("follow").status == 0


def test_a_name_of_no_run_or_of_several_is_a_slip_of_what_was_typed(place: Desk) -> None:
    for _ in range(2):
        assert place.run("run", f"{GRAPHS}:diamond", "-f").status == 0
    unknown, ambiguous = place.run("status", "nope"), place.run("status", "20")
    assert (unknown.status, ambiguous.status) == (2, 2)
    assert "There is no run 'nope' on the server unix:" in unknown.sentence
    assert unknown.sentence.endswith("This lists them: overnight runs")
    assert "give more of the id" in ambiguous.sentence


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume", "retry", "status", "report"])
def test_an_empty_name_is_never_taken_for_the_only_run(tmp_path: Path, verb: str) -> None:
    """What a script types for a variable that is not set."""
    with desk(tmp_path / "only") as given:
        assert given.run("run", f"{GRAPHS}:noops", "-p", "n=1", "-j", "1").status == 0
        found = given.run(verb, "")
    assert found.status == 2
    assert found.sentence.endswith("an empty name was given.")


def test_a_report_never_takes_the_place_of_a_pipe_a_device_or_a_link(place: Desk, tmp_path: Path) -> None:
    assert place.run("run", f"{GRAPHS}:noops", "-p", "n=1").status == 0
    pipe, link, page = tmp_path / "pipe", tmp_path / "link.html", tmp_path / "page.html"
    os.mkfifo(pipe)
    process = place.start("report", "-o", str(pipe))
    assert pipe.read_text().startswith("<!doctype html>")
    assert finished(process).status == 0
    assert pipe.is_fifo()
    link.symlink_to(page)
    assert place.run("report", "-o", str(link)).status == 0
    assert link.is_symlink()
    assert page.read_text().startswith("<!doctype html>")
    page.unlink()
    page.symlink_to(link)
    found = place.run("report", "-o", str(link))
    assert (found.status, "go in a circle" in found.sentence) == (2, True)


@pytest.mark.parametrize("kind", ["file", "too long"])
def test_what_can_be_no_state_directory_is_refused_in_one_sentence(place: Desk, tmp_path: Path, kind: str) -> None:
    unfit = tmp_path / ("x" * 300 if kind == "too long" else "file")
    if kind == "file":
        unfit.touch()
    found = place.run("status", "--state-dir", str(unfit))
    assert found.status == 2
    assert "state directory" in found.sentence


def test_a_current_directory_that_is_gone_is_told(place: Desk, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    in_it = ("/bin/sh", "-c", 'cd "$0" && rmdir "$0" && exec "$@"', str(gone))
    found = finished(place.start("doctor", inside=in_it))
    assert (found.status, found.sentence) == (
        1,
        "overnight: The current directory does not exist any more: go to another one.",
    )


@pytest.mark.parametrize("words", [("-q", "default"), ("--release", "here", "--wanted")])
def test_options_of_workers_that_do_not_go_together_are_refused(place: Desk, words: tuple[str, ...]) -> None:
    found = place.run("workers", *words)
    assert (found.status, found.out) == (2, "")
    assert "--wanted" in found.sentence


@pytest.mark.parametrize("words", [("doctor", "default"), ("scheduler", "--limit", "db"), ("status", "--jsn")])
def test_what_is_wrong_and_where_help_is_are_two_sentences(place: Desk, words: tuple[str, ...]) -> None:
    found = place.run(*words)
    assert found.status == 2
    assert re.search(rf"[.?] 'overnight {words[0]} --help' shows what can be given\.$", found.sentence)


@pytest.mark.parametrize("words", [("-q", ""), ("-d", " ")])
def test_doctor_takes_no_empty_name_for_a_queue_or_a_directory(place: Desk, words: tuple[str, ...]) -> None:
    """It is what is left of a variable that is not set."""
    found = place.run("doctor", *words)
    assert (found.status, found.out) == (2, "")
    assert f"{words[0]}: expected a name, found an empty one." in found.sentence


def test_what_was_typed_steers_no_terminal_in_a_sentence_about_it(place: Desk) -> None:
    found = place.run("status", "-u", "redis://\x01\x1b[2J\u009b/")
    assert found.status in (2, 4)
    assert found.sentence.isprintable()


def test_a_log_is_raw_off_a_terminal_and_steers_none(place: Desk, tmp_path: Path) -> None:
    """M2. What a program reads is what the task wrote."""
    file = place.directory / "flow_of_controls.py"
    file.write_text(
        "from overnight import TaskGraph\n"
        "def loud():\n    print('one\\x1b[31mred\\x9b2J\\x07\\ttab\\u202e', flush=True)\n"
        "def build():\n    graph = TaskGraph()\n    graph.create_task('loud', loud, args=[])\n    return graph\n"
    )
    assert place.run("run", "flow_of_controls.py:build", "--task-log-dir", str(tmp_path / "logs")).status == 0
    written = "one\x1b[31mred\x9b2J\x07\ttab\u202e"
    assert written in place.run("logs", "last", "loud").out
    master, slave = pty.openpty()
    process = place.start("logs", "last", "loud", stdout=slave)
    os.close(slave)
    told = b""
    with suppress(OSError):  # the terminal's other end is closed
        while piece := os.read(master, 65536):
            told += piece
    os.close(master)
    assert finished(process).status == 0
    assert "one\\x1b[31mred\\x9b2J\\x07\ttab\\u202e" in told.decode()
