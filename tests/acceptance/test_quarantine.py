"""A host that kills what runs on it takes no more work (ADVERSITY P10): two hosts' workers, one server."""

from __future__ import annotations

import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from overnight.core.suspicion import DEATHS_TO_QUARANTINE
from overnight.state_dir import wait_until
from tests.support.command import Desk, desk
from tests.support.ledgers import read_ledger
from tests.support.servers import running_server, server_binary
from tests.support.sites import SECONDS, finish
from tests.support.small_scheduler import WorkerProcess, worker

TASKS = 12


class Hosts:
    """A server, a scheduler, a worker on each of some hosts, and a desk to look at them from."""

    def __init__(self, place: Desk, url: str, stack: ExitStack) -> None:
        self.place = place
        self.url = url
        self._stack = stack
        place.environ = {"OVERNIGHT_REDIS_URL": url, "OVERNIGHT_LEASE_SECONDS": "1.5"}
        place.environ |= {"OVERNIGHT_HEARTBEAT_SECONDS": "0.5"}

    def start_scheduler(self, quarantine_seconds: float) -> None:
        self.place.environ["OVERNIGHT_QUARANTINE_SECONDS"] = str(quarantine_seconds)
        process = self.place.start("scheduler")
        self._stack.callback(process.communicate, timeout=SECONDS)
        self._stack.callback(process.terminate)

    def start_worker(self, host: str) -> WorkerProcess:
        names = {"OVERNIGHT_HOST_NAME": host, "HOSTNAME": host}
        started = self._stack.enter_context(worker(self.url, self.place.directory, **names))
        self.await_that(lambda: host in {fact["host"] for fact in self.facts()})
        return started

    def facts(self) -> list[dict[str, Any]]:
        """What `workers --json` says of each worker."""
        facts: list[dict[str, Any]] = self.place.run("workers", "--json").facts
        return facts

    def kept_apart(self) -> dict[str, Any]:
        """What is said of each host in quarantine."""
        return {fact["host"]: fact["quarantine"] for fact in self.facts() if fact["quarantine"] is not None}

    def start(self, name: str, *words: str) -> subprocess.Popen[str]:
        """Start a run of visits."""
        parameters = ["-p", f"ledger={self.ledger(name)}", "-p", f"n={TASKS}", "-d", f"flags-{name}"]
        return self.place.start("run", "tests.support.sick_hosts:visits", *parameters, *words)

    def run(self, name: str) -> Counter[str]:
        """Run visits that harm nobody; return how many began on each host."""
        finish(self.start(name))
        return Counter(host for host, _ in read_ledger(self.ledger(name)))

    def ledger(self, name: str) -> Path:
        return self.place.directory / f"ledger-{name}"

    def make_sick(self) -> tuple[WorkerProcess, WorkerProcess]:
        """Have tasks die on host ``sick`` and then succeed on ``well``; return the two workers."""
        sick = self.start_worker("sick")
        run = self.start("sick", "-p", "sick=sick")
        self.await_that(lambda: len(set(read_ledger(self.ledger("sick")))) >= DEATHS_TO_QUARANTINE)
        assert self.kept_apart() == {}, "no other host has shown yet that the tasks can be done"
        well = self.start_worker("well")
        finish(run)
        return sick, well

    def await_that(self, condition: Any) -> None:
        assert wait_until(condition, SECONDS), "it never came to be"


@pytest.fixture
def hosts(tmp_path: Path, short_directory: Path) -> Iterator[Hosts]:
    with ExitStack() as stack:
        url = stack.enter_context(running_server(server_binary("valkey"), short_directory / f"hosts-{tmp_path.name}"))
        place = stack.enter_context(desk(tmp_path / "desk"))
        yield Hosts(place, url, stack)


def test_a_host_on_which_tasks_died_takes_no_more_work_until_a_person_says_so(hosts: Hosts) -> None:
    """P10, QX12."""
    hosts.start_scheduler(600)
    sick, _ = hosts.make_sick()
    (fact,) = hosts.kept_apart().values()
    assert 0 < fact["seconds"] <= 600
    assert len(fact["tasks"]) >= DEATHS_TO_QUARANTINE
    assert all(task["task"].startswith("visit ") for task in fact["tasks"])

    assert hosts.run("healed") == {"well": TASKS}
    why = "host sick is in quarantine, as tasks died on it that then succeeded elsewhere"
    assert sick.log.read_text().count(why) == 1
    told = hosts.place.run("workers").out
    assert "Host sick is in quarantine for" in told
    assert "takes no work, its host is in quarantine" in told
    found = hosts.place.run("doctor", "--json").facts
    (warned,) = [finding for finding in found if finding["what"] == "host in quarantine"]
    assert warned["verdict"] == "warning"
    assert "sick takes no work" in warned["text"]

    misspelt = hosts.place.run("workers", "--release", "silk")
    assert misspelt.status == 2
    assert "Nothing is held against host silk; did you mean 'sick'?" in misspelt.err
    released = hosts.place.run("workers", "--release", "sick")
    assert (released.status, released.out) == (0, "Host sick takes work again.\n")
    assert hosts.kept_apart() == {}
    hosts.await_that(lambda: sick.said("host sick is no longer in quarantine"))
    assert hosts.run("released")["sick"] > 0


def test_it_ends_by_itself(hosts: Hosts) -> None:
    hosts.start_scheduler(3)
    sick, _ = hosts.make_sick()
    hosts.await_that(lambda: sick.said("is in quarantine"))
    hosts.await_that(lambda: sick.said("is no longer in quarantine"))
    assert hosts.kept_apart() == {}
    assert hosts.run("after")["sick"] > 0


def test_the_last_host_of_a_queue_takes_work_whatever_is_held_against_it(hosts: Hosts) -> None:
    """P11: a run ends. Before there is another host, what dies on the only one speaks against it as little."""
    hosts.start_scheduler(600)
    sick, well = hosts.make_sick()
    hosts.await_that(lambda: sick.said("is in quarantine"))
    assert well.stop(signal.SIGKILL) == -signal.SIGKILL
    assert hosts.run("alone") == {"sick": TASKS}
    assert list(hosts.kept_apart()) == ["sick"]
