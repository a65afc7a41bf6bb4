"""An outcome as the frame in which it leaves the child. The result is serialised here: that is part of the task."""

from __future__ import annotations

import resource

from overnight import failpoints
from overnight.certificates import BY_EXCEPTION, BY_TIME_LIMIT
from overnight.error_text import error_text
from overnight.errors import HOPELESS, ResultNotPicklable, TaskTimedOut
from overnight.invoke import Outcome
from overnight.pickling import dump_exception, dump_result
from overnight_worker.frames import Kind, Success, pack, pack_success

LARGEST_RESULT_BYTES = 4 * 1024**3


def packed_outcome(position: int, task_id: str, outcome: Outcome) -> tuple[bytes, bool, bytes]:
    """Return the outcome's frame, whether it is a success, and the serialised result (empty for a failure)."""
    if not outcome.ok:
        return packed_failure(position, outcome), False, b""
    try:
        body = dump_result(outcome.value, task_id, limit_bytes=LARGEST_RESULT_BYTES)
        failpoints.reach("child.during_serialise")
    except ResultNotPicklable as error:
        plain = error.with_traceback(None)
        failed = Outcome(
            ok=False,
            value=plain,
            started=outcome.started,
            seconds=outcome.seconds,
            peak_memory=outcome.peak_memory,
        )
        return packed_failure(position, failed), False, b""
    success = Success(position, outcome.started, outcome.seconds, outcome.peak_memory)
    return pack_success(success, body), True, body


def packed_failure(position: int, outcome: Outcome, ended_by: str = BY_EXCEPTION) -> bytes:
    """Return the frame of a failure; `ended_by` as in a death certificate."""
    if isinstance(outcome.value, MemoryError) and not outcome.value.args:
        outcome.value.args = (_refusal(outcome.peak_memory),)
    text = error_text(outcome.value)
    fields = {
        "position": position,
        "type": text.type_name,
        "message": text.message,
        "traceback": text.traceback,
        "hopeless": isinstance(outcome.value, HOPELESS),
        "started": outcome.started,
        "seconds": outcome.seconds,
        "peak_memory": outcome.peak_memory,
        "ended_by": BY_TIME_LIMIT if isinstance(outcome.value, TaskTimedOut) else ended_by,
        "tail": outcome.tail,
    }
    return pack(Kind.FAILURE, fields, dump_exception(outcome.value))


def _refusal(peak_memory: int) -> str:
    """Say what Python's own error leaves out: how much the process had, and how much it may have."""
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    lowest = min((limit for limit in limits if limit != resource.RLIM_INFINITY), default=None)
    bound = "" if lowest is None else f", ulimit {lowest / 1e6:.0f} MB"
    return f"the system gave the task no more memory (peak memory {peak_memory / 1e6:.0f} MB{bound})"
