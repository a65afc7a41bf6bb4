"""The shipped access rules are enough for every part of overnight, and for nothing more (ADVERSITY 8, H5 and H10)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from overnight.client import Client
from overnight.core.states import RunPhase
from overnight.errors import Unreachable
from overnight.redis_cache import RedisTaskCache
from overnight.state_dir import wait_until
from overnight.store.redis import RedisStore
from overnight.task import Task
from tests.support import graphs
from tests.support.acl import (
    OPERATOR,
    ROLES,
    Guarded,
    command_of_the_readme,
    guarded_server,
    make_passwords,
    urls_at,
)
from tests.support.command import Desk, desk, finished
from tests.support.servers import KINDS, answers, connect, server_binary, server_process
from tests.support.stores import run_record

#: What overnight asks and does without.
DISPENSABLE = {"info", "config|get", "client|setinfo"}
P = "{overnight}:"
FORBIDDEN = (
    ["KEYS", "*"], ["SCAN", "0"], ["RANDOMKEY"], ["CONFIG", "GET", "*"], ["CONFIG", "SET", "dir", "/"], ["FLUSHALL"],
    ["FLUSHDB"], ["MODULE", "LIST"], ["MODULE", "LOAD", "/x"], ["DEBUG", "SLEEP", "0"], ["REPLICAOF", "NO", "ONE"],
    ["SLAVEOF", "NO", "ONE"], ["SHUTDOWN"], ["SAVE"], ["BGSAVE"], ["BGREWRITEAOF"], ["MONITOR"], ["ACL", "LIST"],
    ["ACL", "SETUSER", "x"], ["CLIENT", "LIST"], ["CLIENT", "KILL", "x"], ["CLIENT", "PAUSE", "1"], ["INFO"],
    ["PUBLISH", "x", "y"], ["SUBSCRIBE", "x"], ["PSUBSCRIBE", "*"], ["SCRIPT", "FLUSH"], ["SCRIPT", "KILL"],
    ["FUNCTION", "LOAD", "x"], ["EVAL", "return 1", "0"], ["MIGRATE", "h", "1", f"{P}runs", "0", "1"],
    ["RESTORE", f"{P}runs", "0", "x"], ["DUMP", f"{P}runs"], ["RENAME", f"{P}runs", f"{P}control"],
    ["SWAPDB", "0", "1"], ["SORT", f"{P}runs"], ["LATENCY", "RESET"], ["SLOWLOG", "GET"], ["CLUSTER", "NODES"],
    ["SYNC"], ["FAILOVER"],
)  # fmt: skip
#: Keys of somebody else on the same server.
FOREIGN = ("other", "overnight:runs", "{overnight2}:runs", "{overnight}", "{Overnight}:runs", "x{overnight}:runs", "*")
SHARED = ("runs", "runs:active", "control", "leases", "scheduler", "workers", "workers:tails", "durations")
#: For each role, commands on the deployment's own keys that its part never sends.
NOT_ITS_OWN = {
    "client": (
        ["RPUSH", f"{P}rq:queue:default", "x"], ["HSET", f"{P}rq:job:x", "f", "v"], ["SADD", f"{P}rq:workers", "x"],
        ["HGETALL", f"{P}rq:job:x"], ["BLPOP", f"{P}rq:queue:default", "1"], ["DEL", f"{P}runs"],
        ["EXPIRE", f"{P}rq:queue:default", "1"],
    ),
    "scheduler": (
        ["BLPOP", f"{P}rq:queue:default", "1"], ["HSET", f"{P}rq:worker:x", "f", "v"], ["SADD", f"{P}rq:workers", "x"],
        ["HSET", f"{P}flags:x", "f", "v"], ["HGETALL", f"{P}flags:x"], ["SET", f"{P}run:r:context", "x"],
        ["HSETNX", f"{P}run:r:blobs", "f", "v"],
    ),
    "worker": (
        ["HSET", f"{P}flags:x", "f", "v"], ["SET", f"{P}run:r:context", "x"], ["ZRANGE", f"{P}runs", "0", "-1"],
        ["XREAD", "STREAMS", f"{P}run:r:events", "0"],
    ),
    "reader": (
        *(
            [*command[:1], f"{P}{key}", *command[1:]]
            for key in (*SHARED, "run:r:meta", "run:r:states", "run:r:results", "rq:queue:default")
            for command in (["SET", "x"], ["HSET", "f", "v"], ["DEL"], ["EXPIRE", "1"], ["ZADD", "1", "x"], ["UNLINK"])
        ),
        ["EVALSHA", "0" * 40, "1", f"{P}runs"], ["SCRIPT", "LOAD", "return 1"], ["MULTI"],
        *(["GET", f"{P}run:r:{name}"] for name in ("context", "messages", "blobs", "inflight")),
        *(["HGETALL", f"{P}{name}"] for name in ("rq:job:x", "flags:x", "runs:graphs", "runs:places")),
    ),
    "scaler": (
        ["LRANGE", f"{P}rq:queue:default", "0", "1"], ["RPUSH", f"{P}rq:queue:default", "x"],
        ["ZADD", f"{P}leases", "1", "x"], ["ZRANGE", f"{P}leases", "0", "-1"], ["HGETALL", f"{P}rq:job:x"],
        ["GET", f"{P}run:r:states"], ["DEL", f"{P}leases"],
    ),
}  # fmt: skip


#: What nobody's script can do.
PLANTED = ("redis.call('KEYS', '*')", "redis.call('SET', 'other', 'x')", "redis.call('FLUSHALL')")
#: What people look with, at a run that has failed.
READING = (
    ["workers", "--json"],
    ["logs", "last", "culprit"],
    ["status", "last", "culprit"],
    ["status", "--json"],
    ["report", "last"],
    ["why", "dependant"],
    ["workers", "--wanted", "--json"],
    ["follow"],
)


@pytest.fixture(scope="module", params=KINDS)
def guarded(request: pytest.FixtureRequest) -> Iterator[Guarded]:
    with (
        tempfile.TemporaryDirectory(prefix="ov-", ignore_cleanup_errors=True) as directory,
        guarded_server(request.param, Path(directory) / "g") as server,
    ):
        yield server


@pytest.fixture
def site(guarded: Guarded, tmp_path: Path) -> Iterator[Desk]:
    """A desk with a scheduler and workers, each under its own user; what is typed there is the client's."""
    guarded.admin.acl_log_reset()
    with desk(tmp_path / "desk") as given, ExitStack() as stack:
        for role, words in (("scheduler", ()), ("worker", ()), ("worker", ("-q", "big", "-q", "default"))):
            given.environ["OVERNIGHT_REDIS_URL"] = guarded.urls[role]
            process = given.start(role, *words)
            stack.callback(finished, process)
            stack.callback(process.terminate)
        given.environ["OVERNIGHT_REDIS_URL"] = guarded.urls["client"]
        yield given


def steer(client: Client, directory: Path) -> None:
    """Submit, pause, resume, follow, cancel and retry."""
    fifo = directory / "fifo"
    os.mkfifo(fifo)
    run = client.submit(graphs.gated(fifo=str(fifo), ledger=str(directory / "ledger")))
    client.pause(run)
    assert client.status(run).run.paused
    client.resume(run)
    gate = os.open(fifo, os.O_WRONLY)
    client.cancel(run)
    assert client.wait(run) is RunPhase.CANCELLED
    os.close(gate)
    failed = client.submit(graphs.raises(), log_dir=str(directory))
    assert client.wait(failed) is RunPhase.FAILED
    client.retry(failed)
    assert client.wait(failed) is RunPhase.FAILED


def test_every_part_works_under_the_shipped_rules(guarded: Guarded, site: Desk, tmp_path: Path) -> None:
    """H5, the first half: nothing that overnight needs is refused."""
    ran = site.run("run", "tests.support.graphs:layers", "-p", "n=20")
    assert (ran.status, ran.err) == (0, ""), ran
    with Client(guarded.urls["client"], state_dir=tmp_path / "state") as client:
        steer(client, tmp_path)
    cache = RedisTaskCache(guarded.urls["client"], str(tmp_path / "cache"))
    cache.cache(Task("a"), is_error=False, result=1)
    (tmp_path / "cache" / "a.flag").unlink()
    assert list(RedisTaskCache(guarded.urls["client"], str(tmp_path / "cache")).read_headers([Task("a")])) == [
        Task("a")
    ]
    site.environ["OVERNIGHT_REDIS_URL"] = guarded.urls["reader"]
    commands = [site.start(*words) for words in READING]
    read = [finished(command) for command in commands]
    # Only `follow` ends with what the run ended with.
    assert [(command.status, command.err) for command in read] == [(0, "")] * 7 + [(1, "")], read
    assert len(read[0].facts) == 2
    refused = {(entry["username"], entry["object"]) for entry in guarded.admin.acl_log(100)}
    assert {(user, what) for user, what in refused if what not in DISPENSABLE} == set()


def test_a_reader_steers_nothing(guarded: Guarded, tmp_path: Path) -> None:
    """H10: cancel, pause, resume, retry and submit need a role that may write."""
    with Client(guarded.urls["client"], state_dir=tmp_path / "state") as client:
        run = client.submit(graphs.noops(n=1))
        with Client(guarded.urls["reader"], state_dir=tmp_path / "state") as reader:
            assert reader.resolve(run[:-1]) == run
            for steer_it in (reader.cancel, reader.pause, reader.resume, reader.retry):
                with pytest.raises(Unreachable, match="its access rules forbid"):
                    steer_it(run)
            with pytest.raises(Unreachable, match="its access rules forbid"):
                reader.submit(graphs.noops(n=1))
        found = client.status(run)
        assert (found.run.phase, found.run.paused) == (RunPhase.ACTIVE, False)
        client.cancel(run)


@pytest.mark.parametrize("role", ROLES)
def test_what_a_role_does_not_need_is_refused(guarded: Guarded, role: str) -> None:
    """H5, the second half: commands, keys and channels."""
    dangerous = {str(name) for name in guarded.admin.acl_cat("dangerous")}
    assert len(dangerous) > 30
    [rules] = [line for line in map(str, guarded.admin.acl_list()) if line.startswith(f"user {role} ")]
    assert {word[1:] for word in rules.split() if word[0] == "+"}.isdisjoint(dangerous)
    assert "resetchannels" in rules
    assert "&" not in rules
    for command in (*FORBIDDEN, *NOT_ITS_OWN[role]):
        if role == "scaler" and command[0] == "EVAL":  # it may, and can do nothing by it
            continue
        assert guarded.answer(role, *command) != "OK", command
    for key in FOREIGN:
        for command in (["GET", key], ["HGETALL", key], ["SET", key, "x"], ["EVALSHA", "0" * 40, "1", key]):
            assert guarded.answer(role, *command) != "OK", command


@pytest.mark.parametrize("role", ROLES)
def test_a_refusal_is_real_and_without_a_user_nothing_is_answered(guarded: Guarded, role: str) -> None:
    """H5: what ACL DRYRUN says is what a connection meets."""
    with connect(guarded.urls[role]) as client:
        assert client.ping()
        for command in (["KEYS", "*"], ["FLUSHALL"], ["CONFIG", "GET", "dir"], ["GET", "other"], ["PUBLISH", "x", "y"]):
            with pytest.raises(RedisError, match="permission"):
                client.execute_command(*command)


def test_a_script_cannot_do_what_its_user_may_not(guarded: Guarded) -> None:
    """H5: whoever may load scripts gains nothing by it."""
    with connect(guarded.urls["worker"]) as client:
        for line in PLANTED:
            sha = client.script_load(f"return {line}")
            with pytest.raises(RedisError, match=r"ermission|ACL failure|can.t run this command"):
                client.evalsha(sha, 0)
    with connect(guarded.urls["scaler"]) as client:
        for line in (*PLANTED, f"redis.call('RPUSH', '{P}rq:queue:default', 'x')", f"redis.call('DEL', '{P}leases')"):
            with pytest.raises(RedisError, match=r"ermission|ACL failure|can.t run this command"):
                client.eval(f"return {line}", 0)


def test_an_operator_sees_whether_the_server_is_fit_and_changes_nothing(guarded: Guarded, tmp_path: Path) -> None:
    given = Desk(tmp_path)
    given.environ["OVERNIGHT_REDIS_URL"] = guarded.urls[OPERATOR]
    told = given.run("doctor", "--json")
    assert {"persistence, eviction, memory"}.isdisjoint(found["what"] for found in told.facts)
    assert "eviction" in {found["what"] for found in told.facts}
    for command in (["CONFIG", "SET", "dir", "/"], ["FLUSHALL"], ["SET", f"{P}runs", "x"], ["ACL", "SETUSER", "x"]):
        assert guarded.answer(OPERATOR, *command) != "OK"


@pytest.mark.parametrize("role", ["reader", OPERATOR])
def test_who_reads_logs_may_read_the_last_lines_of_running_tasks(guarded: Guarded, role: str) -> None:
    assert guarded.answer(role, "HGET", f"{P}workers:tails", "instance") == "OK"
    assert guarded.answer(role, "HSET", f"{P}workers:tails", "instance", "x") != "OK"


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_under_the_shipped_rules_has_all_when_it_is_started_again(
    kind: str, tmp_path: Path, short_directory: Path
) -> None:
    """P9: Redis 7.0 carries out its own append-only file as `default`, as whom nobody may come in."""
    given = make_passwords(tmp_path)
    rules = str(tmp_path / "users.acl")
    directory = short_directory / f"again-{kind}"
    with server_process(server_binary(kind), directory, aclfile=rules, appendonly="yes") as server:
        with connect(urls_at(server.url, given)["client"]) as client:
            RedisStore(client, "overnight").open_run(run_record("r1", total=1), b"context")
        server.process.terminate()
        server.process.wait(30)
    with server_process(server_binary(kind), directory, aclfile=rules, appendonly="yes") as server:
        url = urls_at(server.url, given)["client"]
        assert wait_until(lambda: answers(url), 30)
        with connect(url) as client:
            assert RedisStore(client, "overnight").run("r1").run_id == "r1"
        for command in (["PING"], ["GET", f"{P}runs"], ["AUTH", "default", ""], ["AUTH", "default", "x"]):
            with connect(server.url) as nobody, pytest.raises(RedisError):
                nobody.execute_command(*command)


def test_the_shipped_file_starts_no_server_before_passwords_are_made(tmp_path: Path, short_directory: Path) -> None:
    """H5: there is no password that everybody knows, and no user without one."""
    given = make_passwords(tmp_path)
    everybody = (*ROLES, OPERATOR)
    assert len({address.split(":")[2] for address in given.values()}) == len(everybody)
    assert {(tmp_path / f"{role}.env").stat().st_mode & 0o777 for role in everybody} == {0o600}
    rules = (tmp_path / "users.acl").read_text()
    assert [line.split()[1] for line in rules.splitlines()] == ["default", *everybody]
    assert "nopass" not in rules
    assert "-password" in command_of_the_readme()
    shipped = Path(__file__).parents[2] / "deploy" / "users.acl"
    for kind in KINDS:
        with (
            pytest.raises(RuntimeError, match="ended with status 1"),
            server_process(server_binary(kind), short_directory / f"unmade-{kind}", aclfile=str(shipped)),
        ):
            pass
