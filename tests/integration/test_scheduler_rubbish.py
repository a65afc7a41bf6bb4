"""Whoever may write to the server can damage a run; the scheduler says so once and serves the others (A2, P17)."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

import pytest
import redis

from overnight.config import Settings
from overnight.core.events import Charge, TaskRules
from overnight.core.states import RunPhase, TaskState
from overnight.errors import OvernightError
from overnight.keyring import read_keyring
from overnight.lineage import lineage_digest
from overnight.messages import SpecChunk, StoredResult
from overnight.service import left_alone
from overnight.service.left_alone import LeftAlone
from overnight.service.loop import Scheduler
from overnight.state_dir import wait_until
from overnight.store.keys import RUN_KEYS, SHARED_KEYS
from overnight.store.records import Addition, Adopted, Batch, Claim, Epoch, Request, Verdict
from overnight.store.redis import RedisStore
from overnight.transport.memory import MemoryTransport
from tests.support.rubbish import JUNK, Damage, of_run, of_shared
from tests.support.servers import connect
from tests.support.stores import digest_of, failure, run_record, success, worker_record

SECONDS = 30.0
SETTINGS = Settings(lease_seconds=1.5, heartbeat_seconds=0.5)
NAMES = tuple(key.name for key in RUN_KEYS)
TASKS = 8


def put_in_place(store: RedisStore, run_id: str, queue: str) -> None:
    """Submit a run of some tasks, of which one was finished before."""
    record = run_record(run_id, key=run_id, place=f"/{run_id}", total=TASKS)
    store.open_run(record, b"context")
    rules = {"retries": 5, "retry_delay": 0.0, "priority": 0, "queue": queue, "resources": ()}
    ids = [f"task {number}" for number in range(TASKS)]
    dependencies = [[] if task < TASKS - 1 else [TASKS - 2] for task in range(TASKS)]
    each = {task: TaskRules(**rules) for task in range(TASKS)}  # type: ignore[arg-type]
    chunk = SpecChunk(0, ids, ["f"], [0] * TASKS, dependencies, each)
    messages = dict.fromkeys(range(TASKS - 2), b"message")
    adopted = {TASKS - 3: Adopted(digest_of("adopted"), b"located")}
    store.put_blobs(run_id, {"ab" * 32: b"blob"})
    store.add_tasks(run_id, Addition(0, TASKS, chunk.sealed(run_id, read_keyring()), messages, adopted))
    store.activate(run_id)


def play_on(store: RedisStore, epoch: Epoch, run_id: str) -> None:
    """Let every key of a run come to exist: tasks done, failed, charged, running, queued, skipped."""
    nothing = lineage_digest([])
    batches = [Batch(f"{run_id}-{task}", "old", (task,), (1,), (nothing,)) for task in range(5)]
    assert store.dispatch(epoch, run_id, batches) == [True] * 5
    for task, seconds in ((0, 60.0), (1, 60.0), (2, 60.0), (3, 0.0)):
        assert isinstance(store.claim(run_id, f"{run_id}-{task}", "w1", 1, seconds), Claim)
    store.commit(run_id, f"{run_id}-0", "w1", [success(0, used=nothing)], 60.0)
    store.commit(run_id, f"{run_id}-1", "w1", [failure(1)], 60.0)
    store.settle(epoch, run_id, [Verdict(1, TaskState.PENDING, Charge(1, 0, 1.0))])
    store.settle(epoch, run_id, [Verdict(TASKS - 2, TaskState.FAILED, error=b"error")])
    store.settle(epoch, run_id, [Verdict(TASKS - 1, TaskState.SKIPPED, cause=TASKS - 2)])


@contextmanager
def scheduler(url: str) -> Iterator[tuple[threading.Thread, MemoryTransport]]:
    """Run a scheduler in a thread."""
    stop, transport = threading.Event(), MemoryTransport()
    with connect(url) as own:
        store = RedisStore(own, "test", lease_seconds=SETTINGS.lease_seconds)
        thread = threading.Thread(
            target=Scheduler(store, transport, read_keyring(), SETTINGS, "here", stop).run, name="scheduler"
        )
        thread.start()
        try:
            yield thread, transport
        finally:
            stop.set()
            thread.join(SECONDS)


def work_off(store: RedisStore, transport: MemoryTransport, run_id: str, queue: str) -> bool:
    """Do what a worker does with one entry of a sound run; tell whether its run has ended."""
    entry = transport.pop(queue)
    if entry is not None and entry.run_id == run_id:
        claim = store.claim(run_id, entry.batch, "w2", 1, 60.0)
        if isinstance(claim, Claim):
            reports = [success(task, used=lineage) for task, lineage in zip(claim.tasks, claim.lineages, strict=True)]
            store.commit(run_id, entry.batch, "w2", reports, 60.0)
    return store.run(run_id).phase.is_over


@pytest.mark.parametrize("when", ["before", "meanwhile"])
@pytest.mark.parametrize("part", range(4))
def test_a_damaged_run_is_left_alone_and_a_sound_one_goes_on(
    redis_url: str, when: str, part: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Every key of a run in every way, one way a run; and one run that nobody touched."""
    caplog.set_level(logging.WARNING)
    with connect(redis_url) as client:
        store = RedisStore(client, "test")
        epoch = store.take_epoch("tester", "a test", 60)
        assert isinstance(epoch, Epoch)
        put_in_place(store, "model", "old")
        play_on(store, epoch, "model")
        damages = list(of_run(client, "{test}:run:model:", NAMES))[part::4]
        runs = {f"d{at}": damage for at, damage in enumerate(damages)}
        for run_id in runs:
            put_in_place(store, run_id, f"q{run_id}")
            play_on(store, epoch, run_id)
        put_in_place(store, "sound", "sound")
        store.leave_epoch(epoch)
        if when == "before":
            damage_all(client, runs)
        store.register(worker_record("w2"), 60)
        with scheduler(redis_url) as (thread, transport):
            if when == "meanwhile":
                assert wait_until(lambda: transport.depth("sound") > 0, SECONDS), caplog.text[-3000:]
                damage_all(client, runs)
                touch_all(store, runs)
            ended = wait_until(lambda: work_off(store, transport, "sound", "sound") or not thread.is_alive(), SECONDS)
            assert thread.is_alive(), caplog.text[-3000:]
            assert ended, caplog.text[-3000:]
        assert store.run("sound").phase is RunPhase.SUCCEEDED
    lines = Counter(
        str(record.args[0])
        for record in caplog.records
        if "left alone" in record.msg and isinstance(record.args, tuple)
    )
    assert len(lines) > 10
    assert set(lines.values()) == {1}


def damage_all(client: redis.Redis, runs: dict[str, Damage]) -> None:
    for run_id, damage in runs.items():
        damage.put(client, f"{{test}}:run:{run_id}:")


def touch_all(store: RedisStore, runs: dict[str, Damage]) -> None:
    """Let the scheduler hear of each run, and have something to do for it."""
    for run_id in runs:
        for touch in (
            lambda run_id=run_id: store.commit(run_id, f"{run_id}-2", "w1", [success(2, used=lineage_digest([]))], 1),
            lambda run_id=run_id: store.request(run_id, Request.CANCEL),
        ):
            try:
                touch()
            except (OvernightError, redis.RedisError, ValueError):
                continue


def test_rubbish_among_what_runs_share_stops_nobody(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Leases, workers, durations, active runs, the control stream: what is none of ours is passed over."""
    caplog.set_level(logging.WARNING)
    with connect(redis_url) as client:
        store = RedisStore(client, "test")
        put_in_place(store, "sound", "sound")
        for damage in of_shared():
            damage.put(client, "{test}:")
        with scheduler(redis_url) as (thread, transport):
            ended = wait_until(lambda: work_off(store, transport, "sound", "sound") or not thread.is_alive(), SECONDS)
            assert thread.is_alive(), caplog.text[-3000:]
            assert ended, caplog.text[-3000:]
            assert store.workers() == []


def test_a_damaged_run_that_is_mended_goes_on(
    redis_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at again, by the same scheduler, and told of once however often it is found damaged."""
    monkeypatch.setattr(left_alone, "LOOK_AGAIN_SECONDS", 0.1)
    looks: list[str] = []
    put = LeftAlone.put

    def counted(self: LeftAlone, epoch: Epoch, run_id: str, error: Exception, now: float) -> None:
        looks.append(run_id)
        put(self, epoch, run_id, error, now)

    monkeypatch.setattr(LeftAlone, "put", counted)
    with connect(redis_url) as client:
        store = RedisStore(client, "test")
        put_in_place(store, "r1", "default")
        client.hset("{test}:run:r1:meta", "phase", JUNK)
        with scheduler(redis_url) as (_, transport):
            assert wait_until(lambda: len(looks) > 3, SECONDS)
            client.hset("{test}:run:r1:meta", "phase", "active")
            assert wait_until(lambda: work_off(store, transport, "r1", "default"), SECONDS), caplog.text[-3000:]
    assert sum("left alone" in record.msg for record in caplog.records) == 1


def test_a_shared_key_of_another_type_is_told_once_and_waited_out(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It belongs to no run; a person has to take it away. The scheduler goes on by itself then."""
    caplog.set_level(logging.WARNING)
    with connect(redis_url) as client:
        store = RedisStore(client, "test")
        for key in SHARED_KEYS:
            client.set(f"{{test}}:{key.name}", "junk")
        with scheduler(redis_url) as (thread, transport):
            assert wait_until(lambda: "must be a" in caplog.text or not thread.is_alive(), SECONDS)
            assert thread.is_alive(), caplog.text[-3000:]
            client.delete(*(f"{{test}}:{key.name}" for key in SHARED_KEYS))
            put_in_place(store, "sound", "sound")
            ended = wait_until(lambda: work_off(store, transport, "sound", "sound") or not thread.is_alive(), SECONDS)
            assert thread.is_alive(), caplog.text[-3000:]
            assert ended, caplog.text[-3000:]
    told = [record for record in caplog.records if "cannot be used" in record.msg]
    assert 1 <= len(told) <= len(SHARED_KEYS)
    assert all("The key {test}:" in record.getMessage() for record in told)
    assert "WRONGTYPE" not in caplog.text


@pytest.mark.parametrize("name", ["leases", "runs:active", "control", "workers"])
def test_a_shared_key_that_changes_its_type_under_a_scheduler_is_waited_out(
    redis_url: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One line, no loop without a pause, no run taken for damaged, and all goes on when the key is right."""
    caplog.set_level(logging.INFO)
    with connect(redis_url) as client:
        store = RedisStore(client, "test")
        put_in_place(store, "sound", "sound")
        with scheduler(redis_url) as (thread, transport):
            assert wait_until(lambda: transport.depth("sound") > 0, SECONDS), caplog.text[-3000:]
            kept = client.dump(f"{{test}}:{name}")
            client.delete(f"{{test}}:{name}")
            client.set(f"{{test}}:{name}", "rubbish")
            client.xadd("{test}:control", {"run": "sound"}) if name != "control" else None
            told = f"The key {{test}}:{name} on"
            seen = wait_until(lambda: told in caplog.text or not thread.is_alive(), SECONDS)
            client.delete(f"{{test}}:{name}")
            if kept is not None:
                client.restore(f"{{test}}:{name}", 0, kept)
            assert seen, caplog.text[-3000:]
            ended = wait_until(lambda: work_off(store, transport, "sound", "sound") or not thread.is_alive(), SECONDS)
            assert thread.is_alive(), caplog.text[-3000:]
            assert ended, caplog.text[-3000:]
    assert caplog.text.count(told) == 1
    assert caplog.text.count("took epoch") <= 2
    assert "left alone" not in caplog.text


def test_digests_that_the_server_lost_are_restored_and_the_run_ends(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker gives back what depends on a result without a digest. The sealed results tell what was lost."""
    caplog.set_level(logging.WARNING)
    nothing = lineage_digest([])
    with connect(redis_url) as client:
        store = RedisStore(client, "test")
        store.open_run(run_record("r1", key="r1", place="/r1", total=2), b"context")
        chunk = SpecChunk(0, ["first", "second"], ["f"], [0, 0], [[], [0]])
        messages = dict.fromkeys(range(2), b"message")
        store.add_tasks("r1", Addition(0, 2, chunk.sealed("r1", read_keyring()), messages))
        store.activate("r1")
        store.register(worker_record("w2"), 60)
        with scheduler(redis_url) as (_, transport):
            commit_one(store, transport, StoredResult(sha256(b"1").digest(), 1, body=b"1"), 0, nothing)
            digest = store.read_digests("r1", [0])
            assert wait_until(lambda: transport.depth("default") > 0, SECONDS), caplog.text
            client.delete("{test}:run:r1:digests")
            entry = transport.pop("default")
            assert entry is not None
            claim = store.claim("r1", entry.batch, "w2", 1, 60.0)
            assert isinstance(claim, Claim)
            store.give_back("r1", entry.batch, "w2", claim.tasks)
            assert wait_until(lambda: store.read_digests("r1", [0]) == digest, SECONDS), caplog.text
            commit_one(store, transport, StoredResult(sha256(b"2").digest(), 1, body=b"2"), 1, lineage_digest(digest))
            assert wait_until(lambda: store.run("r1").phase is RunPhase.SUCCEEDED, SECONDS), caplog.text
    assert "the digests of 1 results; 1 are restored, 0 are computed again" in caplog.text


def test_a_result_lost_with_its_digest_is_computed_again(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Also by a scheduler that comes later and has never known it."""
    caplog.set_level(logging.WARNING)
    with connect(redis_url) as client:
        store = RedisStore(client, "test")
        put_in_place(store, "r1", "default")
        client.delete("{test}:run:r1:digests", "{test}:run:r1:results")
        with scheduler(redis_url):
            adopted = 2 * (TASKS - 3)
            assert wait_until(lambda: store.states("r1")[adopted] != TaskState.CACHED, SECONDS), caplog.text
    assert "0 are restored, 1 are computed again" in caplog.text


def commit_one(store: RedisStore, transport: MemoryTransport, result: StoredResult, task: int, lineage: bytes) -> None:
    """Do what a worker does with the next entry of the run `r1`, which must be this task alone."""
    assert wait_until(lambda: transport.depth("default") > 0, SECONDS)
    entry = transport.pop("default")
    assert entry is not None
    claim = store.claim("r1", entry.batch, "w2", 1, 60.0)
    assert isinstance(claim, Claim)
    assert list(claim.tasks) == [task]
    report = success(task, used=lineage)._replace(
        record=result.sealed("r1", task, read_keyring()), digest=result.digest
    )
    store.commit("r1", entry.batch, "w2", [report], 60.0)
