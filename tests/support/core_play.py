"""Short words for transcripts of the core: build a run, offer, and read the actions."""

from __future__ import annotations

from collections.abc import Sequence

from overnight.core.actions import Action, Dispatch, Ended
from overnight.core.events import Event, NewTask, Offer, SlotsOffered, TaskRules, TasksAdded
from overnight.core.invariants import check
from overnight.core.run_state import RunState
from overnight.core.states import TaskState


class Play:
    """A run whose every event is followed by a check of the invariants."""

    def __init__(
        self,
        *dependencies: Sequence[int],
        rules: dict[int, TaskRules] | None = None,
        limits: dict[str, float] | None = None,
        fail_fast: bool = False,
    ) -> None:
        self.run = RunState(fail_fast=fail_fast, resource_limits=limits)
        self.batches = 0
        self.first_actions = self.add(*dependencies, rules=rules)

    def add(self, *dependencies: Sequence[int], rules: dict[int, TaskRules] | None = None) -> list[Action]:
        known, given = len(self.run), rules or {}
        tasks = [NewTask(d, given.get(known + i, TaskRules())) for i, d in enumerate(dependencies)]
        return self.tell(TasksAdded(known, tasks))

    def tell(self, event: Event) -> list[Action]:
        actions = self.run.handle(event)
        check(self.run)
        return actions

    def offer(
        self, number: int = 1, *, now: float = 0.0, queue: str | None = None, most: int = 1, seconds: float = 0.0
    ) -> list[Dispatch]:
        """Offer room for batches `b1`, `b2`, ... and return what is dispatched."""
        offers = []
        for _ in range(number):
            self.batches += 1
            offers.append(Offer(f"b{self.batches}", queue, most, seconds))
        return [action for action in self.tell(SlotsOffered(now, offers)) if isinstance(action, Dispatch)]

    def sent(self, number: int = 1, **offer: object) -> list[list[int]]:
        """Return the tasks of the batches that are dispatched."""
        return [list(dispatch.tasks) for dispatch in self.offer(number, **offer)]  # type: ignore[arg-type]  # passed on

    def names(self) -> list[str]:
        return [self.run.state(task).name.lower() for task in range(len(self.run))]


def ended(actions: Sequence[Action]) -> dict[int, TaskState]:
    """Return the tasks that became terminal, with their states."""
    return {action.task: action.state for action in actions if isinstance(action, Ended)}
