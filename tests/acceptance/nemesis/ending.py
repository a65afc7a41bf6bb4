"""What must hold when all is calm: nobody is busy, nothing is left lying about, no secret has come out."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from overnight.flag_files import ABANDONED_SECONDS, remove_abandoned
from overnight.state_dir import wait_until
from overnight.transport.rq import rq_prefix
from tests.acceptance.nemesis.cluster import Cluster

BUSY_SHARE = 0.5
WATCHED_SECONDS = 3.0
#: A worker tells RQ of itself every 20 s.
SIGN_SECONDS = 30.0
OF_RQ = f"{rq_prefix('overnight')}:".encode()


def busy(cluster: Cluster) -> Iterator[str]:
    """Processes that use more than half a CPU although there is nothing to do."""
    watched = {name: psutil.Process(cluster.processes[name].pid) for name in cluster.processes if cluster.lives(name)}
    before = {name: sum(process.cpu_times()[:2]) for name, process in watched.items()}
    time.sleep(WATCHED_SECONDS)
    for name, process in watched.items():
        share = (sum(process.cpu_times()[:2]) - before[name]) / WATCHED_SECONDS
        if share > BUSY_SHARE:
            yield f"{name} uses {share:.0%} of a CPU while it is idle"


def everlasting_keys(cluster: Cluster) -> Iterator[str]:
    """Keys on the server without a lifetime: none of overnight's at any moment, and none of RQ's for long.

    RQ makes some without; a worker's next sign for RQ gives them one.
    """
    with cluster.admin() as admin:
        everlasting = [key for key in admin.scan_iter(count=1000) if admin.ttl(key) == -1]
        of_rq = [key for key in everlasting if key.startswith(OF_RQ)]
        yield from [f"the key {key!r} has no lifetime" for key in everlasting if key not in of_rq]
        wait_until(lambda: all(admin.ttl(key) != -1 for key in of_rq), SIGN_SECONDS)
        yield from [f"the key {key!r} of RQ gets no lifetime" for key in of_rq if admin.ttl(key) == -1]


def leftovers(cluster: Cluster) -> Iterator[str]:
    """What lies beside the flags of graphs that are done, and would still do so after the time for which the temporary
    file of a killed writer is left alone."""
    then = time.time() - 2 * ABANDONED_SECONDS
    for flags in cluster.disk.glob("round*/flags"):
        for path in [path for path in flags.iterdir() if path.suffix != ".flag"]:
            os.utime(path, (then, then), follow_symlinks=False)
        remove_abandoned(flags)
        yield from (f"{path.name} is left in {flags}" for path in flags.iterdir() if path.suffix != ".flag")


def told_secrets(cluster: Cluster) -> Iterator[str]:
    """Places in which the password or a key can be read."""
    secrets = {b"the password": cluster.password.encode()}
    secrets |= {b"a key": key.encode() for key in cluster.keys} | {
        b"the bytes of a key": bytes.fromhex(cluster.keys[-1])
    }
    places: list[Path] = [path for path in cluster.logs.rglob("*") if path.is_file()]
    places += [path for path in cluster.disk.rglob("*") if path.is_file() and path.stat().st_size < 1_000_000]
    stored = [path for path in cluster.data.rglob("*") if path.is_file()]
    for path in places:
        content = path.read_bytes()
        yield from (f"{name.decode()} stands in {path}" for name, secret in secrets.items() if secret in content)
    for path in stored:
        content = path.read_bytes()
        yield from (f"{name.decode()} stands in {path}" for name, secret in secrets.items() if secret in content)
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or ()).encode("utf-8", "replace")
        yield from (
            f"{name.decode()} stands in ps: {process.pid}" for name, secret in secrets.items() if secret in words
        )
