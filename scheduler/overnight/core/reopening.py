"""Terminal tasks run again: on request after a failure or a cancel, and when results are gone.

What is reopened is closed under need: a task that shall run again takes with it the dependencies that died, without
which it could not, and everything that was skipped for it. Everything is reopened first and settled then, so that a
task never meets a half-reopened neighbourhood.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from overnight.core.lifecycle import Lifecycle
from overnight.core.tasks import HAS_RESULT, IS_DEAD, PENDING, SKIPPED


def retry(life: Lifecycle, tasks: Sequence[int]) -> None:
    """Reopen failed, skipped or cancelled tasks, all of them if `tasks` is empty; the run is no longer stopped, and
    what was lost too often may be computed again."""
    states = life.table.states
    wanted = tasks or range(len(states))
    chosen = [task for task in known(life, wanted) if IS_DEAD[states[task]]]
    if tasks and not chosen:
        return
    life.cancelling = life.failing = False
    life.repairs.clear()
    needed = _closure(chosen, life.edges.dependencies, lambda task: bool(IS_DEAD[states[task]]))
    reopen_all(life, _closure(needed, life.edges.dependants, lambda task: states[task] == SKIPPED))


def invalidate(life: Lifecycle, tasks: Sequence[int]) -> None:
    """Reopen finished tasks whose results are gone, and all their finished descendants."""
    states = life.table.states
    gone = [task for task in known(life, tasks) if HAS_RESULT[states[task]]]
    below = _closure(gone, life.edges.dependants, lambda _: True)
    reopen_all(life, [task for task in below if HAS_RESULT[states[task]]])


def known(life: Lifecycle, tasks: Iterable[int]) -> list[int]:
    """Return the tasks that the run holds, each once, in the given order."""
    return [task for task in dict.fromkeys(tasks) if 0 <= task < len(life.table)]


def _closure(
    tasks: Iterable[int], neighbours: Callable[[int], Sequence[int]], belongs: Callable[[int], bool]
) -> list[int]:
    """Return the tasks and all that is reached from them through tasks that belong."""
    found = list(dict.fromkeys(tasks))
    seen = set(found)
    for task in found:  # grows while it is walked
        for neighbour in neighbours(task):
            if neighbour not in seen and belongs(neighbour):
                seen.add(neighbour)
                found.append(neighbour)
    return found


def reopen_all(life: Lifecycle, tasks: Sequence[int]) -> None:
    """Make terminal tasks PENDING, and settle them when all are."""
    for task in tasks:
        life.reopen(task)
    for task in tasks:
        if life.table.states[task] == PENDING:
            life.settle(task)
