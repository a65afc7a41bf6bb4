"""A result that was recorded is lost or damaged: it is computed again, and with it all that was computed from it.

Who finds that out is the worker of a task that needs it. That is no failure of the task: it waits for its input once
more and is charged nothing. What was recorded of the others is forgotten (`Repair`), so that nobody computes from a
mixture of attempts. A result that is lost again and again is computed again `MOST_REPAIRS` times, as there may be no
place that this worker can read; from then on the failure is the task's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from overnight.core.actions import Repair
from overnight.core.events import Charge
from overnight.core.lifecycle import Lifecycle
from overnight.core.reopening import reopen_all
from overnight.core.retry import after_failure, after_return, may_repeat
from overnight.core.tasks import FAILED, HAS_RESULT, IS_DEAD

#: A disk that flips a bit or a server that evicts a key strikes one result once, a bad disk perhaps a second time. One
#: that is lost a fourth time lies where its readers cannot see it, and computing it may take hours each time.
MOST_REPAIRS: Final = 3


def judge(
    life: Lifecycle, task: int, lost: Sequence[int] | None, *, jitter: float = 1.0, hopeless: bool = False
) -> None:
    """Give the verdict on a TRIED task, which no batch holds any more: it is to run again, or has failed.

    `lost` are the dependencies that it lacked, None if it failed otherwise; none, if these have been invalidated since.
    Those that have no result by now are computed again already.
    """
    charge = life.table.charge(task)
    needed = _needed(life, task, lost) if lost else []
    gone = [dependency for dependency in needed if HAS_RESULT[life.table.states[dependency]]]
    lacked = next((dependency for dependency in gone if life.repairs.get(dependency, 0) >= MOST_REPAIRS), None)
    if lost is None or lacked is not None or (lost and not needed):
        charge = after_failure(charge, life.rulebook.rules(task), life.now, jitter)
        _judge_failure(life, task, charge, hopeless=hopeless, lacked=lacked)
        return
    if gone and not life.stopping:
        _repair(life, gone)
    life.try_again(task, after_return(charge))


def _needed(life: Lifecycle, task: int, lost: Sequence[int]) -> list[int]:
    among = set(lost)
    return [dependency for dependency in dict.fromkeys(life.edges.dependencies(task)) if dependency in among]


def _judge_failure(life: Lifecycle, task: int, charge: Charge, *, hopeless: bool, lacked: int | None) -> None:
    if may_repeat(charge, life.rulebook.rules(task), hopeless=hopeless):
        life.try_again(task, charge)
    else:
        life.table.set_charge(task, charge)
        life.end(task, FAILED, lacked=lacked)


def _repair(life: Lifecycle, gone: Sequence[int]) -> None:
    """Forget the results that are gone and all that was computed from them.

    What is in flight below them is named too, and so is what was: no success of theirs is to be accepted any more.
    """
    states, attempts = life.table.states, life.table.attempts
    below = list(_dependants_first(life, gone))
    finished = [task for task in below if HAS_RESULT[states[task]]]
    concerned = [task for task in below if HAS_RESULT[states[task]] or (attempts[task] and not IS_DEAD[states[task]])]
    for task in gone:
        life.repairs[task] = life.repairs.get(task, 0) + 1
    life.actions.append(Repair(tuple(gone), tuple(concerned)))
    reopen_all(life, finished)


def _dependants_first(life: Lifecycle, tasks: Sequence[int]) -> Iterator[int]:
    """Yield the tasks and all that depend on them, each after those that depend on it."""
    seen: set[int] = set()
    stack = [(task, False) for task in tasks]
    while stack:
        task, is_walked = stack.pop()
        if is_walked:
            yield task
        elif task not in seen:
            seen.add(task)
            stack.append((task, True))
            stack.extend((dependant, False) for dependant in life.edges.dependants(task) if dependant not in seen)
