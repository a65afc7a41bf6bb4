"""Being told of a run: by a command or through apprise, at its end or first failure, also with the client long gone."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from overnight.commands import notice_options
from overnight.commands.notice_options import start_notifier
from overnight.config import Settings
from overnight.notices import Notices
from overnight.state_dir import is_locked, try_lock, unlock, wait_until
from tests.support.command import ROOT, Desk, desk, finished

GRAPHS = "tests.support.graphs"
SECONDS = 60.0
#: Writes what it was given to the file of its first argument, in one step.
TELL = """\
import json, os, sys
facts = {"variables": {n: v for n, v in os.environ.items() if n.startswith("OVERNIGHT_")}, "words": sys.argv[2:]}
facts["json"] = json.load(sys.stdin)
with open(sys.argv[1] + ".new", "w") as file:
    json.dump(facts, file)
os.rename(sys.argv[1] + ".new", sys.argv[1])
"""


@pytest.fixture
def place(short_directory: Path, tmp_path: Path) -> Iterator[Desk]:
    with desk(short_directory / tmp_path.name[-20:]) as given:
        (given.directory / "tell.py").write_text(TELL, encoding="utf-8")
        yield given


def told_by(place: Desk, name: str, *words: str) -> str:
    """A command that writes what it is told to a file, as it is typed."""
    return " ".join([sys.executable, "tell.py", name, *words])


def read(place: Desk, name: str) -> Any:
    """What a notice said, waited for."""
    path = place.directory / name
    assert wait_until(path.exists, SECONDS), (place.state_dir / "notices" / "notices.log").read_text("utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def notes_left(place: Desk) -> list[str]:
    return [path.name for path in (place.state_dir / "notices").glob("*") if path.suffix in (".json", ".lock")]


def test_a_failed_run_is_told_at_its_first_failure_and_at_its_end(place: Desk) -> None:
    at_end, at_failure = told_by(place, "end", "'two words'", "$HOME"), told_by(place, "failure")
    ran = place.run("run", f"{GRAPHS}:raises", "-k", "-j", "1", "--on-finish", at_end, "--on-failure", at_failure)
    assert (ran.status, ran.err) == (1, "")
    assert notes_left(place) == [], "a unit or a container ends what the command leaves behind"
    end, failure = read(place, "end"), read(place, "failure")
    assert end["words"] == ["two words", "$HOME"]  # no shell has read them
    variables, facts = end["variables"], end["json"]
    assert variables["OVERNIGHT_EVENT"] == facts["event"] == "finish"
    assert variables["OVERNIGHT_RUN"] == facts["run"]
    assert variables["OVERNIGHT_RUN_PHASE"] == facts["phase"] == "failed"
    assert (variables["OVERNIGHT_TASKS_FAILED"], variables["OVERNIGHT_TASKS_TOTAL"]) == ("1", "3")
    assert (facts["version"], facts["failed"][0]["task"]) == (1, "culprit")
    told = failure["json"]
    assert (told["event"], told["task"], told["type"], told["message"]) == (
        "failure", "culprit", "ValueError", "on purpose"
    )  # fmt: skip


def test_what_takes_too_long_to_tell_is_said_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(notice_options, "LONGEST_WAIT_SECONDS", 0.05)
    (tmp_path / "notices").mkdir()
    lock = try_lock(tmp_path / "notices" / "run 1-abc.lock")
    assert lock is not None
    notice_options.await_notices(Notices(on_finish="true"), Settings(state_dir=tmp_path), "run 1")
    assert capsys.readouterr().err.startswith(
        "What tells of the run is still at work, and is not waited for any longer"
    )
    notice_options.await_notices(Notices(on_finish="true"), Settings(state_dir=tmp_path), "run 2")
    assert is_locked(tmp_path / "notices" / "run 1-abc.lock")
    unlock(lock)
    notice_options.await_notices(Notices(on_finish="true"), Settings(state_dir=tmp_path), "run 1")
    assert capsys.readouterr().err == ""


def test_the_end_is_told_though_the_client_was_killed(place: Desk) -> None:
    fifo = place.directory / "fifo"
    os.mkfifo(fifo)
    gated = ["-p", f"fifo={fifo}", "-p", "ledger=ledger", "-p", "n=2", "-j", "1"]
    client = place.start("run", f"{GRAPHS}:gated", *gated, "--on-finish", told_by(place, "end"))
    gate = os.open(fifo, os.O_WRONLY)
    client.kill()
    assert finished(client).status == -signal.SIGKILL
    assert not (place.directory / "end").exists()
    os.close(gate)
    assert read(place, "end")["json"]["phase"] == "succeeded"


def test_a_run_that_goes_on_can_be_asked_for_and_twice_is_once(place: Desk) -> None:
    fifo = place.directory / "fifo"
    os.mkfifo(fifo)
    gated = ["-p", f"fifo={fifo}", "-p", "ledger=ledger", "-p", "n=2", "-j", "1"]
    run_id = place.run("submit", f"{GRAPHS}:gated", *gated, "--json").facts["run"]
    gate = os.open(fifo, os.O_WRONLY)
    following = place.start("follow", "last", "--on-finish", told_by(place, "end"))
    assert wait_until(lambda: len(notes_left(place)) == 2, SECONDS)
    both = Notices(on_finish=f"{sys.executable} {place.directory}/tell.py {place.directory}/both")
    for _ in range(2):
        start_notifier(both, Settings(state_dir=place.state_dir), run_id)
    assert len(notes_left(place)) == 4
    os.close(gate)
    assert finished(following).status == 0
    assert read(place, "end")["json"]["counts"] == read(place, "both")["json"]["counts"] == {"done": 3}
    assert wait_until(lambda: notes_left(place) == [], SECONDS)
    assert (place.state_dir / "notices" / "notices.log").read_text("utf-8").count("was given") == 2


@contextmanager
def listening() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A service that takes apprise's JSON notices: its address, and what it was sent."""
    taken: list[dict[str, Any]] = []

    class Taker(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Taker) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"json://secret-user:secret-word@127.0.0.1:{server.server_port}/", taken
        finally:
            server.shutdown()
            thread.join()


def test_apprise_tells_of_both(place: Desk) -> None:
    with listening() as (address, taken):
        place.environ["OVERNIGHT_NOTIFY"] = address
        assert place.run("run", f"{GRAPHS}:raises", "-k", "-j", "1").status == 1
        assert wait_until(lambda: len(taken) == 2, SECONDS)
    failure, end = taken
    assert (failure["type"], end["type"]) == ("failure", "failure")
    assert failure["title"] == f"overnight: a task of {GRAPHS}:raises failed"
    assert failure["message"].startswith("culprit: ValueError: on purpose\novernight status ")
    assert end["title"] == f"overnight: {GRAPHS}:raises failed"
    assert "1 done, 1 failed, 1 skipped" in end["message"]
    assert "\novernight retry " in end["message"]
    assert wait_until(lambda: notes_left(place) == [], SECONDS)
    assert "secret" not in (place.state_dir / "notices" / "notices.log").read_text("utf-8")


def test_a_notice_that_fails_is_logged_and_the_other_is_given(place: Desk) -> None:
    with listening() as (address, taken):
        assert place.run("run", f"{GRAPHS}:diamond", "-j", "1", "--on-finish", "false", "--notify", address).status == 0
        assert wait_until(lambda: len(taken) == 1, SECONDS)
    assert taken[0]["type"] == "success"
    assert "notice by false failed: Command '['false']' returned non-zero" in (
        place.state_dir / "notices" / "notices.log"
    ).read_text("utf-8")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--on-finish", "no-such-program -x"), "--on-finish: there is no program 'no-such-program'."),
        (("--on-finish", "/etc/passwd x"), "--on-finish: '/etc/passwd' is not executable: chmod +x /etc/passwd"),
        (("--on-failure", "echo 'one"), "--on-failure: the quotes of"),
        (("--on-finish", " "), "--on-finish: expected a program and its arguments, found nothing."),
        (("--notify", "carrier-pigeon://coop"), "--notify: apprise knows no address like carrier-pigeon://..."),
    ],
)
def test_what_could_not_be_told_is_refused_before_the_night(
    tmp_path: Path, words: tuple[str, ...], sentence: str
) -> None:
    told = Desk(tmp_path).run("run", f"{GRAPHS}:diamond", *words)
    assert told.status == 2
    assert sentence in told.err
    assert not (tmp_path / ".overnight").exists()


def test_an_address_of_the_environment_is_refused_by_the_name_of_its_variable(tmp_path: Path) -> None:
    given = Desk(tmp_path)
    given.environ["OVERNIGHT_NOTIFY"] = "carrier-pigeon://coop"
    told = given.run("run", f"{GRAPHS}:diamond")
    assert told.status == 2
    assert told.sentence.startswith("overnight: OVERNIGHT_NOTIFY: apprise knows no address like carrier-pigeon://...")


def test_without_apprise_the_extra_is_named(tmp_path: Path) -> None:
    """P3."""
    (tmp_path / "apprise.py").write_text("raise ModuleNotFoundError('no', name='apprise')\n")
    given = Desk(tmp_path)
    given.environ["PYTHONPATH"] = f"{tmp_path}:{ROOT}"
    told = given.run("run", f"{GRAPHS}:diamond", "--notify", "ntfys://topic")
    assert (told.status, "pip install 'overnight[notify]'" in told.sentence) == (2, True)
