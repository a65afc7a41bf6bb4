"""Who works on what, as the server knows it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import redis

from overnight.core.states import TERMINAL, TaskState
from overnight.errors import OvernightError, UnknownRun
from overnight.store.redis import RedisStore
from tests.acceptance.nemesis.schedule import Missed

if TYPE_CHECKING:
    from tests.acceptance.nemesis.arena import Arena


def at_work(arena: Arena, chance: random.Random) -> tuple[str, str, int]:
    """A worker that runs a task, as far as the server knows: its name, the run and the task."""
    awake = [name for name in arena.cluster.workers if arena.cluster.lives(name) and name not in arena.asleep]
    names = {arena.cluster.processes[name].pid: name for name in awake}
    try:
        with arena.cluster.admin() as admin:
            records = RedisStore(admin, "overnight").workers()
    except (OvernightError, redis.RedisError, OSError) as error:
        raise Missed("the server does not say who works") from error
    busy = [(names[one.pid], one.run_id, one.task) for one in records if one.pid in names and one.run_id]
    working = [(name, run_id, task) for name, run_id, task in busy if task is not None]
    if not working:
        raise Missed("no worker runs a task")
    return chance.choice(sorted(working))


def is_over(arena: Arena, run_id: str, task: int) -> bool:
    """Whether a task has ended, or nobody can say so any more."""
    try:
        with arena.cluster.admin() as admin:
            states = RedisStore(admin, "overnight").states(run_id)
    except UnknownRun:
        return True
    except (OvernightError, redis.RedisError, OSError):
        return False
    return TaskState(states[2 * task]) in TERMINAL if len(states) > 2 * task else True
