"""What is left when nobody is there any more: finished work, and no process (DESIGN 2, QX5, QX11)."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.plain_census import FIELDS
from tests.support.sites import Site, finish, killed


@pytest.fixture
def lone_site() -> Iterator[Site]:
    """A state directory that nothing but the commands of the test uses."""
    with tempfile.TemporaryDirectory(prefix="ov-", ignore_cleanup_errors=True) as directory:
        site = Site(Path(directory))
        yield site
        for process in site.processes():
            process.kill()


def test_a_run_without_a_client_ends_and_then_all_of_its_processes_do(lone_site: Site) -> None:
    """The demo, its client killed: the census is on disk, nothing runs, and there is nothing to do."""
    words = ("demo", "--out", "census", "--limit", "30", "--slow", "0.1", "-j", "2")
    flags = lone_site.state_dir / "status"
    client = lone_site.start(*words)
    lone_site.wait(lambda: len(list(flags.rglob("count*"))) >= 5)
    killed(client)
    assert lone_site.processes(), "everything had ended with its client"
    lone_site.wait(lambda: not lone_site.processes())
    document = json.loads((lone_site.directory / "census" / "census.json").read_text("utf-8"))
    assert document["totals"]["files"] == 30
    assert set(document["totals"]) == set(FIELDS)
    assert "Nothing to do" in finish(lone_site.start(*words))
    assert lone_site.processes() == []
