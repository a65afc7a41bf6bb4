"""The structure of a run as its sealed chunks tell it: ids, functions and dependencies of its tasks, by index."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence

from overnight.core.events import TaskRules
from overnight.core.states import SUCCEEDED, TERMINAL, TaskState
from overnight.errors import UnknownTask, nearest
from overnight.keyring import Keyring
from overnight.messages import SpecChunk

_TERMINAL = frozenset(int(state) for state in TERMINAL)
_HAS_RESULT = frozenset(int(state) for state in SUCCEEDED)
_WAITING = frozenset({int(TaskState.PENDING), int(TaskState.QUEUED), int(TaskState.TRIED)})


class Structure:
    """The tasks of one run. Raises BadSeal where a chunk cannot be believed."""

    def __init__(self, run_id: str, sealed: Iterable[bytes], keyring: Keyring) -> None:
        self._chunks = [SpecChunk.opened(record, run_id, keyring) for record in sealed]
        self._firsts = [chunk.first for chunk in self._chunks]
        self._indices: dict[str, int] | None = None

    def __len__(self) -> int:
        return self._firsts[-1] + len(self._chunks[-1].ids) if self._chunks else 0

    def holds(self, total: int) -> bool:
        """Tell whether the chunks name so many tasks: a server may have lost some."""
        return sum(len(chunk.ids) for chunk in self._chunks) >= total

    def ids(self) -> Iterator[str]:
        """Yield all task ids in index order."""
        for chunk in self._chunks:
            yield from chunk.ids

    def rows(self) -> Iterator[tuple[str, Sequence[int]]]:
        """Yield function and dependencies of all tasks in index order."""
        for chunk in self._chunks:
            for function, dependencies in zip(chunk.function_of, chunk.dependencies, strict=True):
                yield chunk.functions[function], dependencies

    def task_id(self, task: int) -> str:
        """Return the id of a task."""
        chunk, offset = self._place(task)
        return chunk.ids[offset]

    def function(self, task: int) -> str:
        """Return the name of a task's function."""
        chunk, offset = self._place(task)
        return chunk.functions[chunk.function_of[offset]]

    def dependencies(self, task: int) -> Sequence[int]:
        """Return a task's dependencies in declared order."""
        chunk, offset = self._place(task)
        return chunk.dependencies[offset]

    def rules(self, task: int) -> TaskRules:
        """Return the rules of a task."""
        chunk, offset = self._place(task)
        return chunk.rules_of(offset)

    def neediest(self, name: str) -> tuple[float, str]:
        """Return the most that a task needs of a resource, and the id of the first such task; 0 if none needs it."""
        most, found = 0.0, ""
        for chunk in self._chunks:
            for offset, rules in chunk.rules.items():
                for resource, amount in rules.resources:
                    if resource == name and amount > most:
                        most, found = amount, chunk.ids[offset]
        return most, found

    def reason(self, task: int) -> str | None:
        """Return why a task had to run when the run began, None if it was there already or that is not recorded."""
        chunk, offset = self._place(task)
        return chunk.reasons.get(offset)

    def queues(self, default: str, codes: bytes) -> set[str]:
        """Return the queues of those tasks that are not terminal; `codes` is one state a task."""
        waiting = {task for task, code in enumerate(codes) if code not in _TERMINAL}
        found = set()
        for chunk in self._chunks:
            for offset, rules in chunk.rules.items():
                if rules.queue and chunk.first + offset in waiting:
                    found.add(rules.queue)
                    waiting.discard(chunk.first + offset)
        return found | {default} if waiting else found

    def named_queues(self, default: str) -> set[str]:
        """Return the queues of all tasks, whatever their state."""
        found = {rules.queue or default for chunk in self._chunks for rules in chunk.rules.values()}
        return found | {default} if any(len(chunk.rules) < len(chunk.ids) for chunk in self._chunks) else found

    def waits_on(self, queue: str, default: str, codes: bytes) -> bool:
        """Tell whether a task of a queue has all that it needs and no worker holds it; `codes` is one state a task."""

        def is_there(dependency: int) -> bool:
            return dependency < len(codes) and codes[dependency] in _HAS_RESULT

        for chunk in self._chunks:
            for offset, code in enumerate(codes[chunk.first : chunk.first + len(chunk.ids)]):
                if code not in _WAITING or (chunk.rules_of(offset).queue or default) != queue:
                    continue
                if all(map(is_there, chunk.dependencies[offset])):
                    return True
        return False

    def index(self, task_id: str) -> int:
        """Return the index of the task with an id; UnknownTask names the nearest known one."""
        if self._indices is None:
            self._indices = {known: number for number, known in enumerate(self.ids())}
        found = self._indices.get(task_id)
        if found is None:
            raise UnknownTask(f"The run has no task {task_id!r}{nearest(task_id, list(self._indices))}")
        return found

    def order(self) -> list[int]:
        """Return all tasks, dependencies first; a task stands before those with higher indices wherever it can."""
        placed: set[int] = set()
        order: list[int] = []
        for root in range(len(self)):
            stack = [root]
            while stack:
                task = stack[-1]
                missing = [one for one in self.dependencies(task) if one not in placed] if task not in placed else []
                if missing:
                    stack += reversed(missing)
                    continue
                stack.pop()
                if task not in placed:
                    placed.add(task)
                    order.append(task)
        return order

    def with_descendants(self, tasks: Iterable[int]) -> list[int]:
        """Return `tasks` and all their transitive dependants, in index order."""
        dependants: dict[int, list[int]] = {}
        for task in range(len(self)):
            for dependency in self.dependencies(task):
                dependants.setdefault(dependency, []).append(task)
        found = set(tasks)
        stack = list(found)
        while stack:
            for dependant in dependants.get(stack.pop(), ()):
                if dependant not in found:
                    found.add(dependant)
                    stack.append(dependant)
        return sorted(found)

    def with_ancestors(self, tasks: Iterable[int], belongs: Callable[[int], bool]) -> list[int]:
        """Return `tasks` and all that they are reached from through dependencies that belong, in index order."""
        found = set(tasks)
        stack = list(found)
        while stack:
            for dependency in self.dependencies(stack.pop()):
                if dependency not in found and belongs(dependency):
                    found.add(dependency)
                    stack.append(dependency)
        return sorted(found)

    def _place(self, task: int) -> tuple[SpecChunk, int]:
        chunk = self._chunks[bisect_right(self._firsts, task) - 1]
        return chunk, task - chunk.first
