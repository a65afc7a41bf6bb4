"""Runs the tasks of a graph one after the other (BEHAVIOUR S1).

Tasks run in the driver's own process and thread; arguments and results pass by reference. A task runs in a child
process instead if `fork_tasks` asks for it, or if it has a time limit and this is not the main thread, where no timer
could interrupt it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from overnight.base_executor import RunFacts, TaskGraphExecutorBase
from overnight.cache import NO_TASK_CACHE, TaskCache
from overnight.forked import run_in_child
from overnight.graph_run import Finished, Launch
from overnight.invoke import Outcome, attempt, can_interrupt


class SequentialExecutor(TaskGraphExecutorBase):
    """Executes tasks in sequential order: always the first ready one, each pair yielded straight after its task."""

    def __init__(self, task_cache: TaskCache = NO_TASK_CACHE, *, force: bool = False, **kwargs: Any) -> None:
        super().__init__(task_cache, force=force, **kwargs)

    def _open_backend(self, facts: RunFacts) -> InThisThread:
        return InThisThread(facts)


class InThisThread:
    """The backend that runs an attempt while it is waited for."""

    def __init__(self, facts: RunFacts) -> None:
        self._facts = facts
        self._next: Launch | None = None

    def room(self) -> int:
        """Return 1 unless an attempt is waiting."""
        return 0 if self._next else 1

    def start(self, launch: Launch) -> None:
        """Take the attempt that `wait` is to run."""
        self._next = launch

    def wait(self, seconds: float | None) -> Sequence[Finished]:  # noqa: ARG002 - the port's signature
        """Run the attempt. KeyboardInterrupt stops the run: it cannot be told from one of the driver's (B10)."""
        launch, self._next = self._next, None
        return [] if launch is None else [(launch, self._run(launch))]

    def wake(self) -> None:
        """Do nothing: what is waited for is run here."""

    def abandon(self) -> Sequence[Finished]:
        """Return nothing: no attempt outlives its `wait`."""
        self._next = None
        return []

    def _run(self, launch: Launch) -> Outcome:
        facts, timeout = self._facts, launch.desc.options.timeout
        if facts.fork_tasks or (timeout is not None and not can_interrupt()):
            return run_in_child(facts.order(launch))
        return attempt(
            launch.desc.task.task_id,
            launch.desc.func,
            launch.args,
            launch.kwargs,
            timeout=timeout,
            log_dir=facts.log_dir,
            verbosity=facts.verbosity,
            run_id=facts.run_id,
            attempt=launch.attempt,
            passing=(KeyboardInterrupt,),
        )
