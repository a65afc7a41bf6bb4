"""What only a server can do to a store: be full, forget scripts, restart, lose keys to their lifetimes, be unfit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from overnight.config import Settings
from overnight.core.events import Charge
from overnight.core.states import RunPhase, TaskState
from overnight.errors import (
    AddedMeanwhile,
    DamagedRun,
    Fenced,
    MisusedKey,
    NoRoom,
    ServerUnfit,
    StoreFull,
    UnknownRun,
    Unreachable,
    UsageError,
)
from overnight.state_dir import wait_until
from overnight.store import redis_submitting, scripts
from overnight.store.connection import connect, hidden
from overnight.store.keys import RUN_KEYS, SHARED_KEYS, Key
from overnight.store.memory import MemoryStore
from overnight.store.records import Adopted, Batch, Epoch, EpochHeld, Opening, Reaped, Request, Verdict
from overnight.store.redis import RedisStore
from overnight.store.server_check import check_server, examine
from tests.support.servers import KINDS, free_port, running_server, server_binary
from tests.support.stores import (
    ACCEPTED,
    LEASE,
    NO_TIME,
    Clock,
    Night,
    Store,
    addition,
    batch_of,
    begin,
    digest_of,
    failure,
    run_record,
    success,
    worker_record,
)


@contextmanager
def full(store: RedisStore) -> Iterator[None]:
    """The server's memory is full."""
    store.server.client.script_flush()
    store.server.client.config_set("maxmemory", 1)
    try:
        yield
    finally:
        store.server.client.config_set("maxmemory", 0)


def test_no_client_adds_what_another_one_has_put_down_for_its_own_tasks(
    server_store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: a task would be run as another one, of which the message lies under its number. P9: or as none, where a
    server fell back between the pieces and the addition."""
    monkeypatch.setattr(redis_submitting, "MOST_BYTES", 1)
    server_store.open_run(run_record(), b"")
    send, mine = server_store.server.send, addition(0, 2)
    theirs = replace(mine, spec=b"another spec", messages={0: b"their 0", 1: b"their 1"})
    my_pieces, their_pieces = (list(server_store._staging("r1", one, one.spec.decode())) for one in (mine, theirs))
    assert [send(my_pieces[0]), *map(send, their_pieces), send(my_pieces[1])] == [b"ok", b"ok", b"ok", b"disordered"]
    with monkeypatch.context() as nothing_more, pytest.raises(AddedMeanwhile):
        nothing_more.setattr(server_store, "_staging", lambda *_: ())
        server_store.add_tasks("r1", mine)
    assert server_store.run("r1").added == 0
    server_store.add_tasks("r1", mine)
    assert send(("HMGET", server_store.server.keys.of_run("r1", "messages"), 0, 1)) == [b"message 0", b"message 1"]


def test_a_full_server_refuses_what_would_grow(server_store: RedisStore) -> None:
    """P13: that is the back-pressure."""
    night = begin(server_store, 2)
    night.start("b", [0])
    night.commit("b", success(0))
    before = server_store.load_run("r1")
    with full(server_store):
        for grow in (
            lambda: server_store.open_run(run_record("r2", key="k", place=""), b""),
            lambda: server_store.add_tasks("r1", addition(2, 1)),
            lambda: server_store.add_tasks("r1", addition(2, 1, adopted=[2])),
            lambda: server_store.put_blobs("r1", {"a": b"x"}),
            lambda: server_store.adopt("r1", {1: Adopted(digest_of("x"), b"")}),
            lambda: server_store.rewrite_result("r1", 0, b"elsewhere", digest_of("value 0")),
            lambda: night.dispatch(batch_of("b2", [1])),
            lambda: server_store.write_durations({"f": (1.0, 1)}),
        ):
            with pytest.raises(StoreFull, match="maxmemory"):
                grow()
    assert server_store.load_run("r1") == before
    assert [run.run_id for run in server_store.runs()] == ["r1"]


def test_a_full_server_takes_what_is_finished_and_sets_free_what_is_lost(server_store: RedisStore) -> None:
    """P13."""
    night = begin(server_store, 6)
    night.start("b1", [0, 1])
    night.start("b2", [2], seconds=NO_TIME)
    night.dispatch(batch_of("b3", [3]), batch_of("b4", [4]))
    with full(server_store):
        assert night.commit("b1", success(0)).acceptances == (ACCEPTED,)
        assert server_store.reap(night.epoch) == [Reaped("r1", "b2", (2,))]
        assert not server_store.heartbeat(worker_record(), LEASE, [("r1", "b1")])[0].lost
        server_store.give_back("r1", "b1", "w1", [1])
        night.claim("b3")
        assert night.commit("b3", failure(3)).acceptances == (ACCEPTED,)
        assert server_store.withdraw(night.epoch, "r1", ["b4"]) == ["b4"]
        night.settle(Verdict(3, TaskState.FAILED, Charge(1), error=b"e"))
        assert server_store.take_epoch("scheduler 1", "", LEASE) == night.epoch
        server_store.request("r1", Request.CANCEL)
        night.settle(*(Verdict(task, TaskState.CANCELLED) for task in (1, 2, 4, 5)))
        assert night.end(RunPhase.CANCELLED)
        server_store.request("r1", Request.RETRY)
        assert server_store.invalidate("r1", [0]) == [0]
        server_store.unregister("w1")
        server_store.leave_epoch(night.epoch)
    assert night.states() == "pppppp"


def test_scripts_that_the_server_forgot_are_loaded_again(server_store: RedisStore) -> None:
    night = begin(server_store)
    server_store.server.client.script_flush()
    night.dispatch(*(batch_of(f"b{task}", [task]) for task in range(4)))
    server_store.server.client.script_flush()
    assert len(server_store.heartbeat(worker_record(), LEASE, [("r1", "b1")] * 3)) == 3


def test_no_step_leaves_a_key_without_a_lifetime(server_store: RedisStore) -> None:
    """P16. A key that ran empty and comes again gets its lifetime again."""
    client = server_store.server.client
    night = begin(server_store, 4, adopted=[3])
    steps: list[Callable[[], object]] = [
        lambda: server_store.put_blobs("r1", {"a": b"x"}),
        lambda: night.start("b1", [0, 1, 2]),
        lambda: night.commit("b1", success(0), failure(1)),
        lambda: night.settle(Verdict(1, TaskState.FAILED, Charge(1)), Verdict(2, TaskState.CANCELLED, cause=1)),
        lambda: server_store.register(worker_record(), LEASE),
        lambda: server_store.write_durations({"f": (1.0, 1)}),
        night.end,
        lambda: server_store.request("r1", Request.RETRY),
        lambda: night.start("b2", [1], 2),
        lambda: server_store.give_back("r1", "b2", "w1", [1]),
        lambda: night.settle(*(Verdict(task, TaskState.CANCELLED) for task in (1, 2))),
        lambda: night.end(RunPhase.CANCELLED),
    ]
    for number, step in enumerate(steps):
        step()
        assert [key for key in client.scan_iter() if client.ttl(key) < 0] == [], f"after step {number}"


def test_an_ended_run_expires_and_leaves_nothing(server_store: RedisStore) -> None:
    night = begin(server_store, 1, adopted=[0], keep_seconds=100.0)
    server_store.put_blobs("r1", {"a": b"x"})
    night.end(RunPhase.SUCCEEDED)
    client, keys = server_store.server.client, server_store.server.keys.for_run_script("r1")[len(SHARED_KEYS) :]
    lives = [client.ttl(key) for key in keys if client.exists(key)]
    assert len(lives) >= 7
    assert all(90 < life <= 100 for life in lives)
    server_store.rewrite_result("r1", 0, b"moved", digest_of("flag 0"))
    client.delete(*keys)
    assert server_store.runs() == []


def test_a_run_longer_than_its_first_lifetime_keeps_its_keys(server_store: RedisStore) -> None:
    night = begin(server_store)
    client, keys = server_store.server.client, server_store.server.keys
    for key in client.scan_iter():
        client.expire(key, 100)
    night.start("b1", [0])
    assert client.ttl(keys.of_run("r1", "specs")) <= 100, "renewed at most once an hour"
    client.hset(keys.of_run("r1", "meta"), "touched", "0")
    night.commit("b1", success(0))
    assert min(client.ttl(key) for key in client.scan_iter()) > 1_000_000


def test_runs_whose_client_vanished_are_forgotten_with_the_next_submission(server_store: RedisStore) -> None:
    begin(server_store)
    client, keys = server_store.server.client, server_store.server.keys
    client.delete(*keys.for_run_script("r1")[len(SHARED_KEYS) :])
    client.zadd(keys.shared("runs"), {"r1": 1})
    assert server_store.open_run(run_record("r2"), b"").run.run_id == "r2"
    assert client.smembers(keys.shared("runs:active")) == {b"r2"}
    assert client.zrange(keys.shared("runs"), 0, -1) == [b"r2"]


def test_an_active_run_whose_record_was_deleted_is_in_nobodys_way(server_store: RedisStore) -> None:
    """Whoever starts its graph again, or another one in its directory, gets a run of its own."""
    for name in ("r1", "r2"):
        assert server_store.open_run(run_record(name, key="k", place="p"), b"").opening is Opening.CREATED
        server_store.server.client.delete(server_store.server.keys.of_run(name, "meta"))
    assert server_store.open_run(run_record("r3", key="other", place="p"), b"").opening is Opening.CREATED
    assert server_store.active_runs() == ["r3"]


@pytest.mark.parametrize("field", ["record", "phase", "created_at", "added"])
def test_an_active_run_whose_record_is_rubbish_is_cancelled_by_whoever_finds_it_in_the_way(
    server_store: RedisStore, field: str
) -> None:
    """P17: no command can name it, so nobody else could free its graph and its place."""
    night = begin(server_store, 2)
    meta = server_store.server.keys.of_run("r1", "meta")
    sound = server_store.server.client.hget(meta, field)
    server_store.server.client.hset(meta, field, b"\xfd{")
    opened = server_store.open_run(run_record("r2"), b"")
    assert (opened.opening, opened.run.run_id) == (Opening.CREATED, "r2")
    assert server_store.active_runs() == ["r2"]
    if field != "phase":
        server_store.server.client.hset(meta, field, sound)
    assert server_store.run("r1").phase is RunPhase.CANCELLED
    assert night.dispatch(batch_of("b", [0])) == [False]


def test_every_key_is_declared_with_its_type(server_store: RedisStore) -> None:
    night = begin(server_store, 4, adopted=[3])
    server_store.put_blobs("r1", {"a": b"x"})
    server_store.heartbeat(worker_record(), LEASE, (), b"last lines")
    server_store.write_durations({"f": (1.0, 1)})
    server_store.accuse("sick", "r1", 3, LEASE)
    night.start("b", [0, 1, 2])
    night.commit("b", success(0), failure(1, certificate=b"c"))
    night.settle(Verdict(1, TaskState.PENDING, Charge(1)), Verdict(1, TaskState.SKIPPED, cause=0))
    server_store.repair(night.epoch, "r1", [3], [3], 0)
    server_store.rewrite_result("r1", 0, b"r", digest_of("value 0"))
    client, keys = server_store.server.client, server_store.server.keys
    declared = {keys.shared(key.name): key.type for key in SHARED_KEYS}
    declared |= {keys.of_run("r1", key.name): key.type for key in RUN_KEYS}
    found = {}
    for key in client.scan_iter():
        kind = client.type(key)
        found[key.decode()] = kind.decode() if isinstance(kind, bytes) else kind
    assert found == declared


def test_a_schema_of_another_version_is_refused(server_store: RedisStore) -> None:
    """ADVERSITY 7, number 50."""
    server_store.server.client.hset(server_store.server.keys.shared("scheduler"), "schema", "99")
    with pytest.raises(ServerUnfit, match="schema 99"):
        server_store.take_epoch("one", "", LEASE)
    server_store.server.client.expire(server_store.server.keys.shared("scheduler"), 60)


def test_a_server_that_went_away_is_unreachable_and_its_password_hidden(short_directory: Path) -> None:
    """H4."""
    binary = server_binary("valkey")
    with running_server(binary, short_directory / "gone", tcp=True, password="canary") as url:
        client = connect(url, settings=Settings())
        store = RedisStore(client, "test")
        night = begin(store)
        check_server(client, url)
    client.set_retry(redis.retry.Retry(redis.backoff.NoBackoff(), 0))
    with pytest.raises(Unreachable, match="connection refused") as told:
        night.states()
    assert "canary" not in str(told.value)
    with pytest.raises(Unreachable, match="connection refused") as told:
        connect(url, settings=Settings(connect_seconds=0.1))
    assert "canary" not in str(told.value)
    client.close()


def test_what_is_wrong_with_a_connection_is_named(short_directory: Path) -> None:
    """ADVERSITY 7, numbers 47 and 48."""
    impatient = Settings(connect_seconds=0.2)
    with running_server(server_binary("valkey"), short_directory / "named", tcp=True, password="right") as url:
        address = url.rpartition("@")[2]
        cases = {
            f"redis://:wrong@{address}": "password is wrong",
            f"redis://{address}": "demands a password",
            f"rediss://:right@{address}": "TLS",
            f"redis://127.0.0.1:{free_port()}/0": "connection refused",
            "redis://no-such-host.invalid:6379/0": "host name",
            "unix:///no/such/socket": "does not exist",
        }
        for case, words in cases.items():
            with pytest.raises(Unreachable, match=words):
                connect(case, settings=impatient)
        with connect(url, settings=impatient) as client:
            client.acl_setuser("reader", enabled=True, passwords=["+x"], keys=["*"], commands=["+@all", "-evalsha"])
            reader = connect(f"redis://reader:x@{address}", settings=impatient)
            with reader, pytest.raises(Unreachable, match=r"access rules forbid .*evalsha"):
                RedisStore(reader, "test").take_epoch("one", "", 1)
    unfit = {
        "http://:secret@host": "redis://host",
        "rediss://host:6380?ssl_ca=/ca.crt": "connections have no option 'ssl_ca'",
        "rediss://host:6380?ssl_ca_certs=/no/ca.crt": r"'/no/ca.crt' \(ssl_ca_certs\), which cannot be read: No",
    }
    for case, words in unfit.items():
        with pytest.raises(UsageError, match=words):
            connect(case, settings=impatient)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
def test_a_server_without_room_is_named_whatever_way_it_hangs_up(short_directory: Path, kind: str, tcp: bool) -> None:
    """ADVERSITY 7, number 54: through a unix socket what is sent fails before the refusal is read."""
    place = short_directory / f"crowded-{kind}-{tcp}"
    with running_server(server_binary(kind), place, tcp=tcp, password="right") as url, redis.from_url(url) as admin:
        admin.ping()
        lost = connect(url, settings=Settings())
        lost.ping()
        lost.set_retry(redis.retry.Retry(redis.backoff.NoBackoff(), 0))
        admin.config_set("maxclients", 1)
        for _ in range(20):
            with pytest.raises(NoRoom, match="max number of clients reached: raise its maxclients"):
                connect(url, settings=Settings(connect_seconds=0.1))
        admin.client_kill_filter(_type="normal", skipme=True)
        for _ in range(2):
            with pytest.raises(Unreachable) as told:
                RedisStore(lost, "test").workers()
        assert isinstance(told.value, NoRoom)
        admin.config_set("maxclients", 1000)
        assert RedisStore(lost, "test").workers() == []
        with pytest.raises(Unreachable, match="password is wrong"):
            connect(url.replace("right", "wrong"), settings=Settings(connect_seconds=0.1))
        lost.close()


def test_a_password_is_hidden_wherever_it_stands() -> None:
    assert hidden("redis://user:pw@host:1/0") == "redis://user:***@host:1/0"
    assert hidden("unix:///tmp/s?db=1&password=pw") == "unix:///tmp/s?db=1&password=***"
    assert hidden("rediss://host") == "rediss://host"


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_would_lose_tasks_is_refused(kind: str, short_directory: Path) -> None:
    """ADVERSITY 3, server requirements; ADVERSITY 7, number 49."""
    with running_server(server_binary(kind), short_directory / f"unfit-{kind}") as url:
        client = connect(url, settings=Settings())
        report = check_server(client, url)
        assert report.run_id == client.info()["run_id"]
        assert report.version.startswith(kind)
        assert ["append-only" in warning for warning in report.warnings] == [True]
        client.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(ServerUnfit, match="maxmemory-policy noeviction"):
            check_server(client, url)
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("appendonly", "yes")
        assert check_server(client, url).warnings == ()
        client.config_set("maxmemory", client.info()["used_memory"] + 1000)
        assert "maxmemory" in check_server(client, url).warnings[0]
        client.config_set("maxmemory", 0)
        client.replicaof("127.0.0.1", str(free_port()))
        with pytest.raises(ServerUnfit, match="replica"):
            check_server(client, url)
        assert examine(client, "redis://elsewhere:6379/0").refusals[-1].endswith("name it in the URL.")
        client.close()


def test_the_reaper_looks_again_before_it_acts(server_store: RedisStore) -> None:
    """ADVERSITY 3: the lease may have been renewed, or the batch finished, since it was found to have run out."""
    night = begin(server_store)
    night.start("b", [0])
    reap = server_store.server.on_run(scripts.REAP, "r1", "b", night.epoch.number, night.epoch.holder)
    assert server_store.server.send(reap) == [b"kept"]
    night.commit("b", success(0))
    assert server_store.server.send(reap) == [b"kept"]
    assert night.states() == "dppp"


def test_a_moved_clock_of_the_server_costs_no_lease(server_store: RedisStore) -> None:
    """P14: every lease gets one fresh term first, and runs out after that."""
    clock = Clock()
    store = RedisStore(server_store.server.client, "test", monotonic=clock)
    night = begin(store)
    assert store.reap(night.epoch) == []
    night.start("b", [0], seconds=NO_TIME)
    clock.time -= 3600
    assert store.reap(night.epoch) == []
    assert night.states() == "xppp"
    assert not store.heartbeat(worker_record(), NO_TIME, [("r1", "b")])[0].lost
    assert store.reap(night.epoch) == [Reaped("r1", "b", (0,))]


@pytest.mark.parametrize("kind", ["memory", "server"])
def test_a_lease_from_before_the_clock_was_moved_back_lasts_for_a_term(server_store: RedisStore, kind: str) -> None:
    """P14: nobody saw the clock move, as no scheduler lived; its holder is dead, or renews it long before."""
    store = on_a_clock(server_store, kind, Clock(), lease_seconds=2.0, heartbeat_seconds=0.5)
    night = begin(store)
    night.start("b", [0], seconds=24 * 3600)
    night.start("c", [1], seconds=7.5)
    assert store.reap(night.epoch) == []
    assert 1.5 < seconds_left(store, "b") <= 2.0
    assert 7.0 < seconds_left(store, "c") <= 7.5


def on_a_clock(server_store: RedisStore, kind: str, clock: Clock, **terms: float) -> Store:
    """A store whose monotonic clock is `clock`."""
    if kind == "memory":
        return MemoryStore(lambda: 1_700_000_000.0, clock, **terms)
    return RedisStore(server_store.server.client, "test", clock, **terms)


def seconds_left(store: Store, batch: str) -> float:
    """How long the lease of a batch of run r1 lasts."""
    if isinstance(store, MemoryStore):
        return store.data.leases["r1", batch] - store.now()
    deadline = store.server.client.zscore("{test}:leases", f"r1 {batch}")
    assert isinstance(deadline, float)
    return deadline - store.now()


@pytest.mark.parametrize("kind", ["memory", "server"])
@pytest.mark.parametrize(("lease", "heartbeat"), [(60.0, 20.0), (1.5, 0.5)])
def test_the_fresh_term_is_a_lease_as_it_was_set(
    server_store: RedisStore, kind: str, lease: float, heartbeat: float
) -> None:
    """P14: one of another length would run out before the next heartbeat, or not be given for a move that costs one."""
    clock = Clock()
    store = on_a_clock(server_store, kind, clock, lease_seconds=lease, heartbeat_seconds=heartbeat)
    night = begin(store)
    night.start("b", [0], seconds=NO_TIME)
    night.start("c", [1], seconds=lease)
    assert store.reap(night.epoch) == [Reaped("r1", "b", (0,))]
    night.start("b2", [0], 2, seconds=NO_TIME)
    clock.time -= 2 * heartbeat
    assert store.reap(night.epoch) == []
    assert lease - 1 < seconds_left(store, "b2") <= lease
    assert lease - 1 < seconds_left(store, "c") <= lease


@pytest.mark.parametrize("kind", ["memory", "server"])
def test_a_fresh_term_that_could_not_be_given_is_still_due(server_store: RedisStore, kind: str) -> None:
    """P14: the scheduler was fenced at that moment, and has the epoch again."""
    clock = Clock()
    store = on_a_clock(server_store, kind, clock)
    night = begin(store)
    assert store.reap(night.epoch) == []
    night.start("b", [0], seconds=NO_TIME)
    store.leave_epoch(night.epoch)
    clock.time -= 3600
    with pytest.raises(Fenced):
        store.reap(night.epoch)
    epoch = store.take_epoch("scheduler 1", "host:1", LEASE)
    assert isinstance(epoch, Epoch)
    assert store.reap(epoch) == []
    assert night.states() == "xppp"


@pytest.mark.parametrize(
    "junk",
    [
        {"number": "x", "holder": "y", "deadline": "z", "schema": "1"},
        {"number": "nan", "holder": b"\x80\xff", "deadline": "nan", "description": b"\x80", "schema": "1"},
        {"number": "7", "holder": "y", "schema": "1"},
        {"junk": "junk"},
    ],
)
def test_a_scheduler_lease_of_another_form_is_free(server_store: RedisStore, junk: dict[Any, Any]) -> None:
    """A2."""
    server_store.server.client.hset("{test}:scheduler", mapping=junk)
    assert server_store.scheduler() is None
    taken = server_store.take_epoch("one", "host:1", LEASE)
    assert isinstance(taken, Epoch)
    assert server_store.take_epoch("one", "", LEASE) == taken


def test_a_scheduler_lease_that_never_ends_ends(server_store: RedisStore) -> None:
    """A2: whoever may write to the server cannot keep all schedulers from their work with one write."""
    junk: dict[Any, Any] = {"number": "1", "holder": b"\x80\xff", "deadline": "inf", "schema": "1"}
    server_store.server.client.hset("{test}:scheduler", mapping=junk)
    held = server_store.take_epoch("one", "host:1", 0.05)
    assert isinstance(held, EpochHeld)
    assert 0 < held.seconds <= 0.21
    assert wait_until(lambda: isinstance(server_store.take_epoch("one", "host:1", 0.05), Epoch), 5)


def test_leases_that_nobody_can_take_back_hold_up_no_other(server_store: RedisStore) -> None:
    """A2: members that are no leases, and leases of runs whose batches cannot be read."""
    night, client = begin(server_store), server_store.server.client
    night.start("b", [0], seconds=NO_TIME)
    night.start("c", [1], seconds=NO_TIME)
    client.hset("{test}:run:r1:batches", "c", "junk")
    junk = (b"junk", b"", b" ", b"../x y", b"\x80 \xff", b"r1 \xff", b" b")
    client.zadd("{test}:leases", {member + b"%d" % at: 0.0 for member in junk for at in range(30)})
    client.zadd("{test}:leases", {b"nobody %d" % at: 0.0 for at in range(30)})
    reaped = [one for _ in range(4) for one in server_store.reap(night.epoch)]
    assert reaped == [Reaped("r1", "b", (0,))]
    assert client.zcount("{test}:leases", "-inf", server_store.now()) == 0
    assert client.zscore("{test}:leases", "nobody 0") is None


def test_the_longest_lists_fit_one_call(server_store: RedisStore) -> None:
    night: Night = begin(server_store, 500)
    tasks = range(500)
    assert night.dispatch(Batch("b", "q", tuple(tasks), (1,) * 500, (b"",) * 500)) == [True]
    assert len(night.claim("b").messages) == 500
    assert night.commit("b", *(success(task) for task in tasks)).acceptances == (ACCEPTED,) * 500
    assert len(server_store.invalidate("r1", tasks)) == 500


@pytest.mark.parametrize("key", SHARED_KEYS, ids=lambda key: key.name)
def test_a_shared_key_of_another_type_is_named_with_what_belongs_there(server_store: RedisStore, key: Key) -> None:
    """Whoever meets it, be it in a script, is told which key it is; when it is right again, all goes on."""
    begin(server_store, 2)
    name = server_store.server.keys.shared(key.name)
    server_store.server.client.delete(name)
    server_store.server.client.rpush(name, "rubbish")
    wanted = "sorted set" if key.type == "zset" else key.type
    said = [str(error) for error in _met(server_store)]
    assert said
    assert {f"{name} on" in text and f"must be a {wanted} and is a list" in text for text in said} == {True}
    assert not any("WRONGTYPE" in text for text in said)
    assert [str(fault) for fault in server_store.server.misused_keys()] == said[:1]
    server_store.server.client.delete(name)
    assert not _met(server_store)
    assert server_store.server.misused_keys() == []


def _met(store: RedisStore) -> list[MisusedKey]:
    """Return what those who use the shared keys are told of them."""
    met = []
    for step in (
        store.runs, store.active_runs, store.workers, store.scheduler, store.read_durations, store.quarantines,
        lambda: store.take_epoch("h", "a test", LEASE), lambda: store.read_tail("w1"),
        lambda: store.open_run(run_record("r9", key="k9", place="/p9"), b"context"),
        lambda: store.heartbeat(worker_record("w9"), LEASE, ()),
        lambda: store.wait({}, 0),
    ):  # fmt: skip
        try:
            step()
        except MisusedKey as error:
            met.append(error)
    return met


@pytest.mark.parametrize("key", RUN_KEYS, ids=lambda key: key.name)
def test_a_key_of_a_run_of_another_type_is_named_and_is_that_runs_damage(server_store: RedisStore, key: Key) -> None:
    night = begin(server_store, 4)
    night.start("b", [0, 1])
    name = server_store.server.keys.of_run("r1", key.name)
    server_store.server.client.delete(name)
    server_store.server.client.sadd(name, "rubbish")
    said = []
    for step in (
        lambda: server_store.run("r1"),
        lambda: server_store.load_run("r1"),
        lambda: server_store.context("r1"),
        lambda: server_store.tasks("r1", [0]),
        lambda: server_store.read_results("r1", [0]),
        lambda: server_store.read_certificates("r1", [0]),
        lambda: server_store.read_blobs("r1", ["a"]),
        lambda: server_store.read_digests("r1", [0]),
        lambda: server_store.specs("r1"),
        lambda: night.dispatch(batch_of("b2", [2])),
        lambda: server_store.claim("r1", "b2", "w1", 2, LEASE),
    ):
        try:
            step()
        except DamagedRun as error:
            said.append(str(error))
        except UnknownRun:
            continue
    assert said
    wanted = f"must be a {key.type} and is a set"
    assert {f"The key {name} on" in text and wanted in text for text in said} == {True}, said


@pytest.mark.parametrize("rubbish", ["", "soon", "nan", "inf", "1e400", "99999999999999999999", "-1"])
def test_rubbish_in_the_time_to_keep_a_run_keeps_it_as_its_record_says(server_store: RedisStore, rubbish: str) -> None:
    night = begin(server_store, 1, keep_seconds=500.0)
    name = server_store.server.keys.of_run("r1", "meta")
    server_store.server.client.hset(name, "keep", rubbish)
    night.start("b", [0])
    night.commit("b", success(0))
    assert server_store.finish(night.epoch, "r1", RunPhase.SUCCEEDED)
    assert 400 < server_store.server.client.ttl(name) <= 500


def test_a_record_that_is_rubbish_is_told_with_its_key(server_store: RedisStore) -> None:
    begin(server_store, 1)
    name = server_store.server.keys.of_run("r1", "meta")
    server_store.server.client.hset(name, "created_at", "yesterday")
    for look in (server_store.run, server_store.load_run):
        with pytest.raises(DamagedRun, match=f"The key {re.escape(name)} on"):
            look("r1")


def test_lost_digests_are_restored_where_a_result_stands_and_nowhere_else(server_store: RedisStore) -> None:
    night = begin(server_store, 3)
    for task in (0, 1):
        night.start(f"b{task}", [task])
        night.commit(f"b{task}", success(task))
    server_store.server.client.delete(server_store.server.keys.of_run("r1", "digests"))
    server_store.restore_digests("r1", {0: digest_of("value 0")})
    server_store.restore_digests("r1", {0: digest_of("another"), 2: digest_of("value 2")})
    none = bytes(32)
    assert server_store.read_digests("r1", [0, 1, 2]) == [digest_of("value 0"), none, none]
