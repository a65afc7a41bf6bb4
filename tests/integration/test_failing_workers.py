"""Local workers that end as soon as they are started: every verb says so, with their status, their words, their log."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.command import ROOT, Desk, desk, finished

FLOW = """
from overnight import TaskGraph


def add(number):
    return number + 1


def build():
    graph = TaskGraph()
    graph.create_task("one", add, args=[1])
    return graph
"""


@pytest.fixture
def half_installed(short_directory: Path) -> Iterator[Desk]:
    """A desk where the worker's package is found and cannot start."""
    with desk(short_directory / "half installed") as given:
        (given.directory / "flow.py").write_text(FLOW)
        package = given.directory / "half" / "overnight_worker"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text("raise RuntimeError('half installed')\n")
        given.environ["PYTHONPATH"] = f"{package.parent}:{ROOT}"
        yield given


def test_workers_that_end_at_once_are_told_by_every_verb(half_installed: Desk) -> None:
    """QX13."""
    place = half_installed
    with started(place, "run", "flow.py:build", "-j", "2") as running:
        assert_told(place, next_warning(running))
        with started(place, "follow", "last") as following:
            assert_told(place, next_warning(following))
        for words in (("status", "last"), ("why", "last", "one"), ("workers",)):
            assert_told(place, place.run(*words).out)
        doctor = place.run("doctor")
        assert doctor.status == 4
        assert_told(place, doctor.out)
        assert "(and 1 more like it)" in doctor.out

    afterwards = place.run("doctor")
    assert afterwards.status == 0
    assert_told(place, afterwards.out)

    del place.environ["PYTHONPATH"]
    assert place.run("run", "flow.py:build", "-j", "1").status == 0
    assert "ended as soon as" not in place.run("doctor").out


@contextmanager
def started(place: Desk, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Give a command that runs, and interrupt it in the end."""
    process = place.start(*words)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        finished(process)


def next_warning(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.readline()


def assert_told(place: Desk, text: str) -> None:
    log = (place.state_dir / "logs").resolve() / "worker-default-1.log"
    assert "worker-default-1" in text, text
    assert "ended as soon as it was started" in text, text
    assert f"with exit status 1; its log {log} ends with: RuntimeError: half installed" in text, text
    assert "overnight worker -" not in text, text
