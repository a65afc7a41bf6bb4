"""A run whose key its scheduler does not have: told where people look, ended when it is cancelled, carried on later."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from overnight.config import Settings
from overnight.core.states import RunPhase
from overnight.keyring import KEY_VARIABLE, Keyring
from overnight.messages import SpecChunk
from overnight.service.loop import Scheduler
from overnight.state_dir import wait_until
from overnight.store.records import Addition, Request
from overnight.store.redis import RedisStore
from overnight.transport.memory import MemoryTransport
from tests.support.command import Desk, Finished, desk, finished
from tests.support.servers import connect
from tests.support.stores import run_record

SECONDS = 30.0
KEYRING = Keyring((b"k" * 32,))


@contextmanager
def scheduler(url: str, keyring: Keyring, transport: MemoryTransport) -> Iterator[None]:
    """Run a scheduler with these keys in a thread."""
    stop = threading.Event()
    with connect(url) as client:
        service = Scheduler(RedisStore(client, "test"), transport, keyring, Settings(), "there since noon", stop)
        thread = threading.Thread(target=service.run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(SECONDS)


def put_in_place(store: RedisStore, run_id: str = "r1") -> None:
    store.open_run(run_record(run_id, key=run_id, place=f"/{run_id}", total=2), b"context")
    chunk = SpecChunk(0, ["a", "b"], ["f"], [0, 0], [[], [0]], {})
    messages = {0: b"message", 1: b"message"}
    store.add_tasks(run_id, Addition(0, 2, chunk.sealed(run_id, KEYRING), messages, {}))
    store.activate(run_id)


def test_a_run_that_its_scheduler_cannot_read_says_so_and_goes_on_under_one_that_can(redis_url: str) -> None:
    """P17: who cannot take part says why, where the client sees it."""
    transport = MemoryTransport()
    with connect(redis_url) as client:
        store = RedisStore(client, "test")
        put_in_place(store)
        with scheduler(redis_url, Keyring(), transport):
            assert wait_until(lambda: bool(store.run("r1").note), SECONDS)
        note = store.run("r1").note
        assert note.startswith(f"Scheduler there cannot read the run: The record is signed by key {KEYRING.signing_id}")
        assert KEY_VARIABLE in note
        assert transport.pop("default") is None
        with scheduler(redis_url, KEYRING, transport):
            assert wait_until(lambda: transport.pop("default") is not None, SECONDS)
        assert store.run("r1").note == ""


def test_a_run_of_another_key_is_told_with_both_keys(redis_url: str) -> None:
    other = Keyring((b"o" * 32,))
    with connect(redis_url) as client:
        store = RedisStore(client, "test")
        put_in_place(store)
        with scheduler(redis_url, other, MemoryTransport()):
            assert wait_until(lambda: bool(store.run("r1").note), SECONDS)
        assert KEYRING.signing_id in store.run("r1").note
        assert other.signing_id in store.run("r1").note


def test_a_run_that_nobody_can_read_is_cancelled_to_its_end(redis_url: str) -> None:
    """QX7: its states are enough for that. Tried again, it is looked at again."""
    with connect(redis_url) as client:
        store = RedisStore(client, "test")
        put_in_place(store)
        with scheduler(redis_url, Keyring(), MemoryTransport()):
            assert wait_until(lambda: bool(store.run("r1").note), SECONDS)
            store.request("r1", Request.CANCEL)
            assert wait_until(lambda: store.run("r1").phase is RunPhase.CANCELLED, SECONDS)
            assert store.states("r1")[::2] == b"kk"
            store.request("r1", Request.RETRY)
            store.request("r1", Request.CANCEL)
            assert wait_until(lambda: store.run("r1").phase is RunPhase.CANCELLED, SECONDS)


@pytest.mark.parametrize("states", [b"", b"\xbd\x00x\x01", b"x"])
def test_a_cancelled_run_ends_whatever_its_states_are(redis_url: str, states: bytes) -> None:
    """QX7, P17: people are told to cancel it and to start it again, and the next one gets its graph and its place."""
    with connect(redis_url) as client:
        store = RedisStore(client, "test")
        put_in_place(store)
        client.set(store.server.keys.of_run("r1", "states"), states)
        with scheduler(redis_url, KEYRING, MemoryTransport()):
            assert wait_until(lambda: bool(store.run("r1").note), SECONDS)
            store.request("r1", Request.CANCEL)
            assert wait_until(lambda: store.run("r1").phase is RunPhase.CANCELLED, SECONDS)
        assert store.open_run(run_record("r2", key="r1", place="/r1"), b"").run.run_id == "r2"


@pytest.fixture
def keyless(redis_url: str, tmp_path: Path) -> Iterator[Desk]:
    """A desk at which the client has a key and the scheduler none."""
    with desk(tmp_path / "desk") as place:
        place.environ = {"OVERNIGHT_REDIS_URL": redis_url}
        service = place.start("scheduler", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        place.environ[KEY_VARIABLE] = secrets.token_hex(32)
        try:
            yield place
        finally:
            service.terminate()
            service.wait(SECONDS)


def warned(process: subprocess.Popen[str]) -> str:
    """Return the first line on a command's standard error."""
    assert process.stderr is not None
    return process.stderr.readline()


def test_people_see_why_a_run_stands_still_and_what_to_do(keyless: Desk) -> None:
    """Every command that shows the run says it; Ctrl-C ends the run."""
    process = keyless.start("run", "tests.support.graphs:diamond")
    line = warned(process)
    assert line.startswith("overnight: warning: Scheduler ")
    assert "cannot read the run: The record is signed by key" in line
    assert f"the same {KEY_VARIABLE}" in line
    for words in (("status",), ("doctor",), ("status", "--json")):
        shown: Finished = keyless.run(*words)
        assert "cannot read the run" in shown.out, words
    following = keyless.start("follow")
    assert "cannot read the run" in warned(following)
    following.send_signal(signal.SIGINT)
    finished(following)
    process.send_signal(signal.SIGINT)
    ended = finished(process)
    assert (ended.status, keyless.run("status", "--json").facts["phase"]) == (130, "cancelled")
    assert "cancelled after" in ended.out


def test_a_run_whose_key_was_removed_is_refused_with_its_id_and_what_to_do(keyless: Desk) -> None:
    run_id = keyless.run("submit", "tests.support.graphs:diamond", "--json").facts["run"]
    del keyless.environ[KEY_VARIABLE]
    for verb in ("status", "follow", "logs"):
        found = keyless.run(verb, "last", *(["a"] if verb == "logs" else []))
        assert found.status == 5
        assert f"Run {run_id} cannot be read here: The record is signed by key" in found.sentence
        assert KEY_VARIABLE in found.sentence
    assert keyless.run("cancel").status == 0
    assert os.environ.get(KEY_VARIABLE) is None
