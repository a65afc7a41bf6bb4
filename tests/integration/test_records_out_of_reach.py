"""Who may not look at records, as another user or on another machine, takes none of them for lost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.state_dir import wait_until
from tests.support.command import Desk, finished, staffed_desk

pytestmark = pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv of util-linux is not installed")

FLOW = """
from pathlib import Path
from overnight import TaskGraph


def large(number, ledger):
    with open(ledger, "a") as file:
        file.write(f"{number} ")
    return bytes(3_000_000)


def build(ledger: str, gate: str = ""):
    graph = TaskGraph()
    tasks = [graph.create_task(f"large {number}", large, args=[number, ledger]) for number in range(3)]
    if gate:
        graph.create_task("gate", Path.read_text, args=[Path(gate)], deps=tasks)
    return graph
"""
#: As root without the right to pass over the modes of files.
WITHIN_MODES = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.geteuid() == 0 else ()


@pytest.fixture(scope="module")
def place(short_directory: Path) -> Iterator[Desk]:
    """A desk whose two workers pass over the modes of files, as far as this process does."""
    with staffed_desk(short_directory / "reach", FLOW) as given:
        yield given


@pytest.mark.parametrize("how", ["forbidden", "read only", "not there"])
def test_following_from_where_no_record_can_be_seen_changes_nothing(place: Desk, how: str) -> None:
    records = place.directory / f"records {how}"
    assert place.run("run", "flow.py:build", "-p", f"ledger={how}", "-d", str(records)).status == 0
    elsewhere = records.rename(place.directory / "elsewhere") if how == "not there" else records
    elsewhere.chmod({"forbidden": 0, "read only": 0o500}.get(how, 0o700))
    followed = finished(place.start("follow", inside=WITHIN_MODES))
    elsewhere.chmod(0o700)
    assert (followed.status, followed.err) == (0, "")
    assert "3 results are told as they are recorded: " in followed.out
    assert str(records) in followed.out
    assert place.run("status", "--json").facts["counts"] == {"done": 3}
    assert sorted((place.directory / how).read_text().split()) == ["0", "1", "2"]


@pytest.mark.skipif(os.geteuid() != 0, reason="the workers must be able to read what their client may not")
def test_a_result_that_the_client_may_not_read_is_not_computed_again(place: Desk) -> None:
    gate, records = place.directory / "gate", place.directory / "records"
    os.mkfifo(gate)
    words = ("run", "flow.py:build", "-p", "gate=gate", "-p", "ledger=ledger", "-d", "records")
    client = place.start(*words, inside=WITHIN_MODES)
    with gate.open("w"):  # which waits until the task has opened it
        assert wait_until(lambda: len(list(records.glob("large*.flag"))) == 3, 30.0)
        for flag in records.glob("large*.flag"):
            flag.chmod(0)
    ran = finished(client)
    assert ran.status == 0, ran.err
    assert "3 results are told as they are recorded: " in ran.out
    assert sorted((place.directory / "ledger").read_text().split()) == ["0", "1", "2"]
