"""One attempt in a process of its own, forked from the warm child (BEHAVIOUR B17, ``--isolation task``).

The child has one thread and is the fork server. The outcome travels through a private pipe and is handed on only when
it is whole, so a process that dies while it writes is a death. The memory of the attempt returns to the system.
"""

from __future__ import annotations

import os
import struct
import time

from overnight.invoke import Outcome
from overnight_worker.attempts import Attempts, Order
from overnight_worker.death import Death, Vigil, peak_memory_of
from overnight_worker.outcomes import packed_failure, packed_outcome

_HEAD = struct.Struct(">BQQ")


def run_forked(attempts: Attempts, order: Order) -> tuple[bytes, bool]:
    """Run the task in a forked process; return its outcome's frame and whether it is a success."""
    vigil, began, started = Vigil(), time.monotonic(), time.time()
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        _run_here(attempts, order, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        received = pipe.read()
    _, status, usage = os.wait4(process, 0)
    death = vigil.death(os.waitstatus_to_exitcode(status), peak_memory_of(usage))
    done = _unpacked(attempts, order, received)
    return done or (_failure(attempts, order, death, started, time.monotonic() - began), False)


def _run_here(attempts: Attempts, order: Order, writing: int) -> None:
    try:
        outcome = attempts.attempt(order)
        message, ok, body = packed_outcome(order.position, order.task_id, outcome)
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(_HEAD.pack(ok, len(message), len(body)) + message + body)
    finally:
        os._exit(0)


def _unpacked(attempts: Attempts, order: Order, received: bytes) -> tuple[bytes, bool] | None:
    if len(received) < _HEAD.size:
        return None
    ok, message_length, body_length = _HEAD.unpack_from(received)
    middle = _HEAD.size + message_length
    if len(received) != middle + body_length:
        return None
    if ok:
        attempts.keep(order, received[middle:])
    return received[_HEAD.size : middle], bool(ok)


def _failure(attempts: Attempts, order: Order, death: Death, started: float, seconds: float) -> bytes:
    died = death.error(attempts.worker)
    tail = attempts.told_death(order, death.sentence(), started)
    outcome = Outcome(ok=False, value=died, started=started, seconds=seconds, peak_memory=death.peak_memory, tail=tail)
    return packed_failure(order.position, outcome, death.ended_by())
