"""Say once in a while what a run that waits lacks: a scheduler, or a worker that serves its queue (BEHAVIOUR QX2).

What the scheduler itself says of the run, because it cannot read it, is told as soon as it is seen.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Sequence

from overnight.config import Settings
from overnight.early_ends import EarlyEnds
from overnight.failing_slots import failing_scheduler, failing_worker
from overnight.hints import hint
from overnight.naming import shown
from overnight.store.ports import ReadingStore
from overnight.store.records import WorkerRecord
from overnight.wire import PROTOCOL

_logger = logging.getLogger(__name__)

FIRST_WARNING_SECONDS = 10.0
NEXT_WARNING_SECONDS = 60.0
LOOK_SECONDS = 5.0


class WorkerWatch:
    """Looks from time to time at the scheduler and the workers of a queue; a run without either only waits."""

    def __init__(
        self, store: ReadingStore, run_id: str, queue: str, settings: Settings, python: str | None = None
    ) -> None:
        self._store = store
        self._run_id = run_id
        self._queue = queue
        self._settings = settings
        self._python = python
        self._note = ""
        now = time.monotonic()
        self._look_at = now + LOOK_SECONDS
        self._warn_at = now + FIRST_WARNING_SECONDS

    def look(self, note: str | None = None) -> str | None:
        """Return, and log, what there is to say now: that nobody takes this run's tasks, or what its scheduler says.

        `note` is the run's, for a caller who has just read it; None: it is read here, as often as workers are.
        """
        now = time.monotonic()
        is_due = now >= min(self._look_at, self._warn_at)
        if note is None and is_due:
            note = self._store.run(self._run_id).note
        if note:
            self._look_at = now + LOOK_SECONDS
            former, self._note = self._note, note
            return self._say(note, shown(note)) if note != former else None
        return self._lack_at(now) if is_due else None

    def _lack_at(self, now: float) -> str | None:
        self._note = ""
        self._look_at = now + LOOK_SECONDS
        lack = next(lacks_of(self._store, self._run_id, [self._queue], self._settings, self._python), None)
        if lack is None:
            self._warn_at = now + FIRST_WARNING_SECONDS
            return None
        if now < self._warn_at:
            return None
        self._warn_at = now + NEXT_WARNING_SECONDS
        return self._say(lack, lack)

    def _say(self, sentence: str, escaped: str) -> str:
        _logger.warning("%s", escaped)
        return sentence


def lacks_of(
    store: ReadingStore, run_id: str, queues: Collection[str], settings: Settings, python: str | None = None
) -> Iterator[str]:
    """Yield a sentence for each thing without which a run waits: a scheduler, a worker that fits on each of `queues`.

    Names in it are escaped. Where local ones end as soon as they are started, it says so: another would do the same.
    `python` is the minor version that workers must have, such as "3.11"; None: any.
    """
    if store.scheduler() is None:
        what = "No scheduler serves this server; the run waits"
        yield _with_way_out(what, failing_scheduler(settings), settings, "scheduler")
    workers = store.workers()
    for queue in sorted(queues):
        lack = lack_of_workers(workers, run_id, queue, settings, python)
        if lack is not None:
            yield lack


def lack_of_workers(
    workers: Sequence[WorkerRecord], run_id: str, queue: str, settings: Settings, python: str | None = None
) -> str | None:
    """Return a sentence, as `lacks_of` yields it, if none of these workers serves a queue of a run and fits the run."""
    serving = [worker for worker in workers if queue in worker.queues]
    if not serving:
        what = f"No worker serves queue {shown(queue)}; the run waits"
        return _with_way_out(what, failing_worker(settings, queue), settings, "worker", "-q", queue)
    refusing = [worker for worker in serving if run_id in worker.note]
    if len(refusing) == len(serving):
        where, why = shown(refusing[0].host), shown(refusing[0].note)
        return f"No worker of queue {shown(queue)} takes the run's tasks: the one on {where} {why}"
    if python is None or any(_fits(worker, python) for worker in serving):
        return None
    found = ", ".join(sorted({f"Python {worker.python}, protocol {worker.protocol}" for worker in serving}))
    return (
        f"No worker of queue {shown(queue)} has Python {python} and protocol {PROTOCOL} "
        f"(found: {found}); the run waits. Start one with that Python."
    )


def _with_way_out(lack: str, failing: EarlyEnds | None, settings: Settings, *words: str) -> str:
    """Say with what is lacking the command that starts it, or why the one that is kept here does not last."""
    return f"{lack}. Start one with: {hint(settings, *words)}" if failing is None else f"{lack}: {failing.sentence()}."


def _fits(worker: WorkerRecord, python: str) -> bool:
    """Tell whether a worker runs the Python minor version `python`, such as "3.11", and speaks our protocol."""
    return worker.python.split(".")[:2] == python.split(".")[:2] and worker.protocol == PROTOCOL
