"""Seeds of the simulation, played on a real server of one kind beside the memory store; many in several processes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import redis

from tests.support.differential.clocked import load_scripts
from tests.support.differential.server import DifferentialServer
from tests.support.servers import running_server, server_binary
from tests.support.simulation.many import without_frames
from tests.support.simulation.oracle import Oracle
from tests.support.simulation.planted import planted
from tests.support.simulation.play import Played, played
from tests.support.simulation.world import World

#: How many seeds each change plays on each kind of server.
SEEDS = 200
#: How many seeds share a server: starting one takes as long as two of them.
CHUNK = 25


@contextmanager
def server_of(kind: str) -> Iterator[redis.Redis]:
    """Run a server of one kind that knows the clocked scripts; give its client."""
    with (
        tempfile.TemporaryDirectory(prefix="ov-", ignore_cleanup_errors=True) as directory,
        running_server(server_binary(kind), Path(directory)) as url,
        redis.Redis.from_url(url, protocol=2, socket_timeout=10) as client,
    ):
        load_scripts(client)
        yield client


def compared(seed: int, client: redis.Redis, *, faults: bool = True, tracing: bool = False) -> Played:
    """Play one seed on both sides; the first difference is its error."""
    servers: list[DifferentialServer] = []

    def server(world: World, oracle: Oracle) -> DifferentialServer:
        servers.append(DifferentialServer(world, oracle, client))
        return servers[-1]

    try:
        return played(seed, faults=faults, tracing=tracing, server=server)
    finally:
        for one in servers:
            one.close()


def _chunk(kind: str, first: int, number: int, name: str | None, *, faults: bool) -> list[Played]:
    with server_of(kind) as client, planted(name):
        return [without_frames(compared(seed, client, faults=faults)) for seed in range(first, first + number)]


def seeds(
    kind: str, first: int, number: int, name: str | None = None, *, jobs: int = 1, faults: bool = True
) -> Iterator[Played]:
    """Play seeds in order on a kind of server, in so many processes with a server each."""
    starts = range(first, first + number, CHUNK)
    sizes = [min(CHUNK, first + number - start) for start in starts]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        parts = zip(starts, sizes, strict=True)
        chunks = [pool.submit(_chunk, kind, start, size, name, faults=faults) for start, size in parts]
        try:
            for chunk in chunks:
                yield from chunk.result()
        finally:
            pool.shutdown(cancel_futures=True)
