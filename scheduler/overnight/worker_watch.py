"""Say once in a while what a run that waits lacks: a scheduler, or a worker that serves its queue (BEHAVIOUR QX2).

What the scheduler itself says of the run, because it cannot read it, is told as soon as it is seen.
"""

from __future__ import annotations

import logging
import time

from overnight.naming import shown
from overnight.store.ports import ReadingStore
from overnight.store.records import WorkerRecord
from overnight.wire import PROTOCOL

_logger = logging.getLogger(__name__)

FIRST_WARNING_SECONDS = 10.0
NEXT_WARNING_SECONDS = 60.0
LOOK_SECONDS = 5.0
FIRST_LOOK_SECONDS = 1.0


class WorkerWatch:
    """Looks from time to time at the scheduler and the workers of a queue; a run without either only waits."""

    def __init__(self, store: ReadingStore, run_id: str, queue: str, python: str | None = None) -> None:
        self._store = store
        self._run_id = run_id
        self._queue = queue
        self._python = python
        self._note = ""
        now = time.monotonic()
        self._look_at = now + FIRST_LOOK_SECONDS
        self._warn_at = now + FIRST_WARNING_SECONDS

    def look(self) -> str | None:
        """Return, and log, a sentence if it is time to say that nobody takes this run's tasks."""
        now = time.monotonic()
        if now < min(self._look_at, self._warn_at):
            return None
        self._look_at = now + LOOK_SECONDS
        note, self._note = self._note, self._store.run(self._run_id).note
        if self._note:
            return self._say(self._note) if self._note != note else None
        lack = self._lack()
        if lack is None:
            self._warn_at = now + FIRST_WARNING_SECONDS
            return None
        if now < self._warn_at:
            return None
        self._warn_at = now + NEXT_WARNING_SECONDS
        return self._say(lack)

    def _say(self, sentence: str) -> str:
        _logger.warning("%s", shown(sentence))
        return sentence

    def _lack(self) -> str | None:
        """Return what is missing, or None if there is a scheduler and some worker fits."""
        if self._store.scheduler() is None:
            return "No scheduler serves this server; the run waits. Start one with: overnight scheduler"
        serving = [worker for worker in self._store.workers() if self._queue in worker.queues]
        if not serving:
            return (
                f"No worker serves queue {shown(self._queue)}; the run waits. "
                f"Start one with: overnight worker -q {shown(self._queue)}"
            )
        refusing = [worker for worker in serving if self._run_id in worker.note]
        if len(refusing) == len(serving):
            where, why = shown(refusing[0].host), shown(refusing[0].note)
            return f"No worker of queue {shown(self._queue)} takes the run's tasks: the one on {where} {why}"
        if self._python is None or any(_fits(worker, self._python) for worker in serving):
            return None
        found = ", ".join(sorted({f"Python {worker.python}, protocol {worker.protocol}" for worker in serving}))
        return (
            f"No worker of queue {shown(self._queue)} has Python {self._python} and protocol {PROTOCOL} "
            f"(found: {found}); the run waits. Start one with that Python."
        )


def _fits(worker: WorkerRecord, python: str) -> bool:
    """Tell whether a worker runs the Python minor version `python`, such as "3.11", and speaks our protocol."""
    return worker.python.split(".")[:2] == python.split(".")[:2] and worker.protocol == PROTOCOL
