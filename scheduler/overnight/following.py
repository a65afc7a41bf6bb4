"""Follow a run: which tasks became terminal, in an order in which dependencies come first.

Events are hints. The follower remembers the state of every task (one byte each); after a gap, a reconnect or silence it
reads the state string and tells what it had missed. An outage of any length is waited for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from overnight import failpoints
from overnight.core.states import TERMINAL, RunPhase, TaskState
from overnight.errors import DamagedRun, UnknownRun, Unreachable, remedy
from overnight.store.ports import ReadingStore
from overnight.store.records import Happening, Request, RunEvent, RunRecord

_logger = logging.getLogger(__name__)

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0
#: Without an event for so long the state itself is read; as often a client compares what it has put in place.
SILENCE_SECONDS = 5.0
Answer = TypeVar("Answer")

#: An event of a task beyond this is none of overnight's: nobody is to keep room for what it names.
MOST_TASKS = 1 << 24
_STATES = {int(state): state for state in TaskState}


@dataclass(frozen=True, slots=True)
class Changed:
    """What a look at the run brought: tasks that reached a new state, and the phase if the run is over. `lacking` are
    those that did not run for want of a result which is lost; the scheduler has that computed again."""

    tasks: Sequence[tuple[int, TaskState]]
    over: RunPhase | None = None
    lacking: Sequence[int] = ()


class Follower:
    """Follows one run from its beginning. `stop` ends any waiting.

    `placed` tells whether the run holds what its client has put in place: a rollback may have lost it.
    """

    def __init__(
        self,
        store: ReadingStore,
        run_id: str,
        stop: threading.Event | None = None,
        *,
        placed: Callable[[RunRecord], bool] | None = None,
    ) -> None:
        self._store = store
        self._placed = placed
        self._run_id = run_id
        self._stop = stop or threading.Event()
        self._cursor = "0"
        self._states = bytearray()
        self._heard_at = float("-inf")
        self._compared_at = float("-inf")
        self._pause = 0.0
        #: What was noted and not yet yielded, should the server go away while it is being read.
        self._untold: list[tuple[int, TaskState]] = []

    def state(self, task: int) -> TaskState:
        """Return the state of a task as last heard."""
        return TaskState(self._states[task]) if task < len(self._states) else TaskState.PENDING

    def changes(self, patience: float = 1.0) -> Iterator[Changed]:
        """Yield what changes, at least every `patience` seconds (then possibly nothing), until the run is over.

        Raises UnknownRun if Redis no longer knows the run, or not all of it. After the end it may be called again: a
        run that got more tasks goes on.
        """
        while not self._stop.is_set():
            changed = self._look(patience)
            yield changed
            if changed.over is not None:
                return

    def _look(self, patience: float) -> Changed:
        try:
            failpoints.reach("client.while_following")
            changed = self._digest(self._store.follow(self._run_id, self._cursor, patience))
        except Unreachable as error:
            self._endure(error)
            return Changed(())
        if self._pause:
            _logger.warning("Redis is back")
            self._pause = 0.0
        return changed

    def _endure(self, error: Unreachable) -> None:
        """Pause before the next look at a server that is away; the first look after that reads the state."""
        if not self._pause:
            if isinstance(error, DamagedRun):
                _logger.warning("The run cannot be followed: %s %s", error, remedy(error))
            else:
                _logger.warning("Redis cannot be used; the run goes on when it is back: %s", error)
        self._pause = min(2 * self._pause, LONGEST_PAUSE) or FIRST_PAUSE
        self._heard_at = float("-inf")
        self._stop.wait(self._pause)

    def _digest(self, events: Sequence[RunEvent]) -> Changed:
        over: RunPhase | None = None
        look_at_state = not events and time.monotonic() - self._heard_at > SILENCE_SECONDS
        for event in events:
            self._cursor = event.cursor
            look_at_state = look_at_state or event.what is Happening.GAP
            over = event.phase if event.what is Happening.ENDED else over
            self._untold += self._told(event)
        if look_at_state or over is not None:
            # Before the states: those of a run that ended in between would be taken for final. And not the event's:
            # more tasks, or lost results, may have reopened the run.
            over = self._phase_if_over()
            self._untold += self._missed()
        elif self._placed is not None and time.monotonic() - self._compared_at > SILENCE_SECONDS:
            self._phase_if_over()
        if events or look_at_state:
            self._heard_at = time.monotonic()
        tasks, self._untold = self._untold, []
        lacking = [report.task for event in events for report in event.reports if report.lost]
        return Changed(tasks, over, lacking)

    def _told(self, event: RunEvent) -> list[tuple[int, TaskState]]:
        match event.what:
            case Happening.COMMITTED:
                told = [(report.task, TaskState.DONE if report.ok else TaskState.TRIED) for report in event.reports]
            case Happening.SETTLED:
                told = [(task, state) for task, state, _cause in event.verdicts]
            case Happening.CLAIMED:
                told = [(task, TaskState.RUNNING) for task in event.tasks]
            case Happening.RETURNED | Happening.REAPED | Happening.INVALIDATED:
                told = [(task, TaskState.PENDING) for task in event.tasks]
            case Happening.REQUESTED if event.request is Request.RETRY:
                told = [(task, TaskState.PENDING) for task in event.tasks]
            case Happening.ADDED:
                told = [(task, TaskState.CACHED) for task in event.tasks]
            case _:
                told = []
        return [change for change in told if self._note(*change)]

    def _missed(self) -> list[tuple[int, TaskState]]:
        """Read the state string; return what no event has told. In index order: dependencies have lower indices
        unless tasks were added by hand before their dependencies, so consumers order by dependency themselves. A code
        that stands for no state tells nothing: the scheduler tells people of it, and the run can still be cancelled."""
        codes = self._store.states(self._run_id)[::2]
        changes = []
        for task, code in enumerate(codes):
            state = _STATES.get(code)
            if state is not None and self._note(task, state):
                changes.append((task, state))
        return changes

    def _note(self, task: int, state: TaskState) -> bool:
        """Remember a state; False if it is known already, or if no run holds such a task."""
        if task >= MOST_TASKS:
            return False
        if task >= len(self._states):
            self._states.extend(bytes([TaskState.PENDING]) * (task + 1 - len(self._states)))
        if self._states[task] == state:
            return False
        self._states[task] = state
        return True

    def _phase_if_over(self) -> RunPhase | None:
        """Read the run. Raises UnknownRun if it does not hold what was put in place."""
        run = self._store.run(self._run_id)
        self._compared_at = time.monotonic()
        if self._placed is not None and (run.phase is RunPhase.SUBMITTING or not self._placed(run)):
            raise UnknownRun(f"The server has lost tasks that had been added to run {self._run_id}.")
        return run.phase if run.phase.is_over else None

    def forget(self, tasks: Iterable[int]) -> None:
        """Take these tasks for unfinished: whoever found their results lost waits for them to end again, of which
        nothing would be told if the word of their invalidation were lost."""
        for task in tasks:
            self._note(task, TaskState.PENDING)

    def counts(self) -> dict[TaskState, int]:
        """Return how many tasks are in each state as last heard."""
        return {state: self._states.count(state) for state in TaskState if state in self._states}

    def is_terminal(self, task: int) -> bool:
        """Tell whether nothing more happens to the task by itself."""
        return self.state(task) in TERMINAL


def lacking_words(number: int) -> str:
    """Return how people are told that so many tasks lacked a result."""
    who = "1 task" if number == 1 else f"{number} tasks"
    return f"{who} lacked a result that is lost; it is computed again."


def endured(action: Callable[[], Answer], between: Callable[[], None]) -> Answer:
    """Repeat a step that may be repeated until the server can be used: an outage ends no run. `between` is called
    after each time that it could not be."""
    pause = 0.0
    while True:
        try:
            return action()
        except Unreachable as error:
            if not pause:
                _logger.warning("Redis cannot be used; the run goes on when it is back: %s", error)
            pause = min(2 * pause, LONGEST_PAUSE) or FIRST_PAUSE
            time.sleep(pause)
            between()
