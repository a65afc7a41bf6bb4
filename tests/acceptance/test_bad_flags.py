"""What may stand in a status directory instead of the flags that were written (ADVERSITY 7, rows 42, 43 and 46)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from overnight.naming import flag_name
from overnight.state_dir import wait_until
from tests.support.command import Desk, finished
from tests.support.daemons import daemon
from tests.support.servers import running_server, server_binary
from tests.support.sites import COMPRESSED

GRAPH = "tests.support.graphs:diamond"
LEFT = flag_name("left")


def link_to_a_file(path: Path) -> None:
    target = path.parent.parent / f"target-of-{path.parent.name}"
    target.write_text("not to be touched")
    path.symlink_to(target)


def link_to_nothing(path: Path) -> None:
    path.symlink_to(path.parent.parent / f"nothing-of-{path.parent.name}")


def device(path: Path) -> None:
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("Making a device needs more rights than this user has.")


IN_THE_WAY: dict[str, Callable[[Path], None]] = {
    "a directory": lambda path: path.mkdir(),
    "a FIFO": os.mkfifo,
    "a link to a file": link_to_a_file,
    "a link to nothing": link_to_nothing,
    "a device": device,
}


@pytest.mark.parametrize("kind", IN_THE_WAY)
def test_what_stands_in_place_of_a_flag_is_left_alone_and_told(place: Desk, kind: str) -> None:
    """Row 46, C14."""
    status = place.directory / f"instead-{kind.replace(' ', '-')}"
    status.mkdir()
    IN_THE_WAY[kind](status / LEFT)
    before = (status / LEFT).lstat()
    found = place.run("run", GRAPH, "-d", str(status))
    assert found.status == 0, found.err
    assert "Traceback" not in found.err
    warnings = [line for line in found.err.splitlines() if LEFT in line]
    assert warnings, found.err
    assert "remove it" in " ".join(warnings).lower()
    after = (status / LEFT).lstat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)
    assert not list(place.directory.glob("nothing-of-*"))
    assert {path.read_text() for path in place.directory.glob("target-of-*")} <= {"not to be touched"}


FLOW = """
from overnight import TaskGraph

def first(x):
    return x

def other(x):
    return x

def build(*, function: str = "first", value: int = 1, extra: bool = False) -> TaskGraph:
    graph = TaskGraph()
    a = graph.create_task("a", first, args=[1])
    deps = [graph.create_task("extra", first, args=[0])] if extra else []
    graph.create_task("b", {"first": first, "other": other}[function], args=[value], deps=[a, *deps])
    return graph
"""

CHANGED = {
    "another function": (("-p", "function=other"), "1 of 2 tasks would run", "function"),
    "another dependency": (("-p", "extra=true"), "2 of 3 tasks would run", "depend"),
    "another argument": (("-p", "value=2"), "0 of 2 tasks would run", None),
    "another argument, forced": (("-p", "value=2", "-f"), "2 of 2 tasks would run", None),
}


@pytest.fixture(scope="module")
def recorded(place: Desk) -> Path:
    """A status directory in which both tasks are on record."""
    (place.directory / "changing.py").write_text(FLOW)
    assert place.run("run", "changing.py:build", "-d", "as-it-was").status == 0
    return place.directory / "as-it-was"


@pytest.mark.parametrize("change", CHANGED)
def test_a_record_of_another_call_does_not_stand_and_why_says_what_differs(
    place: Desk, recorded: Path, change: str
) -> None:
    """Row 42, C15: of the arguments a record says nothing."""
    words, sentence, reason = CHANGED[change]
    status = place.directory / f"now-{'-'.join(change.replace(',', '').split())}"
    shutil.copytree(recorded, status)
    found = place.run("run", "changing.py:build", "-d", str(status), "-n", *words)
    assert sentence in found.out
    if reason is not None:
        assert reason in next(line for line in found.out.splitlines() if line.strip().startswith("b"))
    assert place.run("run", "changing.py:build", "-d", str(status), *words).status == 0
    if "-f" not in words:
        assert "0 of " in place.run("run", "changing.py:build", "-d", str(status), "-n", *words).out


def test_a_status_directory_that_cannot_be_made_is_refused_before_anything_runs(place: Desk) -> None:
    """Row 43."""
    found = place.run("run", GRAPH, "-d", "/proc/overnight/flags")
    assert found.status == 2
    assert "/proc/overnight" in found.sentence


def test_a_status_directory_that_cannot_be_written_is_told_before_the_run_which_goes_on(place: Desk) -> None:
    """Row 43, C7."""
    found = place.run("run", GRAPH, "-d", "/sys/kernel")
    assert found.status == 0, found.err
    first = found.err.splitlines()[0]
    assert first.startswith(
        "overnight: warning: The status directory /sys/kernel cannot be written to (Permission denied)"
    )
    assert found.err.count("The status directory") == 1
    assert "succeeded" in found.out


def test_results_of_a_worker_that_does_not_see_the_status_directory_are_written_by_the_driver(
    tmp_path: Path, short_directory: Path
) -> None:
    """Row 43: they go through the server; the same command has nothing to do then."""
    places = tmp_path / "places"
    places.mkdir()
    hidden = ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs none "{places}" && exec "$@"', "sh")
    if subprocess.run([*hidden, "true"], check=False, capture_output=True).returncode:
        pytest.skip("Mounts of its own need more rights than this user has.")
    with running_server(server_binary("valkey"), short_directory / "unseen") as url:
        desk = Desk(tmp_path)
        desk.environ = {**COMPRESSED, "OVERNIGHT_REDIS_URL": url}
        words = ("run", GRAPH, "-d", str(places / "flags"), "-j", "0")
        with daemon(desk, "scheduler", "scheduler"), daemon(desk, "worker", "worker", inside=hidden) as said:
            found = desk.run(*words)
            assert found.status == 0, found.err
            assert said("it is not there on this host") == 1
            assert len(list((places / "flags").glob("*.flag"))) == 4
            assert "Nothing to do" in desk.run(*words).out


NEEDY = """
from pathlib import Path
from overnight import TaskGraph

def first():
    return list(range(100))

def wait(gate):
    Path(gate + ".begun").touch()
    with open(gate) as opened:
        return opened.read()

def last(numbers, opened):
    return len(numbers)

def build() -> TaskGraph:
    graph = TaskGraph()
    source = graph.create_task("source", first, args=[])
    gate = graph.create_task("gate", wait, args=["gate"])
    for number in range(8):
        graph.create_task(f"needs it {number}", last, args=[source, gate], retries=40, retry_delay=0.05)
    return graph
"""


def test_a_result_that_is_damaged_while_others_wait_for_it_is_computed_again_at_once(place: Desk) -> None:
    """P12: before everything that needs it has used up its retries."""
    (place.directory / "needy.py").write_text(NEEDY)
    os.mkfifo(place.directory / "gate")
    command = ("run", "needy.py:build", "-d", "needed")
    assert place.run(*command, "-t", "source").status == 0
    running = place.start(*command)
    assert wait_until((place.directory / "gate.begun").exists, 30)
    flag = place.directory / "needed" / flag_name("source")
    data = bytearray(flag.read_bytes())
    data[-1] ^= 1
    flag.write_bytes(data)
    (place.directory / "gate").write_text("open")
    found = finished(running)
    assert found.status == 0, found.out
    assert "lacked a result that is lost" in found.out + found.err
    attempts = [place.run("status", "last", f"needs it {n}", "--json").facts["attempt"] for n in range(8)]
    assert max(attempts) < 20
