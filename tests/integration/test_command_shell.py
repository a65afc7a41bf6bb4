"""The command in a shell: completion, and colours only where they belong."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.commands.app import VERBS
from overnight.local_fleet import ensure_fleet
from tests.support.command import ROOT, SECONDS, Desk, desk

GRAPHS = "tests.support.graphs"
_COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")
_VARIABLE = "_OVERNIGHT_COMPLETE"


@pytest.fixture(scope="module")
def place(short_directory: Path) -> Iterator[Desk]:
    """A desk with one run, whose processes stay."""
    with desk(short_directory / "shell") as given:
        lease = ensure_fleet(given.state_dir, workers=1)
        assert given.run("run", f"{GRAPHS}:diamond").status == 0
        yield given
        lease.close(stop=False)


def offered(place: Desk, line: str, shell: str = "zsh") -> list[str]:
    """Return the words that a shell is offered at the end of a line; of files, that they are asked for."""
    place.environ |= {_VARIABLE: f"{shell}_complete", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    try:
        found = place.run()
    finally:
        for name in (_VARIABLE, "COMP_WORDS", "COMP_CWORD"):
            del place.environ[name]
    assert (found.status, found.err) == (0, "")
    rows = found.out.rstrip("\n").splitlines()
    if shell == "bash":
        return [value if kind == "plain" else kind for kind, _, value in (row.partition(",") for row in rows)]
    return [value if kind == "plain" else kind for kind, value in zip(rows[::3], rows[1::3], strict=True)]


def test_verbs_options_runs_tasks_and_files_are_completed(place: Desk) -> None:
    run_id = place.run("status", "--json").facts["run"]
    assert offered(place, "overnight ") == list(VERBS)
    assert offered(place, "overnight pl") == ["plan"]
    assert "--dry-run" in offered(place, "overnight run --d")
    for verb in ("status", "follow", "why", "graph", "logs", "retry"):
        assert offered(place, f"overnight {verb} ") == ["last", run_id]
    assert offered(place, f"overnight status {run_id} ") == ["top", "left", "right", "bottom"]
    assert offered(place, "overnight why last bo") == ["bottom"]
    assert offered(place, "overnight plan ") == ["file"]
    assert offered(place, "overnight graph flow") == ["file"]


FAILING = """
from overnight import TaskGraph


def build(*, size: int = 1, kind="x"):
    graph = TaskGraph()
    graph.create_task("good", int, args=[])
    graph.create_task("bad", int, args=["x"])
    graph.create_task("bad one", int, args=["y"], deps=[graph.tasks[1]])
    return graph
"""


def test_what_can_be_tried_again_and_parameters_are_completed(short_directory: Path) -> None:
    """A word with a space is for shells that quote it."""
    with desk(short_directory / "again") as place:
        (place.directory / "failing.py").write_text(FAILING)
        lease = ensure_fleet(place.state_dir, workers=1)
        try:
            assert place.run("run", "failing.py:build", "-k", "-p", "size=2").status == 1
            [cause] = place.run("status", "--json").facts["causes"]
            assert offered(place, "overnight retry last --cause ") == [cause["cause"]]
            assert offered(place, "overnight retry --cause zz") == []
            assert offered(place, "overnight retry -t ") == ["bad", "bad one"]
            assert offered(place, "overnight retry -t ", "bash") == ["bad"]
            assert offered(place, "overnight run failing.py:build -p ") == ["size=", "kind="]
            assert offered(place, "overnight plan failing.py:build -p size=2 -p ") == ["kind="]
            assert offered(place, "overnight why failing:build -p k") == ["kind="]
            assert offered(place, "overnight run gone.py:build -p ") == []
            assert "failing.py:build -p size=2\n" in place.run("runs").out
            run_id = place.run("status", "--json").facts["run"]
            assert place.run("run", f"{GRAPHS}:diamond").status == 0
            assert offered(place, f"overnight retry {run_id} --cause ") == [cause["cause"]]
            assert offered(place, "overnight retry --cause ") == []
            for line in ("status nothing ", "retry nothing --cause ", "retry nothing -t "):
                assert offered(place, f"overnight {line}") == []
        finally:
            lease.close(stop=False)


def test_where_no_server_is_there_completion_is_silent_and_starts_none(tmp_path: Path) -> None:
    given = Desk(tmp_path)
    assert offered(given, "overnight status ") == ["last"]
    assert offered(given, "overnight status last ") == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_by_the_line_that_is_documented(place: Desk, tmp_path: Path) -> None:
    """The line is in README.md."""
    command = tmp_path / "overnight"
    command.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -P -m overnight.commands "$@"\n')
    command.chmod(0o755)
    line = 'eval "$(_OVERNIGHT_COMPLETE=bash_source overnight)"'
    assert line in (ROOT / "README.md").read_text()
    typed = "COMP_WORDS=(overnight can); COMP_CWORD=1; _overnight_completion overnight; echo ${COMPREPLY[@]}"
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    bash = ["bash", "-c", f"{line}\n{typed}"]
    told = subprocess.run(
        bash, cwd=place.directory, env=environment, capture_output=True, text=True, timeout=SECONDS, check=True
    )
    assert told.stdout.split() == ["cancel"], told.stderr


def on_a_terminal(place: Desk, *words: str, **variables: str) -> str:
    """Return all that a command writes to a terminal of its own."""
    master, slave = pty.openpty()
    place.environ |= {"TERM": "xterm-256color", **variables}
    try:
        process = place.start(*words, stdout=slave, stderr=slave)
    finally:
        for name in ("TERM", *variables):
            del place.environ[name]
        os.close(slave)
    text = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not piece:
            break
        text += piece
    os.close(master)
    assert process.wait(SECONDS) == 0, text
    return text.decode()


def test_colours_are_for_terminals_and_not_where_they_are_unwanted(place: Desk) -> None:
    sleeps = ["run", f"{GRAPHS}:sleeps", "-p", "n=4", "-p", "seconds=0.3", "-f"]
    assert _COLOUR.search(on_a_terminal(place, *sleeps))
    assert not _COLOUR.search(on_a_terminal(place, *sleeps, NO_COLOR="1"))


def test_what_is_no_terminal_gets_text_alone_whatever_the_environment_asks_for(place: Desk) -> None:
    place.environ |= {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "CLICOLOR_FORCE": "1"}
    try:
        told = place.run("run", f"{GRAPHS}:sleeps", "-p", "n=4", "-p", "seconds=0.3", "-f")
        helped = place.run("--help")
    finally:
        for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "CLICOLOR_FORCE"):
            del place.environ[name]
    assert told.status == 0
    assert "\x1b" not in told.out + told.err + helped.out
