"""The contract of the transport, over the memory transport and over RQ on Redis and Valkey."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis

from overnight.errors import Unreachable
from overnight.transport.memory import MemoryTransport
from overnight.transport.port import Entry, Transport
from overnight.transport.rq import RqTransport, load_rq, queue_key_name, queue_name_of, rq_prefix
from tests.support.servers import KINDS, connect, free_port, running_server, server_binary

PREFIX = "overnight"
Pop = Callable[[str], str | None]


def entry(number: int, queue: str = "default") -> Entry:
    return Entry(queue, "run-1", f"{number:032x}")


@pytest.fixture
def memory_transport() -> tuple[Transport, Pop]:
    memory = MemoryTransport()
    return memory, lambda queue: getattr(memory.pop(queue), "batch", None)


@pytest.fixture(scope="module", params=["memory", *KINDS])
def server(request: pytest.FixtureRequest, short_directory: Path) -> Iterator[str | None]:
    """The URL of a server of each kind, or None for the memory transport."""
    if request.param == "memory":
        yield None
        return
    with running_server(server_binary(request.param), short_directory / f"transport-{request.param}") as url:
        yield url


@pytest.fixture
def transport(server: str | None, memory_transport: tuple[Transport, Pop]) -> Iterator[tuple[Transport, Pop]]:
    """A transport, and what takes the next batch off a queue as a worker does."""
    if server is None:
        yield memory_transport
        return
    with connect(server) as client:
        client.flushall()
        yield RqTransport(client, PREFIX), lambda queue: rq_pop(client, queue)


def rq_pop(client: Redis, queue: str) -> str | None:
    load_rq(PREFIX)
    from rq import Queue
    from rq.serializers import JSONSerializer

    found = Queue.dequeue_any(
        [Queue(queue_key_name(queue), connection=client)], None, client, serializer=JSONSerializer
    )
    return found[0].id if found else None


def test_urgent_entries_leave_a_queue_first(transport: tuple[Transport, Pop]) -> None:
    port, pop = transport
    port.push([entry(1), entry(2)])
    port.push([replace(entry(3), urgent=True)])
    assert [pop("default") for _ in range(3)] == [entry(3).batch, entry(1).batch, entry(2).batch]


def test_entries_leave_a_queue_in_the_order_in_which_they_were_pushed(transport: tuple[Transport, Pop]) -> None:
    port, pop = transport
    port.push([entry(1), entry(2), entry(3)])
    assert [pop("default") for _ in range(4)] == [entry(1).batch, entry(2).batch, entry(3).batch, None]


def test_queues_are_apart_whatever_their_names(transport: tuple[Transport, Pop]) -> None:
    """H6."""
    port, pop = transport
    names = ["a", "A", "a,b", "x}:queue", "*", "zwei\nZeilen", "ä"]
    port.push([entry(number, name) for number, name in enumerate(names)])
    assert [port.depth(name) for name in names] == [1] * len(names)
    assert [pop(name) for name in names] == [entry(number).batch for number in range(len(names))]


def test_depth_counts_what_waits(transport: tuple[Transport, Pop]) -> None:
    port, pop = transport
    assert port.depth("default") == 0
    port.push([entry(1), entry(2)])
    assert port.depth("default") == 2
    pop("default")
    assert port.depth("default") == 1


def test_missing_names_what_waits_nowhere(transport: tuple[Transport, Pop]) -> None:
    port, pop = transport
    port.push([entry(1), entry(2)])
    pop("default")
    assert port.missing([entry(1), entry(2), entry(3)]) == [entry(1), entry(3)]
    assert port.missing([]) == []


def test_an_entry_on_another_queue_is_missing_on_this_one(transport: tuple[Transport, Pop]) -> None:
    port, _ = transport
    port.push([entry(1, "a")])
    assert port.missing([entry(1, "b")]) == [entry(1, "b")]


def test_removed_entries_are_gone_doubled_ones_too(transport: tuple[Transport, Pop]) -> None:
    port, pop = transport
    port.push([entry(1), entry(2)])
    port.push([entry(1)])
    port.remove([entry(1), entry(9)])
    assert pop("default") == entry(2).batch
    assert pop("default") is None


def test_a_doubled_entry_is_delivered_and_stays_harmless(transport: tuple[Transport, Pop]) -> None:
    """QX3: a push may be repeated after a lost reply."""
    port, pop = transport
    port.push([entry(1)])
    port.push([entry(1)])
    assert pop("default") == entry(1).batch
    assert pop("default") in (entry(1).batch, None)
    assert pop("default") is None


def test_nothing_to_do_is_nothing_done(transport: tuple[Transport, Pop]) -> None:
    port, _ = transport
    port.push([])
    port.remove([])
    assert port.depth("default") == 0


def test_an_expired_job_counts_as_missing(redis_url: str) -> None:
    with connect(redis_url) as client:
        port = RqTransport(client, PREFIX)
        port.push([entry(1)])
        client.delete(f"{rq_prefix(PREFIX)}:job:{entry(1).batch}")
        assert port.missing([entry(1)]) == [entry(1)]


def test_an_rq_job_holds_json_and_none_of_rqs_dangerous_defaults(redis_url: str) -> None:
    """QX5, I6: no 180 s limit, no result kept, no year of failures, no pickle, nothing of a user's."""
    with connect(redis_url) as client:
        RqTransport(client, PREFIX).push([entry(1)])
        from rq.job import Job
        from rq.serializers import JSONSerializer

        job = Job.fetch(entry(1).batch, client, JSONSerializer)
        assert (job.timeout, job.result_ttl, job.description) == (-1, 0, entry(1).batch)
        assert job.failure_ttl is not None
        assert job.failure_ttl <= 3600
        assert (job.func_name, job.args) == ("overnight_worker.job.run_batch", ["run-1", entry(1).batch])
        assert client.ttl(f"{rq_prefix(PREFIX)}:job:{entry(1).batch}") > 0


def test_all_of_rqs_keys_lie_in_the_deployments_slot(redis_url: str) -> None:
    """DESIGN 3: one slot with overnight's own keys."""
    with connect(redis_url) as client:
        RqTransport(client, PREFIX).push([entry(1)])
        keys = [key.decode() for key in client.scan_iter()]
    assert keys
    assert all(key.startswith("{overnight}:rq:") for key in keys)


def test_rq_info_shows_the_queue(redis_url: str) -> None:
    with connect(redis_url) as client:
        RqTransport(client, PREFIX).push([entry(1, "genomes"), entry(2, "genomes")])
    environment = os.environ | {"RQ_KEY_PREFIX": rq_prefix(PREFIX)}
    command = [sys.executable, "-m", "rq.cli", "info", "--url", redis_url]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert "genomes" in shown.stdout
    assert "2 jobs total" in shown.stdout


def test_tasks_do_not_inherit_rqs_prefix() -> None:
    load_rq(PREFIX)
    assert "RQ_KEY_PREFIX" not in os.environ


def test_rq_imported_under_another_prefix_is_refused_in_one_sentence() -> None:
    script = "import rq\nfrom overnight.transport.rq import load_rq\nload_rq('overnight')"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert "UsageError: RQ was imported in this process with the key prefix 'rq'" in ended.stderr


def test_a_server_that_is_away_is_unreachable() -> None:
    with connect(f"redis://127.0.0.1:{free_port()}/0") as client:
        port = RqTransport(client, PREFIX)
        with pytest.raises(Unreachable):
            port.push([entry(1)])
        with pytest.raises(Unreachable):
            port.depth("default")


@pytest.mark.parametrize("name", ["default", "x}:queue", "a,b", "100%", "*"])
def test_queue_names_are_encoded_without_loss(name: str) -> None:
    assert queue_name_of(queue_key_name(name)) == name
