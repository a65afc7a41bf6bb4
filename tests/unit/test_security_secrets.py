"""Passwords and keys are shown nowhere, however wrong what they stand in is (ADVERSITY 8, H4)."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import pytest

from overnight.config import Settings
from overnight.errors import OvernightError
from overnight.fleet_files import fleet_files
from overnight.keyring import KEY_VARIABLE, read_keyring
from overnight.queue_executor import QueueExecutor
from overnight.store.connection import connect, hidden
from tests.support.command import Desk
from tests.support.servers import free_port

CANARY = "c4n4ry"
URLS = [
    "redis://user:{}@host:1/0", "redis://:{}@host", "rediss://u:x/{}@host:1/0", "redis://u:x?{}@host",
    "redis://u:x#{}@host", "redis://u:{}#@host", "redis://u:@{}@host", "redis://u:x:{}@host", "redis://u:x%2f{}@host",
    "redis://host?password={}", "redis://host?db=1&password={}", "redis://host?pass%77ord={}", "redis://h?PassWord={}",
    "rediss://host?ssl_password={}", "unix:///tmp/s?password={}", "unix://u:{}@/tmp/s?db=0", "redis://user:{}",
    "redis://host:{}/0", "redis://[{}", "redis://u:{}@[::1", "http://u:{}@host", "u:{}@host:6379", ":{}@host",
    "redis:/u:{}@host", "redis:u:{}@host", "//u:{}@host", "://u:{}@host", "redis://u:{}@host:port",
    "--redis-url=redis://u:{}@host", "-uredis://:{}@host/0",
]  # fmt: skip


@pytest.mark.parametrize("form", URLS)
def test_a_password_is_hidden_in_every_kind_of_url(form: str) -> None:
    """H4."""
    shown = hidden(form.format(CANARY))
    assert CANARY not in shown
    assert shown == hidden(form.format("another"))


@pytest.mark.parametrize(
    "url",
    [
        "redis://host", "redis://host:6379/0", "redis://user@host:1/0", "rediss://[::1]:6379/0?db=1", "unix:///tmp/s?db=0",
        "redis://[fe80::1]/0", "s3://bucket/a@b", "flow.py:build", "name=a@b", "/tmp/x:y", "--state-dir=x",
    ],
)  # fmt: skip
def test_what_holds_no_password_is_shown_as_it_is(url: str) -> None:
    """H4: what is hidden is what must be."""
    assert hidden(url) == url


@pytest.mark.parametrize("form", [form for form in URLS if not form.startswith("-")])
def test_no_way_to_fail_to_connect_shows_the_password(form: str, tmp_path: Path) -> None:
    """H4: message, repr and traceback as people see them."""
    url = form.format(CANARY).replace("host:1/", f"127.0.0.1:{free_port()}/").replace("@host", "@host.invalid")
    with pytest.raises(OvernightError) as told:
        connect(url, settings=Settings(connect_seconds=0.05)).close()
    error = told.value
    assert CANARY not in str(error)
    assert CANARY not in repr(error)
    assert CANARY not in "".join(traceback.format_exception_only(error))


def test_a_password_names_no_file_and_changes_no_place() -> None:
    """H4: the local processes of a server are the same whatever the password."""
    places = {str(fleet_files(Path("/s"), f"redis://u:{secret}@host:1/0").directory) for secret in (CANARY, "other")}
    assert len(places) == 1


def test_a_run_does_not_remember_the_password_that_a_tool_was_started_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """H4: the command line of a run is a fact for everyone who may read the run."""
    monkeypatch.setattr(sys, "argv", ["tool.py", "-u", f"redis://u:{CANARY}@host:1/0", "run"])
    options = QueueExecutor(f"redis://u:{CANARY}@host:1/0")._options()
    assert options.command == "tool.py -u redis://u:***@host:1/0 run"


@pytest.mark.parametrize("line", [f"{CANARY}!", f"zz{CANARY}", CANARY.encode().hex(), f"=={CANARY}"])
def test_no_refusal_of_a_key_shows_it(line: str, tmp_path: Path) -> None:
    """H2, H4."""
    with pytest.raises(OvernightError) as told:
        read_keyring({KEY_VARIABLE: line})
    assert line not in str(told.value)
    assert CANARY not in str(told.value)


def test_a_port_that_is_no_number_is_named_and_not_taken_for_a_shown_password(tmp_path: Path) -> None:
    found = Desk(tmp_path).run("status", "-u", "redis://127.0.0.1:abc")
    assert found.status == 2
    assert "its port is not a number" in found.sentence
