"""The table of tasks: state, attempt, charge and cause of each, and the counts per state.

A million tasks are two bytearrays; only tasks that failed, were lost or were skipped have an entry of their own.
Every change of a state passes `TaskTable.move`, which knows the transitions of `states.TRANSITIONS` and no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from overnight.core.events import Charge
from overnight.core.states import SUCCEEDED, TERMINAL, TRANSITIONS, TaskState
from overnight.errors import GraphError, InvariantBroken

# The codes as plain integers: comparing and storing these is several times as fast as members of the enumeration.
PENDING: Final = int(TaskState.PENDING)
QUEUED: Final = int(TaskState.QUEUED)
RUNNING: Final = int(TaskState.RUNNING)
TRIED: Final = int(TaskState.TRIED)
DONE: Final = int(TaskState.DONE)
CACHED: Final = int(TaskState.CACHED)
FAILED: Final = int(TaskState.FAILED)
SKIPPED: Final = int(TaskState.SKIPPED)
CANCELLED: Final = int(TaskState.CANCELLED)

#: Indexed by code: 1 if a task in this state has its result / can never have one without a retry / is terminal.
HAS_RESULT: Final = bytes(code in SUCCEEDED for code in range(256))
IS_DEAD: Final = bytes(code in TERMINAL - SUCCEEDED for code in range(256))
IS_TERMINAL: Final = bytes(code in TERMINAL for code in range(256))

#: The number of an attempt is one byte; a task that is dispatched more often stays at this number.
HIGHEST_ATTEMPT: Final = 255

NO_CHARGE: Final = Charge()
_ALLOWED: Final = frozenset(old << 8 | new for old, new in TRANSITIONS)
_CODES: Final = bytes(TaskState)


class TaskTable:
    """State and attempt of every task by index. `failures` orders the failed tasks by the time of their verdict."""

    def __init__(self) -> None:
        self.states = bytearray()
        self.attempts = bytearray()
        self.charges: dict[int, Charge] = {}
        self.causes: dict[int, int] = {}
        self.failures: dict[int, int] = {}
        self.counts = [0] * 256
        self._verdicts = 0

    def __len__(self) -> int:
        return len(self.states)

    @property
    def live(self) -> int:
        """How many tasks are not terminal."""
        counts = self.counts
        return counts[PENDING] + counts[QUEUED] + counts[RUNNING] + counts[TRIED]

    @property
    def dead(self) -> int:
        """How many tasks failed, were skipped or were cancelled."""
        counts = self.counts
        return counts[FAILED] + counts[SKIPPED] + counts[CANCELLED]

    def counts_by_state(self) -> Mapping[TaskState, int]:
        """Return how many tasks are in each state."""
        return {state: self.counts[state] for state in TaskState}

    def add(self, number: int) -> None:
        """Append `number` tasks, all PENDING and never tried."""
        self.states.extend(bytes((PENDING,)) * number)
        self.attempts.extend(bytes(number))
        self.counts[PENDING] += number

    def move(self, task: int, new: int) -> None:
        """Bring a task into state `new`.

        Raises:
            InvariantBroken: the table of transitions has no such step.
        """
        old = self.states[task]
        if old << 8 | new not in _ALLOWED:
            raise InvariantBroken(f"task {task} cannot go from {TaskState(old).name} to {TaskState(new).name}")
        self.states[task] = new
        counts = self.counts
        counts[old] -= 1
        counts[new] += 1

    def next_attempt(self, task: int) -> int:
        """Count a dispatch of the task; return the number of its attempt."""
        number = self.attempts[task]
        if number < HIGHEST_ATTEMPT:
            number += 1
            self.attempts[task] = number
        return number

    def charge(self, task: int) -> Charge:
        """Return what the task has used up."""
        return self.charges.get(task, NO_CHARGE)

    def set_charge(self, task: int, charge: Charge) -> None:
        """Record what the task has used up."""
        if charge == NO_CHARGE:
            self.charges.pop(task, None)
        else:
            self.charges[task] = charge

    def note_failure(self, task: int) -> None:
        """Record that the task failed later than all that failed so far."""
        self._verdicts += 1
        self.failures[task] = self._verdicts

    def forgive(self, task: int) -> None:
        """Clear what is recorded of former failures, losses and causes of the task."""
        self.charges.pop(task, None)
        self.causes.pop(task, None)
        self.failures.pop(task, None)

    def load(self, stored: bytes, charges: Mapping[int, Charge]) -> None:
        """Take over states and attempts as read, two bytes a task, with the charges; forget causes and failures.

        Raises:
            GraphError: the text has another length than two bytes a task, or holds an unknown state.
        """
        states, attempts = stored[0::2], stored[1::2]
        if len(stored) != 2 * len(self.states):
            raise GraphError(f"The state of {len(self)} tasks is {2 * len(self)} bytes; {len(stored)} were read.")
        if unknown := states.translate(None, _CODES):
            raise GraphError(f"The state that was read holds {unknown[:1]!r}, which stands for no state of a task.")
        self.states[:] = states
        self.attempts[:] = attempts
        self.counts = [0] * 256
        for code in _CODES:
            self.counts[code] = states.count(code)
        known = len(self)
        self.charges = {task: c for task, c in charges.items() if 0 <= task < known and c != NO_CHARGE}
        self.causes.clear()
        self.failures.clear()
