"""Bad inputs: one clear sentence and the right exit status, with nothing lost (ADVERSITY 7)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.command import Desk
from tests.support.servers import free_port, running_server, server_binary

GRAPHS = "tests.support.graphs"


@dataclass(frozen=True)
class Typed:
    """Words after ``overnight run``, and what must come of them before anything runs."""

    words: tuple[str, ...]
    status: int
    sentence: str


REFUSED = {
    "a target that does not import": Typed(("no_such_package:build",), 2, "There is no module 'no_such_package'"),
    "a module that fails": Typed(
        ("broken_flow:build",), 2, "ZeroDivisionError: division by zero (broken_flow.py, line 1)"
    ),
    "a missing callable": Typed((f"{GRAPHS}:diamon",), 2, "did you mean 'diamond'?"),
    "no form of a target": Typed(("flow",), 2, "A target is package.module:callable or path/to/file.py:callable"),
    "a callable that returns no graph": Typed(
        (f"{GRAPHS}:no_graph",), 2, "returned a str; a target returns a TaskGraph"
    ),
    "a callable that fails": Typed((f"{GRAPHS}:cannot_be_built",), 2, "LookupError: the input list is missing ("),
    "an unknown parameter": Typed((f"{GRAPHS}:noops", "-p", "m=1"), 2, "has no parameter 'm'"),
    "a parameter of another type": Typed((f"{GRAPHS}:noops", "-p", "n=x"), 2, "n must be a whole number, not 'x'"),
    "a missing parameter": Typed((f"{GRAPHS}:ledger_chain",), 2, "needs -p ledger=..."),
    "an unknown task id": Typed(
        (f"{GRAPHS}:diamond", "-t", "bottm"), 2, "No task 'bottm' is in the graph; did you mean 'bottom'?"
    ),
    "an unknown option": Typed((f"{GRAPHS}:diamond", "--forse"), 2, "--force"),
    "two tasks after one -t": Typed((f"{GRAPHS}:diamond", "-t", "left", "right"), 2, "Repeat -t for each task."),
    "a dry run that goes on": Typed((f"{GRAPHS}:diamond", "-n", "--detach"), 2, "--dry-run runs nothing"),
    "a negative number of workers": Typed((f"{GRAPHS}:diamond", "-j", "-1"), 2, "-1 is not in the range 0<=x<=1024"),
    "a status directory that is a file": Typed(
        (f"{GRAPHS}:diamond", "-d", "a_file"), 2, "a_file cannot be used: Not a directory"
    ),
    "a status directory below a file": Typed(
        (f"{GRAPHS}:diamond", "-d", "a_file/x"), 2, "a_file/x cannot be used: Not a directory"
    ),
    "a log directory that is a file": Typed((f"{GRAPHS}:diamond", "--task-log-dir", "a_file"), 2, "log directory"),
    "a log directory in which nobody writes": Typed(
        (f"{GRAPHS}:diamond", "--task-log-dir", "/sys/kernel"), 2, "The log directory /sys/kernel cannot be used: Perm"
    ),
    "a status directory in memory": Typed(
        (f"{GRAPHS}:diamond", "-d", "memory://status"), 2, "memory://status does not outlive this process"
    ),
    "a status directory whose name is no text": Typed(
        (f"{GRAPHS}:diamond", "-d", "st\udcff"), 2, r"st\udcff of a run is no text in UTF-8: give it another name."
    ),
    "a log directory whose name is no text": Typed(
        (f"{GRAPHS}:diamond", "--task-log-dir", "lg\udcff"), 2, r"log directory lg\udcff of a run is no text in UTF-8"
    ),
    "a state directory that is a file": Typed(
        (f"{GRAPHS}:diamond", "--state-dir", "a_file"), 2, "The state directory a_file is not a directory"
    ),
    "a database that is no number": Typed(
        (f"{GRAPHS}:diamond", "-u", "redis://127.0.0.1:1/prod"), 2, "its database is not a number"
    ),
    "a URL that asks for texts": Typed(
        (f"{GRAPHS}:diamond", "-u", "redis://127.0.0.1:1/0?decode_responses=1"), 2, "leave decode_responses out"
    ),
    "a host that no name can have": Typed(
        (f"{GRAPHS}:diamond", "-u", f"redis://{'x' * 64}:6379"), 2, "is no URL of a Redis server"
    ),
    "a host that is no text": Typed((f"{GRAPHS}:diamond", "-u", "redis://\udcff:6379"), 2, "no URL of a Redis server"),
    "an option of a URL that cannot be used": Typed(
        (f"{GRAPHS}:diamond", "-u", "redis://localhost:6379?protocol=9"), 2, "no URL of a Redis server: protocol must"
    ),
    "a URL that is none": Typed((f"{GRAPHS}:diamond", "-u", "localhost:6379"), 2, "is no URL of a Redis server"),
}


@pytest.mark.parametrize("typed", REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_run_is_one_sentence_before_anything_runs(tmp_path: Path, typed: Typed) -> None:
    given = Desk(tmp_path)
    (tmp_path / "broken_flow.py").write_text("x = 1 / 0\n")
    (tmp_path / "a_file").write_text("")
    found = given.run("run", *typed.words)
    assert found.status == typed.status
    assert typed.sentence in found.sentence
    assert found.out == ""
    assert not (given.state_dir / "server").exists()


def test_an_empty_graph_is_nothing_to_do(tmp_path: Path) -> None:
    """Row 6."""
    found = Desk(tmp_path).run("run", f"{GRAPHS}:empty")
    assert (found.status, found.out) == (0, "Nothing to do: the graph has no tasks.\n")


def test_another_graph_in_a_status_directory_in_use_is_refused(place: Desk) -> None:
    """Row 41."""
    fifo = place.directory / "use.fifo"
    os.mkfifo(fifo)
    gated = ["-p", f"fifo={fifo}", "-p", "ledger=use.ledger", "-d", "shared"]
    run_id = place.run("submit", f"{GRAPHS}:gated", *gated, "--json").facts["run"]
    gate = os.open(fifo, os.O_WRONLY)
    found = place.run("run", f"{GRAPHS}:diamond", "-d", "shared")
    assert found.status == 5
    assert f"in use by run {run_id}" in found.sentence
    os.close(gate)
    assert place.run("follow", run_id).status == 0


def test_a_server_that_does_not_answer_is_one_line_without_its_password(tmp_path: Path) -> None:
    """Row 47."""
    given = Desk(tmp_path)
    given.environ |= {
        "OVERNIGHT_CONNECT_SECONDS": "0.5",
        "OVERNIGHT_REDIS_URL": f"redis://user:secret@127.0.0.1:{free_port()}/0",
    }
    found = given.run("run", f"{GRAPHS}:diamond")
    assert found.status == 4
    assert "redis://user:***@127.0.0.1" in found.sentence
    assert "secret" not in found.sentence


def test_a_wrong_password_is_named_and_not_shown(tmp_path: Path, short_directory: Path) -> None:
    """Row 48."""
    with running_server(server_binary("valkey"), short_directory / "locked", tcp=True, password="right") as url:
        given = Desk(tmp_path)
        given.environ["OVERNIGHT_REDIS_URL"] = url.replace("right", "wrong")
        found = given.run("run", f"{GRAPHS}:diamond")
    assert found.status == 4
    assert "password is wrong" in found.sentence
    assert ":wrong" not in found.sentence


def test_a_database_that_the_server_does_not_have_is_named(tmp_path: Path, short_directory: Path) -> None:
    """Row 48."""
    with running_server(server_binary("valkey"), short_directory / "few", tcp=True, databases="2") as url:
        base, _, _ = url.rpartition("/")
        found = Desk(tmp_path).run("runs", "-u", f"{base}/7")
    assert found.status == 4
    assert found.sentence.endswith("/7 cannot be used: it has no database of this number.")


def test_a_server_that_evicts_is_refused_with_the_line_to_change(tmp_path: Path, short_directory: Path) -> None:
    """Row 49."""
    with running_server(
        server_binary("valkey"), short_directory / "evicting", maxmemory="100mb", maxmemory_policy="allkeys-lru"
    ) as url:
        found = Desk(tmp_path).run("run", f"{GRAPHS}:diamond", "-u", url)
    assert found.status == 5
    assert "maxmemory-policy noeviction" in found.sentence


def test_a_key_that_is_too_short_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    """Row 40."""
    given = Desk(tmp_path)
    given.environ["OVERNIGHT_SECRET_KEY"] = "abcd"
    found = given.run("run", f"{GRAPHS}:diamond")
    assert found.status == 2
    assert "secrets.token_hex" in found.sentence
