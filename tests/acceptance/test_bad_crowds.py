"""More processes than the server takes, than the machine has processors for, or than anybody counts (row 54)."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
import redis

from overnight.state_dir import wait_until
from overnight.store.records import WorkerRecord
from overnight.store.redis import RedisStore
from tests.support.command import Desk, finished
from tests.support.daemons import daemon
from tests.support.ledgers import read_ledger
from tests.support.servers import running_server, server_binary
from tests.support.sites import COMPRESSED, SCHEDULER, WORKER, Entries, Site, finish

SECONDS = 60.0
REFUSED = "max number of clients reached"
CROWD = 10_000


@pytest.fixture
def admin(short_directory: Path) -> Iterator[redis.Redis]:
    """A connection to a server of its own that is there before anybody is refused."""
    with (
        running_server(server_binary("valkey"), short_directory / "crowded") as url,
        redis.Redis.from_url(url) as connection,
    ):
        connection.ping()
        connection.config_set("maxclients", 1000)
        yield connection
        connection.config_set("maxclients", 1000)


@pytest.fixture
def desk(tmp_path: Path, admin: redis.Redis) -> Desk:
    given = Desk(tmp_path)
    url = f"unix://{admin.connection_pool.connection_kwargs['path']}?db=0"
    given.environ = {**COMPRESSED, "OVERNIGHT_REDIS_URL": url, "OVERNIGHT_CONNECT_SECONDS": "2"}
    return given


def started(desk: Desk, words: list[str]) -> subprocess.Popen[str]:
    return desk.start("run", "tests.support.graphs:ledger_graph", *words, "-j", "0")


def test_whoever_is_refused_by_a_full_server_names_its_limit_waits_and_goes_on(desk: Desk, admin: redis.Redis) -> None:
    """Daemons and the client of a run outlast it; who comes meanwhile ends with 4."""
    ledger = desk.directory / "ledger"
    words = ["-p", f"ledger={ledger}", "-p", "n=40", "-p", "seconds=0.2"]

    def ended() -> int:
        return sum(event == "end" for event, _ in read_ledger(ledger)) if ledger.exists() else 0

    with ExitStack() as stack:
        said = [stack.enter_context(daemon(desk, "scheduler", "scheduler"))]
        said += [stack.enter_context(daemon(desk, name, "worker", "--name", name)) for name in ("w1", "w2", "w3")]
        client = started(desk, words)
        assert wait_until(lambda: ended() >= 5, SECONDS)
        admin.config_set("maxclients", 1)
        admin.client_kill_filter(_type="normal", skipme=True)
        assert wait_until(lambda: all(one(REFUSED) for one in said), SECONDS), [one(REFUSED) for one in said]
        late = finished(started(desk, ["-p", f"ledger={desk.directory / 'other'}"]))
        assert (late.status, REFUSED in late.sentence, "raise its maxclients" in late.sentence) == (4, True, True)
        assert client.poll() is None
        admin.config_set("maxclients", 1000)
        found = finished(client)
    assert found.status == 0, found.err
    assert {task_id for event, task_id in read_ledger(ledger) if event == "end"} == {f"entry {n}" for n in range(40)}


def test_daemons_that_find_no_room_at_their_start_come_when_there_is_some(desk: Desk, admin: redis.Redis) -> None:
    """Each of them is refused, says so once, and waits."""
    store = RedisStore(admin, "overnight")
    admin.config_set("maxclients", 1)
    with daemon(desk, "crew", "worker", "-j", "3") as crew, daemon(desk, "scheduler", "scheduler") as scheduler:
        assert wait_until(lambda: crew(REFUSED) == 3 and scheduler(REFUSED) == 1, SECONDS)
        assert (store.workers(), store.scheduler()) == ([], None)
        admin.config_set("maxclients", 1000)
        assert wait_until(lambda: len(store.workers()) == 3 and store.scheduler() is not None, SECONDS)


def test_starved_workers_hold_the_scheduler_back_and_nobody_is_taken_for_lost(site: Site) -> None:
    """They run for a third of the time only; no more is on their queue than they will soon take."""
    entries = Entries(site, "starved", seconds=0.05)
    log = site.files.log(SCHEDULER)
    client = entries.start()
    entries.wait_for(ended=2)
    lost_before = log.read_text("utf-8").count("vanished")
    queued = 0
    supervisors = [site.slot(WORKER), site.slot("worker-default-2")]
    with site.client() as connection:
        while client.poll() is None:
            family = [one for supervisor in supervisors for one in (supervisor, *supervisor.children())]
            _signal(family, signal.SIGSTOP)
            queued = max(queued, connection.llen("{overnight}:rq:queue:default"))
            _is_over_within(client, 0.2)
            _signal(family, signal.SIGCONT)
            _is_over_within(client, 0.1)
    finish(client)
    assert set(entries.starts().values()) == {1}
    assert log.read_text("utf-8").count("vanished") == lost_before
    assert 1 <= queued <= 2 * len(supervisors)
    entries.check_complete(entries.total)


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def _is_over_within(command: subprocess.Popen[str], seconds: float) -> bool:
    try:
        command.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def test_ten_thousand_workers_are_counted_and_cost_nobody_else_anything(desk: Desk, admin: redis.Redis) -> None:
    """Most are only announced; the run of the one that works ends, and people see all of them."""
    store = RedisStore(admin, "overnight")
    for number in range(CROWD):
        host = f"host-{number % 500}"
        store.register(WorkerRecord(f"{number:032x}", host, number, ("elsewhere",), "3.11.9", 1, 5.0), 3600)
    assert len(store.workers()) == CROWD
    ledger = desk.directory / "ledger"
    with daemon(desk, "scheduler", "scheduler"), daemon(desk, "w1", "worker", "--name", "w1"):
        found = finished(started(desk, ["-p", f"ledger={ledger}", "-p", "n=40", "-p", "seconds=0.01"]))
        assert found.status == 0, found.err
        seen = desk.run("workers", "--json")
        assert seen.status == 0, seen.err
        assert len(seen.facts) == CROWD + 1
        looked = desk.run("doctor")
        assert looked.status == 0, looked.out + looked.err
    assert {task_id for event, task_id in read_ledger(ledger) if event == "end"} == {f"entry {n}" for n in range(40)}


def test_whether_a_host_in_quarantine_is_barred_is_decided_without_reading_all_workers(admin: redis.Redis) -> None:
    """It is asked with each heartbeat and each claim there, and the server serves nobody else meanwhile."""
    store = RedisStore(admin, "overnight")
    for number in range(1000):
        store.register(WorkerRecord(f"{number:032x}", f"host{number}", 1, ("default",), "3.11.9", 1, 5.0), 3600)
    for task in range(3):
        store.accuse("host500", "r1", task, 3600)

    def reads() -> int:
        return int(admin.info("commandstats")["cmdstat_hget"]["calls"])

    before = reads()
    assert store.barred(f"{500:032x}") == ["default"]
    assert reads() - before <= 10
