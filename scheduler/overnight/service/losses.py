"""What is known of an attempt whose worker vanished: from the worker's last sign of life, as far as it is kept.

A worker's record and the last lines of its task are text of somebody else; nothing of them is ever unpickled.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from overnight.certificates import BY_LOSS, DeathCertificate
from overnight.errors import BadSeal, TaskDied
from overnight.keyring import Keyring
from overnight.log_tails import opened_tail
from overnight.pickling import type_name
from overnight.store.records import WorkerRecord

_MESSAGE = "Its worker fell silent while it held the task: killed, cut off, or its machine went down."


@dataclass(frozen=True, slots=True)
class Loss:
    """A batch that was taken from a lost worker: what the worker said last (None: nothing is known), and the sealed
    last lines of the task that it ran, empty for none."""

    batch: str
    worker: WorkerRecord | None
    tail: bytes = b""

    def certificate(self, run_id: str, task: int, attempt: int, noticed: float, keyring: Keyring) -> DeathCertificate:
        """Return the certificate of a task of the batch; `noticed` is when the loss was, by the server's clock.

        Of the task that the worker said it runs, the attempt ends with the last sign of life: nothing is known of it
        after that.
        """
        host, name = ("", "") if self.worker is None else (self.worker.host, f"{self.worker.host}:{self.worker.pid}")
        ended, seconds, memory, tail = noticed, None, 0, ""
        if self.worker is not None and self.worker.begun_in(run_id, self.batch) == task:
            memory, since = max(0, self.worker.memory), self.worker.task_since
            if since is not None and self.worker.clock:
                ended, seconds = self.worker.seen_at, max(0.0, self.worker.clock - since)
            with suppress(BadSeal):
                tail = opened_tail(self.tail, run_id, task, attempt, keyring)
        return DeathCertificate(
            attempt,
            BY_LOSS,
            type_name(TaskDied),
            _MESSAGE,
            worker=name,
            host=host,
            ended=ended,
            seconds=seconds,
            peak_memory=memory,
            tail=tail,
        )
