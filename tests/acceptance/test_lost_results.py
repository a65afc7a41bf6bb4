"""Results that are lost or damaged while a run goes on that nobody follows (ADVERSITY P12, decision 0048)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from overnight.state_dir import wait_until
from overnight.store.redis import RedisStore
from tests.support.command import Desk
from tests.support.daemons import daemon
from tests.support.servers import connect, running_server, server_binary
from tests.support.sites import COMPRESSED

SECONDS = 60.0
#: A task damages what is recorded of the one before it as often as it may, and then lets the rest be.
STRUCK = """
import os
import time
from pathlib import Path
from overnight import TaskGraph
from overnight.naming import flag_name
from tests.support.servers import connect

def note(name):
    with open("ledger", "a") as ledger:
        ledger.write(name + "\\n")

def make(size):
    note("source")
    time.sleep(0.3)  # long ones go alone: their values are not handed on in memory
    return os.urandom(size)  # so that what was computed from it is not to be had from its flag

def aside():
    note("aside")
    return 1

def strike(kind, place, times):
    note("strike")
    time.sleep(0.3)
    if Path("ledger").read_text().count("strike") > times:
        return
    if kind == "key":
        with connect(place) as client:
            [results] = client.keys("*:results")
            client.hdel(results, 0)
        return
    flag = Path(place) / flag_name("source")
    with flag.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))

def use(number, value):
    note(f"use {number}")
    return len(value)

def build(*, kind: str, place: str, times: int, size: int) -> TaskGraph:
    graph = TaskGraph()
    source = graph.create_task("source", make, args=[size])
    graph.create_task("aside", aside, args=[])
    struck = graph.create_task("strike", strike, args=[kind, place, times], deps=[source])
    for number in range(6):
        graph.create_task(f"use {number}", use, args=[number, source], deps=[struck])
    return graph
"""


def submitted(directory: Path, url: str, kind: str, times: int) -> tuple[Any, list[Any], Counter[str]]:
    """Submit the graph, wait until nobody has followed it to its end; return the run, its tasks and what ran."""
    (directory / "struck.py").write_text(STRUCK)
    place, size = (url, 100) if kind == "key" else (str(directory / "flags"), 300_000)
    desk = Desk(directory)
    desk.environ = {**COMPRESSED, "OVERNIGHT_REDIS_URL": url}
    given = {"kind": kind, "place": place, "times": str(times), "size": str(size)}
    words = [word for name, value in given.items() for word in ("-p", f"{name}={value}")]
    store = RedisStore(connect(url), "overnight")
    with daemon(desk, "scheduler", "scheduler"), daemon(desk, "worker", "worker", "-j", "2"):
        found = desk.run("submit", "struck.py:build", *words, "-k", "-d", str(directory / "flags"))
        assert found.status == 0, found.err
        assert wait_until(lambda: store.runs()[0].phase.is_over, SECONDS)
    run = store.runs()[0]
    return run, store.tasks(run.run_id, range(9)), Counter((directory / "ledger").read_text().splitlines())


@pytest.mark.parametrize("binary", ["redis", "valkey"])
@pytest.mark.parametrize("kind", ["flag", "key"])
def test_a_run_that_nobody_follows_computes_a_lost_result_again_and_charges_nobody(
    tmp_path: Path, short_directory: Path, binary: str, kind: str
) -> None:
    """P12: a flipped bit in a flag, a key that is gone; no task has a retry."""
    with running_server(server_binary(binary), short_directory / f"lost-{binary}-{kind}") as url:
        run, tasks, ran = submitted(tmp_path, url, kind, times=1)
        assert run.phase.value == "succeeded", [task.state.name for task in tasks]
        assert {(task.charge.failures, task.charge.losses) for task in tasks} == {(0, 0)}
        uses = {name: number for name, number in ran.items() if name.startswith("use")}
        assert uses == {f"use {number}": 1 for number in range(6)}
        # Whose record went while its flag stands is found there; what does not depend on it stays as it is.
        assert (ran["source"], ran["aside"]) == (2 if kind == "flag" else 1, 1)


def test_a_result_that_is_lost_again_and_again_fails_who_needs_it_with_one_sentence(
    tmp_path: Path, short_directory: Path
) -> None:
    """P12: it is computed again three times."""
    with running_server(server_binary("redis"), short_directory / "lost-again") as url:
        run, tasks, ran = submitted(tmp_path, url, "flag", times=1000)
        assert run.phase.value == "failed"
        assert Counter(task.state.name for task in tasks) == {"DONE": 3, "FAILED": 6}
        assert (ran["source"], ran["strike"], ran["aside"]) == (4, 4, 1)
        desk = Desk(tmp_path)
        desk.environ = {"OVERNIGHT_REDIS_URL": url}
        told = desk.run("status", run.run_id, "--json").facts["failed"]
        sentence = "The result of 'source' was lost or damaged again after it had been computed again 3 times; "
        assert [failed["message"].startswith(sentence) for failed in told] == [True] * 6
