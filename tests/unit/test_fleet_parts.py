"""The parts of the local fleet that need no process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from overnight.embedded import quoted
from overnight.fleet_files import FleetFiles, fleet_files
from overnight.fleet_plan import Demand, FleetPlan, demand_from_json, largest, plan_from_json
from overnight.slots import SLOT_VARIABLE, Backoff, hold_slot, how_it_ended, slot_environment, slot_pid
from overnight.state_dir import is_locked, last_line, open_log, try_lock, unlock


def test_an_early_end_is_followed_by_a_doubled_delay_up_to_five_seconds() -> None:
    backoff = Backoff()
    delays = []
    for _ in range(8):
        backoff.started(100.0)
        backoff.ended(100.5)
        delays.append(backoff.delay)
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert backoff.not_before == 105.5


def test_an_end_after_a_settled_time_is_followed_by_no_delay() -> None:
    backoff = Backoff()
    backoff.started(100.0)
    backoff.ended(101.0)
    backoff.started(102.0)
    backoff.ended(107.0)
    assert (backoff.delay, backoff.not_before) == (0.0, 107.0)


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "exit status 0"), (3, "exit status 3"), (-9, "SIGKILL"), (-11, "SIGSEGV"), (-99, "signal 99")],
)
def test_an_end_is_told_by_status_or_signal(code: int, words: str) -> None:
    assert how_it_ended(code) == words


def test_clients_share_workers() -> None:
    demands = [Demand({"a": 2, "b": 1}), Demand({"a": 1, "c": 3}, scheduler=True)]
    assert largest(demands) == Demand({"a": 2, "b": 1, "c": 3}, scheduler=True)
    assert largest([]) == Demand()


def test_queues_whose_names_are_no_file_names_get_slots_of_their_own() -> None:
    commands = FleetPlan(("s",), ("w",)).commands(Demand({"A/1": 1, "a-1": 1}, scheduler=True))
    assert commands["scheduler"] == ("s",)
    assert sorted(commands.values()) == [("s",), ("w", "--queue", "A/1"), ("w", "--queue", "a-1")]
    assert not [name for name in commands if "/" in name]


def test_demands_and_plans_are_read_as_they_were_written() -> None:
    demand, plan = Demand({"quëue": 2}, scheduler=True), FleetPlan(("s", "x y"), ("w",))
    assert demand_from_json(demand.to_json()) == demand
    assert plan_from_json(plan.to_json()) == plan


def test_a_demand_is_valid_as_long_as_its_lock_is_held(tmp_path: Path) -> None:
    files = FleetFiles(tmp_path)
    files.prepare()
    path, lock = files.add_client(Demand({"a": 1}))
    assert files.demands() == [Demand({"a": 1})]
    unlock(lock)
    assert files.demands() == []
    assert not path.exists()


def test_two_servers_have_fleets_apart_whatever_password_is_used(tmp_path: Path) -> None:
    first = fleet_files(tmp_path, "redis://:one@host:6379/0").directory
    assert first == fleet_files(tmp_path, "redis://:two@host:6379/0").directory
    assert first != fleet_files(tmp_path, "redis://host:6379/1").directory
    assert fleet_files(tmp_path, None).directory == tmp_path


def test_a_slot_is_held_through_the_descriptor_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "slot.lock"
    lock = try_lock(path)
    assert lock is not None
    os.set_inheritable(lock, True)
    for name, value in slot_environment(lock, path).items():
        monkeypatch.setenv(name, value)
    assert hold_slot() == lock
    assert not os.get_inheritable(lock)
    assert SLOT_VARIABLE not in os.environ
    assert slot_pid(path) == os.getpid()
    unlock(lock)
    assert slot_pid(path) is None


@pytest.mark.parametrize("value", ["", "x", "7", "99999:{path}", "{other}:{path}"])
def test_a_variable_that_strayed_here_is_removed_and_touches_nothing(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "slot.lock", tmp_path / "other"
    path.write_text("slot")
    other.write_text("precious")
    with other.open("r+") as file:
        monkeypatch.setenv(SLOT_VARIABLE, value.format(path=path, other=file.fileno()))
        assert hold_slot() is None
    assert SLOT_VARIABLE not in os.environ
    assert (path.read_text(), other.read_text()) == ("slot", "precious")


def test_a_lock_is_exclusive_or_shared(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    first = try_lock(path, shared=True)
    second = try_lock(path, shared=True)
    assert first is not None
    assert second is not None
    assert try_lock(path) is None
    unlock(first)
    unlock(second)
    exclusive = try_lock(path)
    assert exclusive is not None
    assert is_locked(path)
    unlock(exclusive)


def test_the_last_word_of_a_log_is_its_last_line_with_text_behind_the_offset(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_line(log) == ""
    log.write_text("old\nnew\n\n")
    assert last_line(log) == "new"
    assert last_line(log, offset=8) == ""


def test_a_log_that_has_grown_large_is_set_aside(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "log"
    os.close(open_log(log, largest_bytes=3))
    log.write_text("large")
    os.close(open_log(log, largest_bytes=3))
    assert log.read_text() == ""
    assert (tmp_path / "logs" / "log.1").read_text() == "large"


def test_a_path_of_any_bytes_is_one_word_of_the_servers_configuration() -> None:
    assert quoted(Path("/a b/\"c'\\é")) == '"/a\\x20b/\\x22c\\x27\\x5c\\xc3\\xa9"'


def test_a_client_that_only_reads_wants_nothing() -> None:
    """Such a demand takes no process away from a run that goes on."""
    assert Demand().is_empty
    assert Demand({"default": 0}).is_empty
    assert not Demand({"default": 1}).is_empty
    assert not Demand(scheduler=True).is_empty
