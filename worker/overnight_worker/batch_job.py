"""An RQ job as overnight reads it: run and batch, bounded, and nothing else of what anybody may have written into it.

RQ itself would unpack any amount and parse a dozen fields. This module is imported after `load_rq`, as `daemon` is.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping
from typing import Any

from rq import Queue
from rq.exceptions import DeserializationError
from rq.job import Job

from overnight.naming import shown
from overnight.transport.port import Entry
from overnight.transport.rq import queue_name_of

#: Two ids and a function's name take a few hundred.
LONGEST_JOB_BYTES = 16 * 1024
_logger = logging.getLogger("overnight.worker")


class BatchJob(Job):
    """A job of which `args` alone are of use; they cannot be had of one that is not overnight's."""

    def restore(self, raw_data: Mapping[bytes, Any]) -> None:
        """Take what is needed from the job's hash. Raises NoSuchJobError if it holds no data."""
        known = {name: raw_data[name] for name in (b"origin",) if name in raw_data}
        if b"data" in raw_data:
            known[b"data"] = _unpacked(bytes(raw_data[b"data"]))
        super().restore(known)


def entry_of(job: Job, queue: Queue) -> Entry | None:
    """Return what a job names; None, and one line, if it is none of overnight's."""
    try:
        run_id, batch = job.args
    except (DeserializationError, ValueError, TypeError, KeyError, AttributeError) as error:
        _logger.warning("job %s on queue %s is not a batch: %s", shown(job.id), shown(queue.name), error)
        return None
    return Entry(queue_name_of(queue.name), str(run_id), str(batch))


def _unpacked(data: bytes) -> bytes:
    """Return the JSON that a job carries; nothing if it is longer than any of overnight's, or something else."""
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, LONGEST_JOB_BYTES)
    except zlib.error:
        return b""
    is_whole = unpacker.eof and not unpacker.unconsumed_tail
    # What begins like this is never unpacked a second time.
    return text if is_whole and text.startswith(b"[") else b""
