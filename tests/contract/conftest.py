"""The stores that the contract suite holds to one behaviour: in memory, on Redis, on Valkey."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from overnight.store.memory import MemoryStore
from overnight.store.redis import RedisStore
from tests.support.servers import KINDS, connect, running_server, server_binary
from tests.support.stores import Clock, Night, Store, begin


@pytest.fixture(scope="session")
def url_of(short_directory: Path) -> Iterator[Callable[[str], str]]:
    """The URL of a server by its kind, started when it is first asked for."""
    urls: dict[str, str] = {}
    with ExitStack() as stack:

        def started(kind: str) -> str:
            if kind not in urls:
                server = running_server(server_binary(kind), short_directory / f"store-{kind}")
                urls[kind] = stack.enter_context(server)
            return urls[kind]

        yield started


@pytest.fixture(params=["memory", *KINDS])
def store(request: pytest.FixtureRequest, url_of: Callable[[str], str]) -> Iterator[Store]:
    """An empty store of each kind."""
    if request.param == "memory":
        yield MemoryStore(now=Clock())
        return
    with connect(url_of(request.param)) as client:
        client.flushall()
        yield RedisStore(client, "test")
        assert [key for key in client.scan_iter() if client.ttl(key) < 0] == [], "keys without a lifetime"


@pytest.fixture(params=KINDS)
def server_store(request: pytest.FixtureRequest, url_of: Callable[[str], str]) -> Iterator[RedisStore]:
    """An empty store on each kind of server."""
    with connect(url_of(request.param)) as client:
        client.flushall()
        yield RedisStore(client, "test")
        client.config_set("maxmemory", 0)


@pytest.fixture
def night(store: Store) -> Night:
    """An active run of four tasks, with the epoch held."""
    return begin(store)
