"""A job on a queue is read as bounded text, whatever was written into it (ADVERSITY 8: C1, M1)."""

from __future__ import annotations

import json
import tracemalloc
import zlib
from typing import Any

import pytest

from overnight.transport.rq import load_rq
from tests.support.servers import connect


def read(fields: dict[bytes, bytes]) -> Any:
    """What a worker makes of a job with these fields."""
    load_rq("overnight")
    from rq.serializers import JSONSerializer

    from overnight_worker.batch_job import BatchJob

    job = BatchJob("id", connection=connect("redis://localhost"), serializer=JSONSerializer)
    job.restore(fields)
    return job


def unreadable() -> type[Exception]:
    from rq.exceptions import DeserializationError

    return DeserializationError


GOOD = json.dumps(["overnight_worker.job.run_batch", None, ["run", "batch"], {}]).encode()


def test_run_and_batch_are_read_and_nothing_else() -> None:
    """C1: fields that RQ would load, call or send to are left alone."""
    names = ("meta", "result", "exc_info", "webhooks", "success_callback_name", "created_at", "timeout", "status")
    job = read({b"data": zlib.compress(GOOD), **{name.encode(): b"\x80\x04hostile" for name in names}})
    assert job.args == ["run", "batch"]
    assert (job.meta, job.webhooks, job.success_callback) == ({}, [], None)


@pytest.mark.parametrize("twice", [False, True])
def test_a_job_that_unpacks_to_a_gigabyte_costs_next_to_nothing(twice: bool) -> None:
    """M1: also one that holds another."""
    packer = zlib.compressobj(1)
    bomb = b"".join(packer.compress(bytes(1 << 24)) for _ in range(64)) + packer.flush()
    fields = {b"data": zlib.compress(bomb) if twice else bomb, b"exc_info": bomb}
    tracemalloc.start()
    try:
        job = read(fields)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50 << 20
    with pytest.raises(unreadable()):
        _ = job.args


@pytest.mark.parametrize(
    "data", [b"", b"x", GOOD, zlib.compress(b""), zlib.compress(b"\x80\x04."), zlib.compress(GOOD)[:-3]]
)
def test_what_is_no_batch_has_no_arguments(data: bytes) -> None:
    """C1: pickles and torn data are not tried in another way."""
    job = read({b"data": data})
    with pytest.raises(unreadable()):
        _ = job.args
