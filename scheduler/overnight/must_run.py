"""The smallest set of tasks that must run, from own records, dependencies and file times (BEHAVIOUR F1 to F3).

A task enters the set because its own record does not stand, because a dependency will run, or because it alone can
rebuild a file that a task in the set reads. Each entry has one sentence. A missing file that an ancestor declares
as intermediate is absent by design, and is rebuilt only if a reader of it runs; which tasks are whose ancestors is
answered for all such files together, by bit sets pushed once through the graph.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from overnight.freshness import Inputs, OwnRecord, TaskFiles, Times, file_reason
from overnight.naming import shown

_PRODUCERS_AT_ONCE = 4096
#: What a task declares that declares nothing: most tasks of a large graph, for which nothing is compared.
NO_FILES = TaskFiles()
#: A task that enters the set: its number, the reason, and the task for whose sake it enters (None: its own).
_Entry = tuple[int, str, int | None]


class TaskView(NamedTuple):
    """What the rule sees of one task; `deps` are the numbers of its dependencies, all smaller than its own."""

    name: str
    deps: Sequence[int]
    files: TaskFiles
    record: OwnRecord


class MustRun:
    """The tasks that must run, by number; `reasons` says why, in the order in which they entered.

    `because` names, of each task that entered for the sake of another one, that other.
    """

    def __init__(self, tasks: Sequence[TaskView], shared_inputs: Sequence[str], times: Times) -> None:
        self._tasks = tasks
        self.reasons: dict[int, str] = {}
        self.because: dict[int, int] = {}
        self._dependants = _dependants(tasks)
        shared = Inputs(shared_inputs, times)
        inputs = [Inputs(task.files.inputs, times).joined(shared) if task.files.inputs else shared for task in tasks]
        self._rebuilders = _Rebuilders(tasks, {n: found.missing for n, found in enumerate(inputs) if found.missing})
        entering: list[_Entry] = []
        for number, task in enumerate(tasks):
            reason = self._own_reason(number, task, inputs[number], times)
            if reason is not None:
                entering.append((number, reason, None))
        self._enter(entering)

    @property
    def dependencies(self) -> list[Sequence[int]]:
        """The numbers of each task's dependencies in the graph, by number."""
        return [task.deps for task in self._tasks]

    def also_run(self, task: int, reason: str) -> None:
        """Add a task, and with it whatever the rule then asks for."""
        self._enter([(task, reason, None)])

    def _own_reason(self, number: int, task: TaskView, inputs: Inputs, times: Times) -> str | None:
        record = task.record
        if record.reason is not None or record.decided:
            return record.reason
        if task.files is NO_FILES and not inputs.missing and inputs.newest is None:
            return None
        exempt = self._rebuilders.exempt(number) if inputs.missing else ()
        return file_reason(task.files, inputs, record.flag_time_ns, times, exempt)

    def _enter(self, entering: Iterable[_Entry]) -> None:
        waiting = deque(entering)
        while waiting:
            number, reason, cause = waiting.popleft()
            if number in self.reasons:
                continue
            self.reasons[number] = reason
            if cause is not None:
                self.because[number] = cause
            dependants, rebuilders = self._dependants[number], self._rebuilders.of(number)
            if dependants or rebuilders:
                name = shown(self._tasks[number].name)
                because = f"needs {name}, which will run"
                waiting.extend([(dependant, because, number) for dependant in dependants])
                waiting.extend([(up, f"must rebuild {path}, which {name} reads", number) for path, up in rebuilders])


class _Rebuilders:
    """For each task, the ancestors that declare the input files which it misses."""

    def __init__(self, tasks: Sequence[TaskView], missing: Mapping[int, Sequence[str]]) -> None:
        self._exempt: dict[int, set[str]] = defaultdict(set)
        self._of: dict[int, list[tuple[str, int]]] = defaultdict(list)
        declared = _declarations(tasks, {path for paths in missing.values() for path in paths})
        if not declared:
            return
        candidates = [
            (number, path, producer, by_design)
            for number, paths in missing.items()
            for path in paths
            for producer, by_design in declared.get(path, ())
            if producer < number
        ]
        related = _related(tasks, {(number, producer) for number, _, producer, _ in candidates})
        for number, path, producer, by_design in candidates:
            if (number, producer) in related:
                self._of[number].append((path, producer))
                if by_design:
                    self._exempt[number].add(path)

    def exempt(self, number: int) -> set[str]:
        """Return the missing inputs of a task that are absent by design."""
        return self._exempt.get(number, set())

    def of(self, number: int) -> Sequence[tuple[str, int]]:
        """Return (missing input, ancestor that declares it) of a task."""
        return self._of.get(number, ())


def _declarations(tasks: Sequence[TaskView], wanted: set[str]) -> dict[str, list[tuple[int, bool]]]:
    """Return for each wanted file the tasks that declare it, and whether as intermediate."""
    declared: dict[str, list[tuple[int, bool]]] = defaultdict(list)
    if not wanted:
        return declared
    for number, task in enumerate(tasks):
        for path in task.files.outputs:
            if path in wanted:
                declared[path].append((number, False))
        for path in task.files.intermediates:
            if path in wanted:
                declared[path].append((number, True))
    return declared


def _related(tasks: Sequence[TaskView], pairs: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Return those (task, other) of which the other is an ancestor of the task."""
    related = {(task, other) for task, other in pairs if other in tasks[task].deps}
    rest = pairs - related
    others = sorted({other for _, other in rest})
    for start in range(0, len(others), _PRODUCERS_AT_ONCE):
        bits = {other: 1 << place for place, other in enumerate(others[start : start + _PRODUCERS_AT_ONCE])}
        above = _ancestor_bits(tasks, bits)
        related.update((task, other) for task, other in rest if other in bits and above[task] & bits[other])
    return related


def _ancestor_bits(tasks: Sequence[TaskView], bits: Mapping[int, int]) -> list[int]:
    """Return for each task the bits of those of its ancestors that have one."""
    above = [0] * len(tasks)
    for number, task in enumerate(tasks):
        found = 0
        for dep in task.deps:
            found |= above[dep] | bits.get(dep, 0)
        above[number] = found
    return above


def _dependants(tasks: Sequence[TaskView]) -> list[list[int]]:
    dependants: list[list[int]] = [[] for _ in tasks]
    for number, task in enumerate(tasks):
        for dep in task.deps:
            dependants[dep].append(number)
    return dependants
