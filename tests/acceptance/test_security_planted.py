"""With a key nothing that others planted is unpickled, wherever they put it (ADVERSITY 8, C1 and C2; P17)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from overnight.cache import FileTaskCache
from overnight.commands.app import run as overnight
from overnight.config import Settings
from overnight.core.states import TaskState
from overnight.errors import BadSeal, OvernightError
from overnight.flags import FlagHeader, encode_flag
from overnight.keyring import KEY_VARIABLE
from overnight.naming import flag_name
from overnight.results import ResultLost, Results
from overnight.service.loop import Scheduler
from overnight.state_dir import wait_until
from overnight.store.records import Verdict
from overnight.store.redis import RedisStore
from overnight.task import Task
from overnight.transport.memory import MemoryTransport
from overnight.wire import Purpose, seal
from tests.support import worker_tasks as tasks
from tests.support.command import Desk
from tests.support.hostile import KEY, NO_KEY, WRONG_KEY, payload, planted
from tests.support.servers import connect, running_server, server_binary
from tests.support.small_scheduler import Plan, SmallScheduler, worker

HEX_KEY = KEY.keys[0].hex()


@pytest.fixture(scope="module")
def url(short_directory: Path) -> Iterator[str]:
    with running_server(server_binary("valkey"), short_directory / "planted") as given:
        yield given


@pytest.fixture
def run(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SmallScheduler]:
    """A scheduler of tests with the key, in a directory of its own."""
    monkeypatch.setenv(KEY_VARIABLE, HEX_KEY)
    monkeypatch.setenv("OVERNIGHT_REDIS_URL", url)
    monkeypatch.chdir(tmp_path)
    with connect(url) as client:
        client.flushall()
    scheduler = SmallScheduler(url, keyring=KEY)
    yield scheduler
    scheduler.close()


def stored(run: SmallScheduler, url: str, directory: Path) -> None:
    """A run in which one task is done, one has failed, one is claimed and one waits, so that every key exists."""
    shared = run.share(["shared"])
    plans = [
        Plan(tasks.answer),
        Plan(tasks.fail),
        Plan(tasks.answer),
        Plan(tasks.length, (shared,)),
        Plan(tasks.answer),
    ]
    run.submit(plans, directory, record={"log_dir": str(directory), "status_dir": str(directory / "status")})
    with worker(url, directory):
        run.dispatch(0, 1)
        run.wait_ended(0, 1)
    run.store.settle(run.epoch(), run.run_id, [Verdict(1, TaskState.FAILED)])
    batch = run.dispatch(2)
    run.store.claim(run.run_id, batch, "w" * 32, 1, 3600)
    run.dispatch(4)


def fields(client: redis.Redis) -> Iterator[tuple[Any, Any, Any]]:
    """Yield each place on the server at which a value stands: key, field or position, and the value."""
    for key in sorted(client.scan_iter()):
        kind = client.type(key)
        kind = kind.decode() if isinstance(kind, bytes) else kind
        if kind == "string":
            yield key, None, client.get(key)
        elif kind == "hash":
            yield from ((key, field, value) for field, value in client.hgetall(key).items())
        else:
            yield key, kind, None


def put(client: redis.Redis, key: bytes, field: Any, value: bytes) -> None:
    """Write a value to a place, beside what stands there where there is no one value."""
    match field:
        case None:
            client.set(key, value, keepttl=True)
        case "stream":
            client.xadd(key, {"n": value, "w": value, "c": value, "t": value, "v": value, "i": value, "run": value})
        case "zset":
            client.zadd(key, {value: 4e9})
        case "set":
            client.sadd(key, value)
        case "list":
            client.rpush(key, value)
        case _:
            client.hset(key, field, value)


READING = (
    ("status", "last", "task-1"),
    ("status", "last"),
    ("workers",),
    ("logs", "last", "task-0"),
    ("logs", "last", "task-1"),
    ("report", "last", "-o", "report.html"),
)


def read_all(run: SmallScheduler, url: str) -> None:
    """Read in all ways: commands, the driver's own reading of results, the scheduler."""
    for words in READING:
        assert overnight(words) in (0, 1, 2, 4, 5)
    for task in range(4):
        for read in (run.error, lambda number: results_of(run, number)):
            try:
                read(task)
            except (OvernightError, ResultLost, ValueError, AssertionError, redis.RedisError, KeyError, TypeError):
                continue


def results_of(run: SmallScheduler, task: int) -> bytes:
    """Fetch a result as drivers and audits do."""
    results = Results(run.store, run.run_id, KEY)
    found = results.stored([task])[task]
    return results.body(found, run.task_id(task)) if not isinstance(found, ResultLost) else b""


def test_nothing_planted_on_the_server_is_unpickled_by_those_who_read(
    run: SmallScheduler, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """C1, C2, P17: each field of each key in turn, bare and framed with every kind of wrong seal."""
    stored(run, url, tmp_path)
    canary = tmp_path / "canary"
    places = list(fields(run.client))
    assert len({key for key, _, _ in places}) >= 20
    framed = 0
    for key, field, before in places:
        dump = run.client.dump(key) or b""
        for value in planted(before, canary):
            framed += value[:4] == b"ovnt"
            put(run.client, key, field, value)
            read_all(run, url)
            assert not canary.exists(), (key, field)
            run.client.restore(key, 0, dump, replace=True)
    assert framed >= 3 * 10
    capsys.readouterr()


def test_nothing_planted_on_the_server_is_unpickled_by_a_scheduler(
    run: SmallScheduler, url: str, tmp_path: Path
) -> None:
    """C1, C2, P17: all fields at once, and a sound run beside them that goes on."""
    stored(run, url, tmp_path)
    canary = tmp_path / "canary"
    for key, field, before in list(fields(run.client)):
        if b":run:" in key or b":rq:" in key:
            put(run.client, key, field, list(planted(before, canary))[-1])
    sound = SmallScheduler(url, keyring=KEY)
    sound.submit([Plan(tasks.answer)], tmp_path)
    stop, transport = threading.Event(), MemoryTransport()
    with connect(url) as client:
        client.delete("{overnight}:scheduler")
        scheduler = Scheduler(RedisStore(client, "overnight"), transport, KEY, Settings(), "here", stop)
        thread = threading.Thread(target=scheduler.run)
        thread.start()
        try:
            assert wait_until(lambda: getattr(transport.pop("default"), "run_id", "") == sound.run_id, 30)
        finally:
            stop.set()
            thread.join(30)
    sound.close()
    assert not canary.exists()


def seals(header: dict[str, Any], purpose: Purpose, body: bytes) -> list[bytes]:
    """A record for a place without a seal, and under wrong ones."""
    return [body, seal(purpose, header, body, NO_KEY), seal(purpose, header, body, WRONG_KEY)]


def test_a_worker_unpickles_nothing_planted(run: SmallScheduler, url: str, tmp_path: Path) -> None:
    """C1, C2, P17: messages, functions, arguments, results, flags, spool files, queue entries, jobs with callbacks."""
    canary, hostile = tmp_path / "canary", payload(tmp_path / "canary")
    status = tmp_path / "status"
    status.mkdir(mode=0o700)
    shared = run.share(["shared"])
    lengths = [Plan(tasks.length, (Task("0"),), (0,)) for _ in range(3)]
    plans = [Plan(tasks.answer), *lengths, *[Plan(tasks.answer) for _ in range(6)], Plan(tasks.length, (shared,))]
    run.submit(plans, tmp_path, context={"status_dir": str(status)})
    prefix = f"{{overnight}}:run:{run.run_id}:"
    for task, record in zip((4, 5, 6), seals({"run": run.run_id, "task": 4}, Purpose.TASK, hostile), strict=True):
        run.client.hset(prefix + "messages", str(task), record)
    bound = {"run": run.run_id, "digest": shared.digest}
    run.client.hset(prefix + "blobs", shared.digest, seals(bound, Purpose.BLOB, hostile)[2])
    for task, keyring in ((7, NO_KEY), (8, WRONG_KEY)):
        claimed = FlagHeader(run.task_id(task), run_id=run.run_id, dependency_records=())
        (status / flag_name(run.task_id(task))).write_bytes(encode_flag(claimed, hostile, keyring))
    (status / flag_name(run.task_id(9))).write_bytes(hostile)
    spool = tmp_path / "state" / "spool"
    spool.mkdir(parents=True, mode=0o700)
    (tmp_path / "state").chmod(0o700)
    (spool / "dead.lock").touch(0o600)
    for number, record in enumerate(
        seals({"run": run.run_id, "batch": "b", "instance": "dead"}, Purpose.SPOOL, hostile)
    ):
        (spool / f"dead.{number}.spool").write_bytes(record)
    plant_jobs(run.client, hostile)
    with worker(url, tmp_path) as running:
        run.dispatch(0)
        run.wait_ended(0)
        digest = run.stored(0).digest
        forged = seals(
            {"run": run.run_id, "task": 0, "digest": digest.hex(), "size": 1, "locator": None}, Purpose.RESULT, hostile
        )
        for task, record in zip((1, 2, 3), forged, strict=True):
            run.client.hset(prefix + "results", "0", record)
            run.dispatch(task)
            run.wait_ended(task)
        run.dispatch(4, 5, 6, 10)
        run.dispatch(7, 8, 9)
        run.wait_ended()
        # H10: nobody listens on any channel, so nothing that RQ's commands could stop or shut down is reached.
        assert run.client.pubsub_channels() == []
        assert run.client.pubsub_numpat() == 0
        assert running.process.poll() is None
    assert not canary.exists()
    assert [run.state(task) for task in (7, 8, 9)] == [TaskState.DONE] * 3
    assert [run.result(task) for task in (7, 8, 9)] == [42] * 3
    assert all(run.view(task).error is not None for task in (1, 2, 3, 4, 5, 6, 10))
    assert len(list(spool.glob("*.damaged"))) == 3


def plant_jobs(client: redis.Redis, hostile: bytes) -> None:
    """Queue jobs whose fields are hostile, one field each, and entries that are no jobs."""
    queue = "{overnight}:rq:queue:default"
    names = ("data", "meta", "result", "exc_info", "success_callback_name", "failure_callback_name", "args")
    for name in (*names, "stopped_callback_name", "timeout", "status", "created_at", "serializer", "description"):
        job: dict[Any, Any] = {
            "created_at": "2026-01-01T00:00:00.000000Z",
            "data": b"{}",
            "origin": "default",
            "status": "queued",
        }
        value = b"os.mkdir" if name.endswith("callback_name") else hostile
        client.hset(f"{{overnight}}:rq:job:{name}", mapping={**job, name: value})
        client.rpush(queue, name)
    client.rpush(queue, hostile, b"\x00", b"../../x", b"no-such-job")


def test_a_context_without_the_right_seal_is_a_run_for_others(run: SmallScheduler, url: str, tmp_path: Path) -> None:
    """C1: what would set import paths and environment of tasks."""
    run.submit([Plan(tasks.answer)], tmp_path)
    key = f"{{overnight}}:run:{run.run_id}:context"
    record = run.client.get(key)
    assert isinstance(record, bytes)
    run.client.set(key, list(planted(record, tmp_path / "canary"))[1])
    with worker(url, tmp_path) as running:
        run.dispatch(0)
        assert wait_until(lambda: running.said("is left to other workers"), 30)
    assert run.state(0) is TaskState.QUEUED
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("with_key", [True, False])
def test_looking_at_a_status_directory_unpickles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_key: bool
) -> None:
    """C2: a dry run and its reasons, key or not, though without one the flag itself is believed."""
    canary = tmp_path / "canary"
    if with_key:
        monkeypatch.setenv(KEY_VARIABLE, HEX_KEY)
    else:
        monkeypatch.delenv(KEY_VARIABLE, raising=False)
    status = tmp_path / "status"
    status.mkdir(mode=0o700)
    header = FlagHeader("noop 0", function="tests.support.functions:noop", dependencies=())
    for number, keyring in enumerate((NO_KEY, WRONG_KEY)):
        data = encode_flag(header._replace(task_id=f"noop {number}"), payload(canary), keyring)
        (status / flag_name(f"noop {number}")).write_bytes(data)
    desk = Desk(tmp_path)
    desk.environ = {KEY_VARIABLE: HEX_KEY} if with_key else {}
    listed = desk.run("run", "tests.support.graphs:noops", "-p", "n=3", "-d", str(status), "-n")
    assert f"{3 if with_key else 1} of 3 tasks would run." in listed.out, listed
    found = FileTaskCache(str(status)).read_flags([Task("noop 0"), Task("noop 1")])
    assert [isinstance(flag, BadSeal) for flag in found.values()] == [with_key] * 2
    assert not canary.exists()
