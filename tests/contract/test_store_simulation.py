"""Differential mode (ADVERSITY 4): a server and the memory store come to the same with every step of the simulation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

import pytest
import redis

from overnight.store.scripts import SCRIPTS
from tests.support.differential.clocked import other_script
from tests.support.differential.play import SEEDS, compared, seeds, server_of
from tests.support.differential.server import Difference
from tests.support.servers import KINDS
from tests.support.simulation.hunt import promising
from tests.support.simulation.planted import planted
from tests.support.simulation.play import played

#: One part of a script, and what it would be if it were wrong.
OTHER_SCRIPTS = {
    "claim of what another holds": (
        "claim", "if holder and (holder ~= instance or held_sequence ~= sequence)", "if holder",
    ),
    "failure of any batch": ("commit", "      is_new = is_mine and ", "      is_new = true or "),
    "failure taken for a success of the member before": (
        "commit", "= (is_new and is_success) and '+' or '-'", "= '+'",
    ),
    "epoch that is another at each renewal": (
        "epoch", "if lease[2] ~= ARGV[1] then number = number + 1 end", "number = number + 1",
    ),
    "lease of another": ("heartbeat", "if holder ~= ARGV[3]", "if false"),
    "batch taken back from its holder": ("withdraw", "redis.call('HEXISTS', HOLDS, batch) == 0", "true"),
    "entry in flight of a task that has ended": ("settle", "redis.call('HDEL', INFLIGHT, task)", ""),
}  # fmt: skip
#: What the memory store would do if it were wrong.
OTHER_MEMORY = ("claim-not-repeatable", "reap-of-a-snapshot")
#: The planted bug of the simulation that is the like of one of these: it shows where the same faults strike often.
LIKE = {"failure of any batch": "any-failure"}
#: Within so many seeds each of these shows.
MOST_SEEDS = 100


@pytest.fixture(scope="module")
def client() -> Iterator[redis.Redis]:
    """A server that knows the clocked scripts."""
    with server_of("valkey") as client:
        yield client


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_a_server_does_as_the_memory_store_whatever_strikes(kind: str) -> None:
    struck = 0
    for one in seeds(kind, 1, SEEDS, jobs=os.cpu_count() or 1):
        assert one.error is None, f"python -m tests.support.simulation --differential {kind} --seed {one.seed}"
        struck += sum(one.struck.values())
    assert struck > SEEDS


def test_a_seed_plays_beside_a_server_as_it_plays_without(client: redis.Redis) -> None:
    assert compared(46, client).digest == played(46).digest


def test_runs_without_faults_are_the_same_too(client: redis.Redis) -> None:
    for seed in range(1, 11):
        calm = compared(seed, client, faults=False)
        assert calm.error is None
        assert calm.executions > 1


def first_difference(client: redis.Redis, like: str = "") -> Difference:
    """The first difference that seeds show in which faults strike often that show a planted bug."""
    for seed in islice(promising(like), MOST_SEEDS):
        found = compared(seed, client).error
        if isinstance(found, Difference):
            assert str(found).startswith(f"seed {seed}, step ")
            return found
    pytest.fail(f"{MOST_SEEDS} seeds show no difference")


@pytest.mark.parametrize("name", OTHER_SCRIPTS)
def test_a_script_that_does_something_else_is_found(client: redis.Redis, name: str) -> None:
    script, right, wrong = OTHER_SCRIPTS[name]
    with other_script(client, script, right, wrong):
        found = str(first_difference(client, LIKE.get(name, "")))
    assert "\n  memory: " in found
    assert "\n  server: " in found


@pytest.mark.parametrize("name", OTHER_MEMORY)
def test_a_memory_store_that_does_something_else_is_found(client: redis.Redis, name: str) -> None:
    with planted(name):
        assert first_difference(client)


def test_scripts_read_the_clock_in_one_place() -> None:
    """Whatever stands in for TIME there stands in for it everywhere."""
    for script in SCRIPTS:
        assert script.text.count("TIME") == 1
        assert script.text.count("redis.call('TIME')") == 1
