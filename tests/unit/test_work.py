"""What a command line asks for: which spellings are the same command, and where its records are."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from overnight.commands.work import Request, Work
from overnight.config import Settings
from overnight.errors import UsageError

TARGET = "tests.unit.test_work:build"


def build(*, fast: bool = False, n: int = 1, name: str = "") -> object:
    from overnight.graph import TaskGraph

    graph = TaskGraph()
    for number in range(n):
        graph.create_task(f"part {number} {name} {fast}", str, args=[])
    return graph


def work(state_dir: Path, *parameters: str, ids: tuple[str, ...] = ()) -> Work:
    return Work(Request(TARGET, parameters, task_ids=ids), Settings(state_dir=state_dir))


@pytest.mark.parametrize(("one", "other"), [("fast=yes", "fast=true"), ("fast=0", "fast=off"), ("n=3", "n=03")])
def test_spellings_of_one_value_are_one_command_with_one_record_directory(tmp_path: Path, one: str, other: str) -> None:
    first, second = work(tmp_path, one), work(tmp_path, other)
    assert first.status_dir == second.status_dir
    assert first.options.command == second.options.command


@pytest.mark.parametrize(("one", "other"), [("fast=yes", "fast=no"), ("n=3", "n=4"), ("name=yes", "name=true")])
def test_other_values_have_other_records(tmp_path: Path, one: str, other: str) -> None:
    assert work(tmp_path, one).status_dir != work(tmp_path, other).status_dir


def test_an_unknown_task_id_is_told_with_those_that_are_like_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No task '1' is in the graph; did you mean 'part 1  False'"):
        work(tmp_path, "n=2", ids=("1",))


def test_a_record_that_is_no_flag_is_warned_of_once_however_often_records_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """P12: a command reads them again after the server has lost its run."""
    first = work(tmp_path)
    flag = Path(first.cache.place(first.graph.tasks[0]))
    flag.parent.mkdir(parents=True)
    flag.write_bytes(b"no flag")
    asked = work(tmp_path)
    asked.read_again(["lost run"])
    asked.read_again(["lost run"])
    assert len([message for message in caplog.messages if message.startswith(f"The record {flag} ")]) == 1


@pytest.mark.parametrize(("ahead", "told"), [(0.0, ""), (7200.0, "7200 s behind"), (-7200.0, "7200 s ahead of")])
def test_a_file_server_with_another_time_is_told_before_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, ahead: float, told: str
) -> None:
    """ADVERSITY 7, row 45: by file times it is decided what must run. `ahead` are the seconds of this host's clock."""
    now = time.time
    asked = work(tmp_path / "state")
    monkeypatch.setattr("overnight.files.time.time", lambda: now() + ahead)
    asked.make_directories()
    warnings = [message for message in caplog.messages if "file server" in message]
    assert [told in message for message in warnings] == ([True] if told else [])
