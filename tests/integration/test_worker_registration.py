"""What a supervisor tells RQ of itself: repeatable, nothing for ever. RQ keeps its prefix: in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.support.command import ROOT

SCRIPT = """
import json, sys
from pathlib import Path
from overnight.config import read_settings
from overnight.keyring import Keyring
from overnight.store.connection import connect
from overnight.store.redis import RedisStore
from overnight.transport.port import Entry
from overnight.transport.rq import RqTransport, load_rq

settings = read_settings({})
load_rq(settings.prefix)
from overnight_worker.daemon import Supervisor
from overnight_worker.heartbeat import Heartbeat
from overnight_worker.job import Foreman
from overnight_worker.post import Post
from overnight_worker.spool import Spool

client = connect(sys.argv[1], settings=settings)
transport = RqTransport(client, settings.prefix)
transport.push([Entry("default", "run", "00" * 16)])
post = Post(RedisStore(client, settings.prefix), Keyring(), settings, ("default",), "worker")
heartbeat = Heartbeat(post)
spool = Spool(Path(sys.argv[2]), post.instance, post.keyring)
supervisor = Supervisor(client, post, Foreman(post, transport, heartbeat, spool), heartbeat, spool)
supervisor.register_birth()
supervisor.register_birth()
client.rpush(supervisor.queues[0].intermediate_queue_key, "taken and never forgotten")
supervisor.heartbeat()
if sys.argv[3:] == ["full"]:
    supervisor._shown_at = float("-inf")
    client.flushall()
    client.config_set("maxmemory", 1)
    supervisor.heartbeat()
    supervisor.run_maintenance_tasks()
    assert not client.exists(supervisor.key)
    client.config_set("maxmemory", 0)
    supervisor.heartbeat()
if sys.argv[3:] == ["busy"]:
    client.expire(supervisor.key, 1)
    supervisor._shown_at = float("-inf")
    heartbeat.beat(("run", "00" * 16))
if sys.argv[3:] == ["lost"]:
    client.flushall()
    supervisor.set_state("idle")
keys = [key.decode() if isinstance(key, bytes) else key for key in client.keys("*")]
print(json.dumps({key: client.ttl(key) for key in keys}))
"""


def lifetimes(redis_url: str, directory: object, *how: str) -> dict[str, int]:
    words = [sys.executable, "-c", SCRIPT, redis_url, str(directory), *how]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    return found


def test_a_repeated_registration_is_none_too_many_and_all_of_it_has_a_lifetime(
    redis_url: str, tmp_path: object
) -> None:
    """QX5: the reply to a registration may be lost, and the worker then registers again."""
    keys = lifetimes(redis_url, tmp_path)
    assert {key for key in keys if ":rq:worker" in key}
    assert {key: seconds for key, seconds in keys.items() if seconds < 0} == {}


def test_a_record_that_a_changed_state_makes_anew_has_a_lifetime(redis_url: str, tmp_path: object) -> None:
    """QX5: RQ writes the state alone, also where the server has lost all else of the worker."""
    [(key, seconds)] = lifetimes(redis_url, tmp_path, "lost").items()
    assert ":rq:worker:" in key
    assert seconds > 0


def test_a_server_that_takes_no_writes_ends_no_worker_that_tells_it_of_itself(redis_url: str, tmp_path: object) -> None:
    """P13: RQ's loop ends where a sign of life or its cleaning raises; the next sign is sent as soon as it can be."""
    assert any(":rq:worker:" in key for key in lifetimes(redis_url, tmp_path, "full"))


def test_rq_goes_on_showing_a_worker_whose_task_is_long(redis_url: str, tmp_path: object) -> None:
    shown = lifetimes(redis_url, tmp_path, "busy")
    assert next(seconds for key, seconds in shown.items() if ":rq:worker:" in key) > 60
