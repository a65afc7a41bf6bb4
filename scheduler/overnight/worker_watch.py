"""Say once in a while what a run that waits lacks: a scheduler, or a worker that serves a queue on which tasks of it
wait (BEHAVIOUR QX2).

What the scheduler itself says of the run, because it cannot read it, is told as soon as it is seen.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple, Protocol

from overnight.config import Settings
from overnight.early_ends import EarlyEnds
from overnight.errors import UnreadableRun
from overnight.failing_slots import failing_scheduler, failing_worker
from overnight.graph import TaskGraph
from overnight.hints import hint
from overnight.naming import shown
from overnight.store.ports import ReadingStore
from overnight.store.records import WorkerRecord
from overnight.structure import Structure
from overnight.wire import PROTOCOL

_logger = logging.getLogger(__name__)

FIRST_WARNING_SECONDS = 10.0
NEXT_WARNING_SECONDS = 60.0
LOOK_SECONDS = 5.0


class Lack(NamedTuple):
    """What a run waits for that does not come by itself: a worker of `queue`, or (None) a scheduler."""

    queue: str | None
    text: str


class Queues(Protocol):
    """The queues of a run's tasks."""

    def waiting(self, is_unserved: Callable[[str], bool]) -> Collection[str]:
        """Return those queues for which this holds and on which a task waits for nothing but a worker."""


class StoredQueues:
    """Those of a run in the store. `codes` gives one state a task, `structure` at least so many tasks."""

    def __init__(self, default: str, codes: Callable[[], bytes], structure: Callable[[int], Structure]) -> None:
        self._default = default
        self._codes = codes
        self._structure = structure

    def waiting(self, is_unserved: Callable[[str], bool]) -> Collection[str]:
        """Return those queues for which this holds and on which a task waits for nothing but a worker."""
        codes = self._codes()
        try:
            structure = self._structure(len(codes))
        except UnreadableRun:  # then its own queue is all that is known
            return [self._default] if is_unserved(self._default) else []
        unserved = [queue for queue in structure.named_queues(self._default) if is_unserved(queue)]
        return [queue for queue in unserved if structure.waits_on(queue, self._default, codes)]


class GraphQueues:
    """Those of the tasks that are left in a graph which is being run."""

    def __init__(self, graph: TaskGraph, default: str) -> None:
        self._graph = graph
        self._default = default

    def waiting(self, is_unserved: Callable[[str], bool]) -> Collection[str]:
        """Return those queues for which this holds and on which a task waits for nothing but a worker, or runs."""
        with self._graph as nodes:
            ready = {node.options.queue or self._default for node in nodes.values() if not node.unmet}
        return [queue for queue in ready if is_unserved(queue)]


class WorkerWatch:
    """Looks from time to time at the scheduler and the workers of a run's queues; a run without them only waits."""

    def __init__(
        self, store: ReadingStore, run_id: str, queues: Queues, settings: Settings, python: str | None = None
    ) -> None:
        self._store = store
        self._run_id = run_id
        self._queues = queues
        self._settings = settings
        self._python = python
        self._note = ""
        #: When to say next of each lack that it is still there, by queue.
        self._warn_at: dict[str | None, float] = {}
        self._looked_at = time.monotonic()
        self._look_at = self._looked_at + LOOK_SECONDS

    def look(self, note: str | None = None) -> str | None:
        """Return, and log, what there is to say now: that nobody takes this run's tasks, or what its scheduler says.

        `note` is the run's, for a caller who has just read it; None: it is read here, as often as workers are.
        """
        now = time.monotonic()
        is_due = now >= min([self._look_at, *self._warn_at.values()])
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
        lacks = {lack.queue: lack.text for lack in self._lacks()}
        first = self._looked_at + FIRST_WARNING_SECONDS
        self._warn_at = {queue: self._warn_at.get(queue, first) for queue in lacks}
        self._looked_at = now
        due = [queue for queue, at in self._warn_at.items() if now >= at]
        self._warn_at.update(dict.fromkeys(due, now + NEXT_WARNING_SECONDS))
        return " ".join([self._say(lacks[queue], lacks[queue]) for queue in due]) or None

    def _lacks(self) -> Iterator[Lack]:
        workers = self._store.workers()

        def lack_of(queue: str) -> str | None:
            return lack_of_workers(workers, self._run_id, queue, self._settings, self._python)

        waiting = self._queues.waiting(lambda queue: lack_of(queue) is not None)
        return lacks_of(self._store, self._run_id, waiting, self._settings, self._python)

    def _say(self, sentence: str, escaped: str) -> str:
        _logger.warning("%s", escaped)
        return sentence


def lacks_of(
    store: ReadingStore, run_id: str, queues: Collection[str], settings: Settings, python: str | None = None
) -> Iterator[Lack]:
    """Yield each thing without which a run waits: a scheduler, a worker that fits on each of `queues`.

    Names in it are escaped. Where local ones end as soon as they are started, it says so: another would do the same.
    `python` is the minor version that workers must have, such as "3.11"; None: any.
    """
    if store.scheduler() is None:
        what = "No scheduler serves this server; the run waits"
        yield Lack(None, _with_way_out(what, failing_scheduler(settings), settings, "scheduler"))
    workers = store.workers()
    for queue in sorted(queues):
        lack = lack_of_workers(workers, run_id, queue, settings, python)
        if lack is not None:
            yield Lack(queue, lack)


def is_served(workers: Sequence[WorkerRecord], run_id: str, queue: str, python: str | None) -> bool:
    """Tell whether one of these workers serves a queue of a run, takes its tasks, and fits it."""
    takers = [worker for worker in workers if queue in worker.queues and run_id not in worker.note]
    return any(python is None or _fits(worker, python) for worker in takers)


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
