"""One run in the scheduler's memory: the core's state, and what a dispatch needs beside it.

The structure comes from sealed chunks; digests of results arrive in events. About 100 bytes a task above the core.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from overnight.core.actions import Action
from overnight.core.events import NewTask, TaskRules, TasksAdded, TasksAdopted
from overnight.core.run_state import RunState
from overnight.core.states import RunPhase, TaskState
from overnight.core.suspicion import Suspicions
from overnight.keyring import Keyring
from overnight.lineage import lineage_digest
from overnight.messages import SpecChunk
from overnight.service.learned import LearnedDurations
from overnight.service.losses import Loss
from overnight.service.window import BATCH_SECONDS
from overnight.store.records import Batch, Happening, RunEvent, RunRecord

DIGEST_BYTES = 32
#: So many returned batches within `HOLD_SECONDS` hold a run back for as long.
MOST_RETURNS = 20
HOLD_SECONDS = 1.0
#: For how long nothing may be heard of a run before it is read again, at first and in the end, in leases.
LEAST_PATIENCE, MOST_PATIENCE = 2, 32
_NO_DEPENDENCIES: array[int] = array("I")
_GIVEN_UP = frozenset({TaskState.FAILED, TaskState.SKIPPED, TaskState.CANCELLED})


@dataclass(frozen=True, slots=True)
class Waiting:
    """A batch that waits on a queue, since when, and how often in a row its entry had to be pushed again."""

    queue: str
    since: float
    pushes: int = 0


class ActiveRun:
    """A run that is not over, as this scheduler sees it.

    `learned` numbers functions, by name, for the cores of all runs of this process, so that what one run learned of a
    function's duration serves the next.
    """

    def __init__(self, record: RunRecord, core: RunState, learned: LearnedDurations) -> None:
        self.record = record
        self.core = core
        self.cursor = "0"
        self.over: RunPhase | None = None
        self.moved_at = 0.0
        self._patience = LEAST_PATIENCE
        self.invalidations = 0
        #: How often results were invalidated when this scheduler did so last.
        self.invalidated = 0
        self.held_until = 0.0
        #: The queues on which it has work; expected seconds dispatched for it, by weight, and of a batch (`sharing`).
        self.busy_on: set[str] = set()
        self.served = 0.0
        self.usual_batch = BATCH_SECONDS
        self._returned_at: deque[float] = deque(maxlen=MOST_RETURNS)
        self.queues: set[str] = set()
        self.waiting: dict[str, Waiting] = {}
        self.suspicions = Suspicions()
        #: Tasks whose worker was found lost, with what is known of it; until the verdicts are written.
        self.lost_with: dict[int, Loss] = {}
        self._learned = learned
        self._chunks: list[int] = []
        self._dependencies: list[array[int]] = []
        self._digests = bytearray()
        self._rules: dict[TaskRules, TaskRules] = {}
        #: The most that a task needs of each resource, and the id of the first such task.
        self.neediest: dict[str, tuple[float, str]] = {}

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return self.record.run_id

    @property
    def known(self) -> int:
        """How many tasks have been added so far; the next chunk starts here."""
        return len(self._dependencies)

    def function(self, task: int) -> str:
        """Return the name of a task's function."""
        return self._learned.name(self.core.life.rulebook.functions[task])

    def serve(self, seconds: float) -> None:
        """Note that a batch of so many expected seconds was dispatched."""
        self.served += seconds / self.record.weight
        self.usual_batch += (seconds - self.usual_batch) / 2

    def hear(self, entry: RunEvent, now: float) -> None:
        """Note how far the run's events have been heard."""
        self.cursor = entry.cursor
        self.moved_at, self._patience = now, LEAST_PATIENCE
        if entry.what is Happening.INVALIDATED:
            self.invalidations = entry.invalidations

    @property
    def is_behind(self) -> bool:
        """Tell whether what this scheduler invalidated last was not heard of yet. What came before may still be heard,
        such as a success that is gone by now, and nothing is to be dispatched on the strength of it."""
        return self.invalidations < self.invalidated

    def stands_still(self, now: float, lease_seconds: float) -> bool:
        """Tell whether nothing was heard of it for so long that it is to be read again. One that stands still with good
        reason, as its tasks take hours, is read less and less often."""
        if now - self.moved_at <= self._patience * lease_seconds:
            return False
        self.moved_at, self._patience = now, min(2 * self._patience, MOST_PATIENCE)
        return True

    def came_back_whole(self, entry: RunEvent) -> bool:
        """Tell whether nothing of a batch is left of which tasks came back. A worker that a slow task holds up gives
        back what waits behind it."""
        return set(self.core.held_tasks(entry.batch or "")) <= set(entry.tasks)

    def keeps_coming_back(self, now: float) -> bool:
        """Note that a batch came back; tell whether so many did of late that the run is held back for a while.

        Workers give back what does not fit what they find. Dispatching that again at once would never end.
        """
        self._returned_at.append(now)
        if len(self._returned_at) < MOST_RETURNS or now - self._returned_at[0] > HOLD_SECONDS:
            return False
        self._returned_at.clear()
        self.held_until = now + HOLD_SECONDS
        return True

    def add(self, sealed: bytes, keyring: Keyring) -> list[Action]:
        """Add the tasks of a sealed chunk; one that is known already changes nothing. Raises BadSeal."""
        chunk = SpecChunk.opened(sealed, self.run_id, keyring)
        if chunk.first != self.known:
            return []
        self._chunks.append(hash(sealed))
        numbers = [self._learned.number(name) for name in chunk.functions]
        self.core.durations.load(self._learned.of(numbers))
        tasks = []
        for offset, dependencies in enumerate(chunk.dependencies):
            rules = self._with_queue(chunk.rules_of(offset))
            tasks.append(NewTask(dependencies, rules, numbers[chunk.function_of[offset]]))
            self._dependencies.append(array("I", dependencies) if dependencies else _NO_DEPENDENCIES)
        for offset, rules in chunk.rules.items():
            for name, amount in rules.resources:
                if amount > self.neediest.get(name, (0.0, ""))[0]:
                    self.neediest[name] = (amount, chunk.ids[offset])
        self._digests.extend(bytes(DIGEST_BYTES * len(tasks)))
        return self.core.handle(TasksAdded(chunk.first, tasks))

    def was_made_from(self, specs: Sequence[bytes]) -> bool:
        """Tell whether these chunks begin with those that this run was made from.

        If not, the server fell back and lost additions, in whose place there may be others.
        """
        return [hash(sealed) for sealed in specs[: len(self._chunks)]] == self._chunks

    def adopt(self, tasks: Sequence[int], digests: Sequence[bytes]) -> list[Action]:
        """Take over tasks that were finished when they were added, with the digests of their results."""
        for task, digest in zip(tasks, digests, strict=True):
            self.note_digest(task, digest)
        return self.core.handle(TasksAdopted(tasks))

    def gave_up_too_soon(self, entry: RunEvent) -> bool:
        """Tell whether the entry brings the success of a task that the core has given up.

        The store takes a success from an earlier attempt until the verdict is on record: what the core decided on
        this task and those below it is then void.
        """
        return any(report.ok and self.core.state(report.task) in _GIVEN_UP for report in entry.reports)

    def _with_queue(self, rules: TaskRules) -> TaskRules:
        """Return rules that name their queue; one value per distinct rule, shared by its tasks."""
        known = self._rules.get(rules)
        if known is None:
            queue = rules.queue or self.record.queue
            known = TaskRules(rules.retries, rules.retry_delay, rules.priority, queue, rules.resources)
            self._rules[rules] = known
            self.queues.add(queue)
        return known

    def take_digests(self, digests: bytes) -> None:
        """Take over the digests of all results, 32 bytes a task."""
        self._digests[: len(digests)] = digests

    def note_digest(self, task: int, digest: bytes) -> None:
        """Remember the digest of an accepted result."""
        self._digests[task * DIGEST_BYTES : (task + 1) * DIGEST_BYTES] = digest

    def digest(self, task: int) -> bytes:
        """Return the digest of a task's result, zeros if it has none."""
        return bytes(self._digests[task * DIGEST_BYTES : (task + 1) * DIGEST_BYTES])

    def inputs(self, tasks: Iterable[int]) -> list[int]:
        """Return what these tasks depend on, in order."""
        return sorted({dependency for task in tasks for dependency in self._dependencies[task]})

    def lineage(self, task: int, before: AbstractSet[int]) -> bytes:
        """Return the lineage digest that an attempt must have used; empty if it depends on members `before` it."""
        dependencies = self._dependencies[task]
        if before and not before.isdisjoint(dependencies):
            return b""
        return lineage_digest([self.digest(dependency) for dependency in dependencies])

    def batch(self, batch: str, queue: str, tasks: Sequence[int], attempts: Sequence[int]) -> Batch:
        """Return a batch ready to be dispatched, with the lineage expected of each task."""
        before: set[int] = set()
        lineages = []
        for task in tasks:
            lineages.append(self.lineage(task, before))
            before.add(task)
        return Batch(batch, queue, tasks, attempts, lineages)
