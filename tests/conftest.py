"""Fixtures for all tests: private servers, one of each kind for the whole session."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.servers import KINDS, connect, running_server, server_binary

# How long one example takes tells how busy the machine is, nothing of the product; each test has a limit of its own.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests that need a process of a single thread first: some libraries leave threads that never end."""
    items.sort(key=lambda item: item.get_closest_marker("single_threaded") is None)


@pytest.fixture(scope="session")
def short_directory() -> Iterator[Path]:
    """A directory whose path leaves room for the names of unix sockets."""
    with tempfile.TemporaryDirectory(prefix="ov-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


@pytest.fixture(scope="session", params=KINDS)
def redis_server(request: pytest.FixtureRequest, short_directory: Path) -> Iterator[str]:
    """The URL of a server that lives for the session; a test that uses it runs on Redis and on Valkey."""
    with running_server(server_binary(request.param), short_directory / request.param) as url:
        yield url


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The URL of an empty database."""
    with connect(redis_server) as connection:
        connection.flushall()
    return redis_server
