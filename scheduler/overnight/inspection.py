"""What must run in a graph, given a cache: gathers records and file times and applies the pure rule.

`decide` looks at every flag and declared file at most once and unpickles nothing. A cache with `read_flags` gives
headers, which are judged here; any other cache is asked for each record, which stands as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from overnight.cache import (
    CacheRecord,
    CacheRecordType,
    FileTaskCache,
    NoTaskCache,
    TaskCache,
    identity_reason,
    record_reason,
    result_in,
)
from overnight.chain import function_name
from overnight.errors import BadSeal, RecordMismatch, Unreachable, UnusableDirectory
from overnight.files import look_up
from overnight.flags import FAILED, FlagHeader, FoundFlag, record_of
from overnight.freshness import NEVER_RAN, FileTime, OwnRecord, TaskFiles
from overnight.garbage import uncollected
from overnight.graph import TaskGraph, TaskNode
from overnight.lineage import DependencyRecord, changed_dependency
from overnight.must_run import NO_FILES, MustRun, TaskView
from overnight.naming import shown
from overnight.recording import TaskIdentity, error_of_header
from overnight.task import Task, TaskDesc

_Judge = Callable[[TaskNode], OwnRecord]
_NEVER_RAN = OwnRecord(NEVER_RAN)


@runtime_checkable
class FlagReader(Protocol):
    """A cache that gives the facts of many tasks at once and loads results on request."""

    def read_flags(self, tasks: Iterable[Task], *, with_bodies: bool = False) -> Mapping[Task, FoundFlag | BadSeal]:
        """Return the verified headers of those tasks that have a record, or why one cannot be used.

        `with_bodies` gives those bodies too that cost no further read.
        """

    def load(self, desc: TaskDesc) -> Any:
        """Return a recorded result. Raise BadSeal if it cannot be loaded."""

    def stamp(self) -> int | None:
        """Return what changes whenever a record is written; None where nothing tells."""


class Judged(NamedTuple):
    """What was decided, by numbers, which are places in `order`, dependencies first.

    `because` names, of each task that must run for the sake of another one, that other.
    """

    order: Sequence[Task]
    dependencies: Sequence[Sequence[int]]
    reasons: Mapping[int, str]
    because: Mapping[int, int]


class Decisions:
    """Which tasks of a graph must run, with reasons, and which are completed."""

    def __init__(self, graph: TaskGraph, cache: TaskCache, rule: MustRun, known: _Known) -> None:
        self._graph = graph
        self._cache = cache
        self._rule = rule
        self._known = known

    @property
    def must_run(self) -> dict[Task, str]:
        """The tasks that must run, each with its reason, in the order in which the rule found them."""
        return {self._known.order[number]: reason for number, reason in self._rule.reasons.items()}

    @property
    def completed(self) -> list[Task]:
        """All other tasks, in the order of the graph's `tasks` when the decision was made."""
        must_run, numbers = self._rule.reasons, self._known.numbers
        return [task for task in self._known.inserted if numbers[task.task_id] not in must_run]

    def runs(self, task: Task) -> bool:
        """Tell whether a task must run."""
        return self._known.numbers[task.task_id] in self._rule.reasons

    def reason(self, task: Task) -> str | None:
        """Return one sentence that says why a task must run, None if it need not."""
        return self._rule.reasons.get(self._known.numbers[task.task_id])

    @property
    def judged(self) -> Judged:
        """What was decided, by number."""
        return Judged(self._known.order, self._rule.dependencies, self._rule.reasons, self._rule.because)

    def headers(self) -> Iterator[FlagHeader]:
        """Yield the headers of all records that can be believed, if the cache keeps headers."""
        for found in self._known.flags.values():
            if isinstance(found, FoundFlag):
                yield found.header

    def header(self, task: Task) -> FlagHeader | None:
        """Return the header of a task's record, if the cache keeps headers and it has one to believe."""
        found = self._known.flags.get(task)
        return found.header if isinstance(found, FoundFlag) else None

    def state(self, task: Task) -> CacheRecordType:
        """Return a task's state as the rule decides: COMPUTED unless it must run; ERROR if its own record is that."""
        if not self.runs(task):
            return CacheRecordType.COMPUTED
        return CacheRecordType.ERROR if self._known.failed(task) else CacheRecordType.NEEDS_COMPUTE

    def record(self, task: Task) -> CacheRecord:
        """Return a task's record as decided. Headers give an error as text and no result: see `load`."""
        state, own = self.state(task), self._known.records.get(task)
        header = self.header(task)
        payload = own.result_or_error if own is not None else None
        if own is None and header is not None and state is CacheRecordType.ERROR:
            payload = error_of_header(header)
        return CacheRecord(state, payload, self.reason(task))

    def load(self, task: Task) -> Any:
        """Return the result of a completed task of the graph. Raise BadSeal if it cannot be loaded.

        The caller that needs the value then tells `also_run`.
        """
        if self.runs(task):
            raise RecordMismatch(f"Task {task.task_id!r} must run, so it has no result yet.")
        found = self._known.flags.get(task)
        if isinstance(found, FoundFlag) and found.body is not None:
            return result_in(found.body)
        if isinstance(self._cache, FlagReader):
            return self._cache.load(self._graph.get_declared(task)[0])
        return self._known.records[task].result

    def outdated(self) -> bool:
        """Tell whether a task that must run has got another record since, as from a run that ended meanwhile."""
        if not isinstance(self._cache, FlagReader) or self._cache.stamp() == self._known.stamp is not None:
            return False
        now = self._cache.read_flags(self.must_run).items()
        return any(isinstance(found, FoundFlag) and found.header != self.header(task) for task, found in now)

    def also_run(self, task: Task, reason: str = "its result is needed and cannot be loaded") -> None:
        """Add a task that must run; the set closes itself again (F2 e)."""
        self._rule.also_run(self._known.numbers[task.task_id], reason)


class _Known:
    """What was found out about the tasks of a graph."""

    def __init__(self, graph: TaskGraph) -> None:
        self.order: Sequence[Task] = graph.topological_order()
        self.inserted: Sequence[Task] = graph.tasks
        self.numbers = {task.task_id: number for number, task in enumerate(self.order)}
        self.flags: Mapping[Task, FoundFlag | BadSeal] = {}
        self.records: dict[Task, CacheRecord] = {}
        self.errors: set[str] = set()
        self.stamp: int | None = None
        self._function_names: dict[int, str] = {}

    def failed(self, task: Task) -> bool:
        """Tell whether a task's own record is that of a failure."""
        if task in self.records:
            return self.records[task].type is CacheRecordType.ERROR
        return task.task_id in self.errors

    def identity(self, node: TaskNode) -> TaskIdentity:
        """Return `identity_of` the node's desc; each function, which the graph holds, is named once."""
        name = self._function_names.get(id(node.func))
        if name is None:
            name = self._function_names[id(node.func)] = function_name(node.func)
        deps = node.deps
        return TaskIdentity(node.task.task_id, name, tuple([dep.task_id for dep in deps]) if deps else ())


def decide(graph: TaskGraph, cache: TaskCache, *, with_bodies: bool = False) -> Decisions:
    """Decide which tasks of the graph must run (F).

    `with_bodies` keeps the results, still pickled, that come along with the headers: for whoever will load them all.
    Raise CyclicGraph, Unreachable for a remote status directory, UnusableDirectory for a local one.
    """
    try:
        with uncollected():
            return _decide(graph, cache, with_bodies=with_bodies)
    except Unreachable:
        raise
    except OSError as error:
        if not isinstance(cache, FileTaskCache):
            raise
        why = f"The status directory {shown(cache.directory)} cannot be used: {error.strerror or error}."
        raise UnusableDirectory(why) from error


def _decide(graph: TaskGraph, cache: TaskCache, *, with_bodies: bool) -> Decisions:
    known = _Known(graph)
    if isinstance(cache, FlagReader):
        judge = _judge_of_flags(cache, known, with_bodies=with_bodies)
    else:
        judge = _judge_of_records(cache, graph, known)
    shared = list(graph.input_files)
    with graph as nodes:
        ordered = [nodes[task] for task in known.order]
    views = [_view(node, judge, known) for node in ordered]
    if isinstance(cache, NoTaskCache):
        shared, views = [], [view._replace(files=NO_FILES) for view in views]
    return Decisions(graph, cache, MustRun(views, shared, _times(shared, views)), known)


def _judge_of_flags(cache: FlagReader, known: _Known, *, with_bodies: bool) -> _Judge:
    known.stamp = cache.stamp()
    known.flags = cache.read_flags(known.order, with_bodies=with_bodies)
    flags = known.flags.items()
    present = {task.task_id: record_of(found.header) for task, found in flags if isinstance(found, FoundFlag)}
    return lambda node: _own_record(node, known, present)


def _own_record(node: TaskNode, known: _Known, present: Mapping[str, DependencyRecord]) -> OwnRecord:
    found = known.flags.get(node.task)
    if not isinstance(found, FoundFlag):
        return _NEVER_RAN if found is None else OwnRecord(str(found))
    identity = known.identity(node)
    header = found.header
    reason = record_reason(identity, header)
    if reason is None:
        if header.dependency_records:
            reason = _dependency_reason(identity, header, present)
    elif header.state == FAILED and identity_reason(identity, header) is None:
        known.errors.add(header.task_id)
    return OwnRecord(reason, found.mtime_ns)


def _dependency_reason(task: TaskIdentity, header: FlagHeader, present: Mapping[str, DependencyRecord]) -> str | None:
    changed = changed_dependency(task.dependencies or (), header.dependencies, header.dependency_records, present)
    return None if changed is None else f"was computed from another result of {shown(changed)} than the present one"


def _judge_of_records(cache: TaskCache, graph: TaskGraph, known: _Known) -> _Judge:
    def judge(node: TaskNode) -> OwnRecord:
        record = known.records[node.task] = cache.get_record(graph.get_declared(node.task)[0])
        stands = record.type is CacheRecordType.COMPUTED
        return OwnRecord(None if stands else _record_text(record), decided=True)

    return judge


def _record_text(record: CacheRecord) -> str:
    reason = getattr(record, "reason", None)
    return reason or ("failed" if record.type is CacheRecordType.ERROR else "its cache says that it must run")


def _view(node: TaskNode, judge: _Judge, known: _Known) -> TaskView:
    numbers, deps_of_node = known.numbers, node.deps
    deps = tuple([numbers[dep.task_id] for dep in deps_of_node if dep.task_id in numbers]) if deps_of_node else ()
    declared = node.declared_files
    files = NO_FILES if declared is None else TaskFiles(*declared)
    return TaskView(node.task.task_id, deps, files, judge(node))


def _times(shared: Sequence[str], views: Sequence[TaskView]) -> dict[str, FileTime]:
    declared = set(shared)
    for view in views:
        if view.files is not NO_FILES:
            declared.update(view.files.inputs, view.files.outputs, view.files.intermediates)
    return {path: FileTime(facts.mtime_ns, facts.is_directory) for path, facts in look_up(declared).items()}
