"""What people are shown: text from others as data, and no secrets (ADVERSITY 8: H2, H4, M2, M3)."""

from __future__ import annotations

import json
import re
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from overnight.certificates import DeathCertificate
from overnight.commands.app import run as overnight
from overnight.core.states import TaskState
from overnight.keyring import KEY_VARIABLE
from overnight.messages import StoredError
from overnight.store.records import Report, Verdict
from tests.support import worker_tasks as tasks
from tests.support.command import Desk, desk, finished
from tests.support.hostile import NO_KEY
from tests.support.servers import connect, free_port, running_server, server_binary
from tests.support.small_scheduler import Plan, SmallScheduler
from tests.support.stores import lineage, worker_record

EVIL = "\x1b]0;owned\x07\x1b[2J\r\b\x7f\x9b31m\u2028%s<script>"
COMMANDS = (
    ["runs"], ["status"], ["status", "-v"], ["status", "last", EVIL], ["status", "last", "no"], ["workers"],
    ["logs", "last", EVIL], ["status", EVIL], ["cancel", EVIL], [EVIL], ["doctor"], ["status", "--json"],
    ["logs", "last", EVIL, "--json"], ["report", "last", "-o", "-"], ["retry", "last", "--cause", EVIL],
)  # fmt: skip
_STEERING = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")


@pytest.fixture(scope="module")
def url(short_directory: Path) -> Iterator[str]:
    with running_server(server_binary("valkey"), short_directory / "shown") as given:
        yield given


def test_nothing_from_others_steers_a_terminal(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """M2: ids, names, messages, facts, and what workers say of themselves."""
    monkeypatch.setenv("OVERNIGHT_REDIS_URL", url)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    run = SmallScheduler(url)
    words = dict.fromkeys(("name", "owner", "host", "command", "log_dir"), EVIL)
    run.submit([Plan(tasks.answer, task_id=EVIL), Plan(tasks.answer, task_id="b")], tmp_path, record=words)
    batch = run.dispatch(0)
    run.store.claim(run.run_id, batch, "w1", 1, 3600)
    error = StoredError(EVIL, f"{EVIL}\n{EVIL}", EVIL).sealed(run.run_id, 0, NO_KEY)
    facts = json.dumps(dict.fromkeys(("worker", "host"), EVIL)).encode()
    certificate = DeathCertificate(1, EVIL, EVIL, EVIL, EVIL, EVIL, EVIL, 1e9, 1.0, 7, f"{EVIL}\n{EVIL}")
    death = certificate.sealed(run.run_id, 0, NO_KEY)
    report = Report(0, False, error, b"", lineage(0), facts, 1.0, certificate=death)
    run.store.commit(run.run_id, batch, "w1", [report], 3600)
    run.store.settle(run.epoch(), run.run_id, [Verdict(0, TaskState.FAILED)])
    told = dict.fromkeys(("host", "python", "note"), EVIL)
    for number, pid in enumerate((1, EVIL)):
        record = {**told, "pid": pid, "queues": (EVIL,)}
        fields = {name: getattr(worker_record(), name) for name in worker_record().__slots__}
        run.store.register(type(worker_record())(**{**fields, "instance": f"w{number}", **record}), 3600)
    run.client.hset("{overnight}:scheduler", mapping={"holder": "x", "description": EVIL, "deadline": 4e9})
    look_at_all(capsys)
    key = f"{{overnight}}:run:{run.run_id}:meta"
    damaged = json.loads(run.client.hget(key, "record") or b"") | {"run_id": EVIL, "total": 1}
    run.client.hset(key, "record", json.dumps(damaged))
    look_at_all(capsys)
    run.close()


def look_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    """Type what reads, and what is wrong; nothing of what is printed may be more than text."""
    for command in COMMANDS:
        overnight(command)
        said = capsys.readouterr()
        assert _STEERING.findall(said.out + said.err) == [], (command, said)
        assert said.out + said.err


def test_no_way_to_fail_and_no_artefact_shows_key_or_password(tmp_path: Path) -> None:
    """H2, H4, M3: one real run on a server with a password, then commands that fail.

    Arguments and results travel through the server, readable for whoever may read it; they are shown nowhere.
    """
    key, password, argument = (secrets.token_hex(32) for _ in range(3))
    hidden = (key, password, key[:32], password[:32])
    with tempfile.TemporaryDirectory(prefix="ov-") as place, desk(tmp_path / "desk") as typed:
        directory = Path(place)
        with running_server(server_binary("valkey"), directory / "s", tcp=True, password=password) as address:
            typed.environ = {KEY_VARIABLE: key, "OVERNIGHT_REDIS_URL": address, "OVERNIGHT_CONNECT_SECONDS": "0.5"}
            (tmp_path / "desk" / "secret_flow.py").write_text(FLOW)
            parts = [typed.start("scheduler"), typed.start("worker")]
            ran = typed.run("run", "secret_flow.py:build", "-p", f"word={argument[::-1]}", "-k")
            shown_by_ps = [" ".join(process.cmdline()) for process in own_processes(typed)]
            said = [ran.out, ran.err, *(text for command in failing(typed, address, password) for text in command)]
            for part in parts:
                part.terminate()
                ended = finished(part)
                said += [ended.out, ended.err]
            assert not [text for text in said if argument in text]
            with connect(address) as client:
                said += [repr(client.hgetall(name)) for name in client.scan_iter(_type="hash")]
            said.append((directory / "s" / "server.log").read_text())
        assert ran.status == 1, ran
        assert len(shown_by_ps) >= 2
        for text in (*said, *shown_by_ps, *artefacts(typed.directory)):
            assert not [secret for secret in hidden if secret in text], text


FLOW = """
import os
from overnight import TaskGraph


def fails(value):
    raise ValueError(sorted(name for name in os.environ if name.startswith("OVERNIGHT")))


def build(*, word: str) -> TaskGraph:
    graph = TaskGraph()
    graph.create_task("fails", fails, args=[word[::-1]])
    graph.create_task("gives", str, args=[word[::-1]])
    return graph
"""


def own_processes(typed: Desk) -> list[psutil.Process]:
    """The processes that work in the desk's directory."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(typed.directory) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def failing(typed: Desk, address: str, password: str) -> list[tuple[str, str]]:
    """What commands say that fail, each in another way, all at once."""
    nowhere = address.replace(address.rpartition(":")[2], f"{free_port()}/0")
    urls = [nowhere, address.replace("redis://", "rediss://"), address.replace(":" + password, f":{password}x"),
            f"redis://u:{password}/x@127.0.0.1:1/0", f"redis://:{password}", f":{password}@127.0.0.1"]  # fmt: skip
    verbs = ["runs", "workers", "doctor", "cancel", "scheduler", "worker"]
    commands = [typed.start(verb, "-u", url) for verb, url in zip(verbs, urls, strict=True)]
    commands += [
        typed.start("status", "no-such-run"),
        typed.start("status", "last", "fails"),
        typed.start("status", "--json"),
    ]
    ended = [finished(command) for command in commands]
    assert all(command.status for command in ended[:7]), ended
    return [(command.out, command.err) for command in ended]


def artefacts(directory: Path) -> Iterator[str]:
    """The content of every file below a directory, but for the flow itself."""
    for path in directory.rglob("*"):
        if path.is_file() and path.name != "secret_flow.py":
            yield path.read_bytes().decode("latin-1")
