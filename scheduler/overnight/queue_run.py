"""One run on a queue as its client sees it: put in place, followed, added to, proven, put in place again if lost.

What has finished is known by the journal alone: a task that is in it is never yielded again, whatever Redis tells.
What the follower tells is kept until it has been fetched and each dependency has been yielded; so the outages and
losses between two steps cost time and no pair. If Redis forgets the run, flags (without them: the results in the
journal) are adopted by a new run under the same key, and what failed stays failed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from overnight.arguments import substitute_known
from overnight.audit import Audit
from overnight.cache import TaskCache
from overnight.core.states import RunPhase, TaskState
from overnight.deployment import Deployment
from overnight.errors import AddedMeanwhile, RunCancelled, UnknownRun, Unreachable
from overnight.following import Follower, endured, lacking_words
from overnight.garbage import uncollected
from overnight.graph import Task, TaskDesc
from overnight.graph_order import dependencies_first
from overnight.joining import Joining
from overnight.journal import Settled
from overnight.launch import (
    Launched,
    check_resources,
    launch,
    put_in_place,
    submission_of,
)
from overnight.preparation import Preparation
from overnight.queue_journal import QueueJournal
from overnight.queue_outcomes import Fetched, QueueOutcomes
from overnight.queue_stopping import TEARDOWN_SECONDS, drain, stopped_if_interrupted
from overnight.recovered import recovered_results
from overnight.run_key import RunOptions, graph_key
from overnight.store.records import Request
from overnight.submission import Submission
from overnight.worker_watch import GraphQueues, WorkerWatch

_logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 0.5
_ENDED = frozenset({TaskState.DONE, TaskState.CACHED, TaskState.FAILED})

Answer = TypeVar("Answer")


class QueueRun:
    """A run whose tasks are those of the journal's graph, from its launch until `leave`."""

    def __init__(
        self, deployment: Deployment, cache: TaskCache, journal: QueueJournal, options: RunOptions, *, force: bool
    ) -> None:
        self._deployment = deployment
        self._store = deployment.store
        self._cache = cache
        self._journal = journal
        self._options = options
        self._force = force
        self._key = graph_key(journal.descs, options)
        self._descs = {desc.task: desc for desc in journal.descs}
        self._rank: dict[Task, int] = {}
        self._joining = Joining(journal.graph, journal, journal.additions)
        self._own_runs: list[str] = []
        self._told: dict[int, TaskState] = {}
        self._over: RunPhase | None = None
        #: What had ended was found lost at the last look: it ends once more, perhaps before anybody looks again.
        self._runs_again = False

    def launch(self, preparation: Preparation) -> None:
        """Put the run in place, or attach to it. Raises what `launch.launch` does."""
        self._order(self._journal.descs)
        with stopped_if_interrupted(self._store, self._key):
            launched = launch(
                self._store,
                self._journal.descs,
                preparation.decisions,
                self._cache,
                self._options,
                self._deployment.settings,
                self._deployment.keyring,
                key=self._key,
            )
        self._enter(launched)
        if launched.attached:
            _logger.info("attached to run %s, which this command started before", self._run_id)

    def pairs(self) -> Iterator[tuple[Task, Any]]:
        """Yield each task that ended with its result, until the run is over and its results are proven.

        Raises RunCancelled if somebody cancels it, BlockedTasks if tasks wait for one that was never added.
        """
        while True:
            try:
                yield from self._until_over()
                if self._over is RunPhase.CANCELLED:
                    raise RunCancelled(self._run_id)
                if self._take_additions() or self._runs_again or not self._endure(self._is_still_over):
                    continue
                if self._endure(self._audit.run).over:
                    break
            except UnknownRun:
                if self._journal.blame.keys() >= self._descs.keys():
                    break  # all that there was has failed or was skipped
                self._launch_again()
        if self._joining.outside:
            raise self._joining.blocked()

    def drain(self) -> None:
        """Let nothing new start, and give what runs the time that an interrupt leaves it (QX7)."""
        if self._over is None:
            drain(self._store, self._run_id)

    def leave(self) -> None:
        """Cancel the run unless it is over, and wait until nothing of it runs."""
        if self._over is not None:
            return
        try:
            self._store.request(self._run_id, Request.CANCEL)
            deadline = time.monotonic() + TEARDOWN_SECONDS
            for changed in Follower(self._store, self._run_id).changes(0.1):
                self._note(changed.tasks)
                self._journal.settle(self._fetch())  # recorded, though nobody sees them (B7)
                if changed.over is not None or time.monotonic() >= deadline:
                    return
        except UnknownRun:
            _logger.info("run %s is gone from Redis", self._run_id)
        except Unreachable as error:
            _logger.warning("run %s was not stopped: %s", self._run_id, error)

    # In place.

    @property
    def _run_id(self) -> str:
        return self._journal.run_id

    def _enter(self, launched: Launched) -> None:
        """Follow this run from now on."""
        deployment = self._deployment
        run_id = self._journal.run_id = launched.run.run_id
        self._own_runs.append(run_id)
        self._submission: Submission = launched.submission
        self._follower = Follower(self._store, run_id, placed=lambda run: self._submission.is_in(run, self._store))
        queues = GraphQueues(self._journal.graph, self._options.queue)
        self._watch = WorkerWatch(self._store, run_id, queues, deployment.settings)
        self._outcomes = outcomes = QueueOutcomes(self._store, run_id, deployment.keyring)
        self._audit = Audit(self._store, run_id, deployment.keyring, self._options.status_dir, seen=outcomes.seen)
        self._told.clear()
        self._over = None

    def _launch_again(self) -> None:
        """Make a run of all tasks that have not failed: what the journal knows as failed stays so."""
        _logger.warning("Redis no longer knows run %s: what is recorded as finished is kept", self._run_id)
        deployment, journal = self._deployment, self._journal
        descs = [desc for task, desc in self._descs.items() if task not in journal.blame]
        only_of = self._own_runs if self._force else None

        def again() -> Launched:
            return put_in_place(
                self._store,
                descs,
                lambda: recovered_results(descs, journal, self._cache, only_of),
                self._key,
                self._options,
                deployment.settings,
                deployment.keyring,
            )

        with stopped_if_interrupted(self._store, self._key):
            launched = self._endure(again)
        self._enter(launched)
        _logger.warning("it goes on as run %s", self._run_id)

    def _is_still_over(self) -> bool:
        return self._store.run(self._run_id).phase.is_over

    def _endure(self, action: Callable[[], Answer]) -> Answer:
        return endured(action, self._deployment.check)

    # Additions.

    def _take_additions(self) -> bool:
        """Send tasks that may join to the run; tell whether there were any."""
        joining = self._joining.take(self._descs)
        if not joining:
            return False
        descs = [self._as_things_stand(task) for task in joining]
        check_resources(descs, self._options)
        self._order(descs)
        self._descs.update((desc.task, desc) for desc in descs)
        self._journal.graph.mark_completed(
            {dep for desc in descs for dep in desc.deps if self._journal.is_done(dep)},
        )
        self._endure(self._send)
        return True

    def _as_things_stand(self, task: Task) -> TaskDesc:
        """Return a desc that holds what the graph held before the run; what the run computes goes by reference."""
        desc, held = self._journal.graph.get_declared(task)
        args, kwargs = substitute_known(desc.args, desc.kwargs, {dep.task_id: value for dep, value in held.items()})
        return replace(desc, args=args, kwargs=kwargs, deps=[dep for dep in desc.deps if dep not in held])

    def _send(self) -> None:
        """Add what the run does not hold yet. If that fails, or another client was faster, what it holds is read."""
        index, blame = self._submission.index, self._journal.blame
        try:
            self._submission.add([d for task, d in self._descs.items() if task not in index and task not in blame])
        except (AddedMeanwhile, Unreachable) as error:
            self._submission = submission_of(self._store, self._run_id, self._deployment.keyring)
            if isinstance(error, Unreachable):
                raise
            self._send()

    def _order(self, descs: Sequence[TaskDesc]) -> None:
        """Rank tasks so that each comes after its dependencies."""
        for task in dependencies_first(descs):
            self._rank[task] = len(self._rank)

    # Pairs.

    def _until_over(self) -> Iterator[tuple[Task, Any]]:
        self._over, self._runs_again = None, False
        for changed in self._follower.changes(PATIENCE_SECONDS):
            self._deployment.check()
            with suppress(Unreachable):
                self._watch.look()
            self._note(changed.tasks)
            if changed.lacking:
                _logger.warning("run %s: %s", self._run_id, lacking_words(len(changed.lacking)))
            settled = self._endure(self._fetch)
            yield from self._journal.settle(settled)
            index = self._submission.index
            self._audit.look_ahead({index[one.desc.task]: one.desc.task.task_id for one in settled if one.outcome.ok})
            has_more = self._take_additions()
            self._over = changed.over
            self._runs_again = self._runs_again or (has_more and changed.over is not None)

    def _note(self, changes: Sequence[tuple[int, TaskState]]) -> None:
        for number, state in changes:
            if state in _ENDED:
                self._told[number] = state
            else:
                self._told.pop(number, None)
                self._audit.forget(number)

    @uncollected()
    def _fetch(self) -> list[Settled]:
        """Return the tasks that have ended and may be yielded now, dependencies first."""
        self._mend_overtaken()
        due = self._due()
        ids = {number: desc.task.task_id for number, desc in due.items()}
        failed = {number: task_id for number, task_id in ids.items() if self._told[number] is TaskState.FAILED}
        found: dict[int, Fetched] = self._outcomes.failures(failed)
        found.update(self._outcomes.successes({n: task_id for n, task_id in ids.items() if n not in failed}))
        for number in due:
            del self._told[number]
        self._run_again(due.keys() - found.keys())
        return [
            Settled(desc, found[number].attempt, found[number].outcome, found[number].load)
            for number, desc in due.items()
            if number in found
        ]

    def _run_again(self, tasks: Collection[int]) -> None:
        self._follower.forget(tasks)
        self._runs_again = self._runs_again or bool(tasks)

    def _mend_overtaken(self) -> None:
        """Let run again what is told to have failed and was yielded as done, as its inputs had been lost by then."""
        tasks, told = self._submission.tasks, self._told.items()
        failed = [number for number, state in told if state is TaskState.FAILED and number < len(tasks)]
        overtaken = [number for number in failed if self._journal.is_done(tasks[number])]
        again = self._outcomes.overtaken(overtaken)
        self._run_again(again)
        for number in set(overtaken).difference(again):
            self._journal.take_back(tasks[number])

    def _due(self) -> dict[int, TaskDesc]:
        """Return the told tasks of this graph whose dependencies have been, or are then, yielded, by rank."""
        tasks, journal = self._submission.tasks, self._journal
        mine = [number for number in self._told if number < len(tasks) and tasks[number] in self._descs]
        due: dict[int, TaskDesc] = {}
        chosen: set[Task] = set()
        for number in sorted(mine, key=lambda number: self._rank[tasks[number]]):
            desc = self._descs[tasks[number]]
            if desc.task in journal:
                del self._told[number]
            elif all(dep in journal or dep in chosen or dep not in self._descs for dep in desc.deps):
                due[number] = desc
                chosen.add(desc.task)
        return due
