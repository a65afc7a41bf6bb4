"""Turn a graph into a run: chunks of structure, one sealed message per task, each function and shared value once.

Tasks are numbered in the order in which they are handed over. A task whose function or arguments cannot be pickled is
sent as one that raises just that, so that it alone fails, where and when it would have run (BEHAVIOUR B19).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import accumulate, count
from types import FunctionType
from typing import Any

from overnight import failpoints
from overnight.arguments import refuse_misplaced, value_dependencies
from overnight.core.events import DEFAULT_RULES, TaskRules
from overnight.errors import TaskError, TaskNotPicklable, UnresolvedTask
from overnight.garbage import uncollected
from overnight.graph import function_name
from overnight.keyring import Keyring
from overnight.messages import SpecChunk, StoredResult, TaskFacts, TaskMessage, sealed_blob
from overnight.pickling import dump_arguments, dump_input
from overnight.shared_arguments import SharedArguments
from overnight.store.codec import next_made
from overnight.store.ports import ReadingStore, SubmittingStore
from overnight.store.records import Addition, Adopted, RunRecord
from overnight.task import DEFAULT_OPTIONS, Task, TaskDesc

CHUNK_TASKS = 1000


def raise_unsendable(error: TaskError) -> None:
    """Stand in for a task that cannot be sent: raise what is wrong with it."""
    raise error


class Submission:
    """Adds tasks to one run. It remembers which index each task has, and what the run already holds."""

    def __init__(self, store: SubmittingStore, run_id: str, keyring: Keyring) -> None:
        self._store = store
        self._run_id = run_id
        self._keyring = keyring
        self._functions = _Functions()
        self._shared = SharedArguments()
        self._sent: set[str] = set()
        self.tasks: list[Task] = []
        self.index: dict[Task, int] = {}
        self._made = ""
        #: What the run was when it was found last to begin with these tasks.
        self._seen = ""

    def add(
        self,
        descs: Sequence[TaskDesc],
        adopted: Mapping[Task, StoredResult] | None = None,
        reasons: Mapping[Task, str] | None = None,
    ) -> None:
        """Add tasks to the run, in this order; `adopted` are those that are finished already, `reasons` why others run.

        A dependency that is neither among them nor in the run is satisfied: its value stands in the arguments.
        """
        first = len(self.tasks)
        for desc in descs:
            self.index[desc.task] = len(self.tasks)
            self.tasks.append(desc.task)
        for offset in range(0, len(descs), CHUNK_TASKS):
            with uncollected():
                self._add_chunk(first + offset, descs[offset : offset + CHUNK_TASKS], adopted or {}, reasons or {})

    def known(self, tasks: Sequence[Task], specs: Sequence[bytes]) -> None:
        """Take over tasks that the run holds already, in their order, and the chunks that say so."""
        self.tasks = list(tasks)
        self.index = {task: number for number, task in enumerate(tasks)}
        self._made = reduce(next_made, specs, "")

    def is_in(self, run: RunRecord, store: ReadingStore) -> bool:
        """Tell whether the run holds these tasks under their numbers: a server that fell back may have lost them, and
        another client added its own. What came after them does not matter."""
        if run.added < len(self.tasks):
            return False
        if run.made in ("", self._made, self._seen):
            return True
        if self._made not in accumulate(store.specs(self._run_id), next_made, initial=""):
            return False
        self._seen = run.made
        return True

    def _add_chunk(
        self,
        first: int,
        descs: Sequence[TaskDesc],
        adopted: Mapping[Task, StoredResult],
        reasons: Mapping[Task, str],
    ) -> None:
        self._shared.observe(descs)
        dependencies = [self._numbers(desc.deps) for desc in descs]
        messages = {
            number: self._message(number, desc, needed)
            for number, desc, needed in zip(count(first), descs, dependencies, strict=False)
        }
        blobs = self._send_blobs()
        found = {self.index[desc.task]: adopted[desc.task] for desc in descs if desc.task in adopted}
        spec = self._structure(first, descs, dependencies, reasons).sealed(self._run_id, self._keyring)
        addition = Addition(
            first,
            len(descs),
            spec,
            messages,
            {
                task: Adopted(result.digest, result.sealed(self._run_id, task, self._keyring))
                for task, result in found.items()
            },
            blobs,
        )
        failpoints.reach("client.mid_submit")
        self._store.add_tasks(self._run_id, addition)
        self._made = next_made(self._made, spec)

    def _structure(
        self, first: int, descs: Sequence[TaskDesc], dependencies: list[list[int]], reasons: Mapping[Task, str]
    ) -> SpecChunk:
        names: dict[str, int] = {}
        function_of = [names.setdefault(self._functions.name(desc.func), len(names)) for desc in descs]
        return SpecChunk(
            first,
            [desc.task.task_id for desc in descs],
            list(names),
            function_of,
            dependencies,
            {offset: _rules(desc) for offset, desc in enumerate(descs) if _rules(desc) is not DEFAULT_RULES},
            {offset: reason for offset, desc in enumerate(descs) if (reason := reasons.get(desc.task))},
        )

    def _numbers(self, tasks: Iterable[Task]) -> list[int]:
        """Return the indices of those that are in the run."""
        index = self.index
        return [number for task in tasks if (number := index.get(task)) is not None]

    def _message(self, number: int, desc: TaskDesc, dependencies: list[int]) -> bytes:
        where = f"task {desc.task.task_id!r}"
        taken = value_dependencies(desc.args, desc.kwargs)
        try:
            refuse_misplaced(desc.task, desc.args, desc.kwargs)
            function = self._functions.digest(desc.func, f"The function of {where}")
            args, kwargs, blobs = self._shared.replaced(desc.args, desc.kwargs)
            payload = dump_arguments(args, kwargs, where)
        except (TaskNotPicklable, UnresolvedTask) as error:
            function = self._functions.digest(raise_unsendable, "The stand-in")
            payload, blobs, taken = dump_input(([error], {}), "The message"), [], []
        facts = TaskFacts(
            desc.task.task_id,
            self._functions.name(desc.func),
            function,
            dependencies,
            [self.tasks[dependency].task_id for dependency in dependencies],
            self._numbers(taken),
            blobs,
            desc.options.timeout,
        )
        return TaskMessage(facts, payload).sealed(self._run_id, number, self._keyring)

    def _send_blobs(self) -> list[str]:
        """Store what the chunk refers to and the run does not hold yet; return the digests."""
        sent = []
        for digest, body in self._new_blobs():
            self._store.put_blobs(self._run_id, {digest: sealed_blob(self._run_id, digest, body, self._keyring)})
            self._sent.add(digest)
            sent.append(digest)
        return sent

    def _new_blobs(self) -> Iterator[tuple[str, bytes]]:
        for blobs in (self._functions.blobs, self._shared.blobs):
            for digest in [digest for digest in blobs if digest not in self._sent]:
                yield digest, blobs[digest]
                blobs[digest] = b""


class _Functions:
    """Pickles each function once and knows it again by identity; of a bound method, by function and object."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self._digests: dict[tuple[int, int], tuple[Any, str]] = {}
        self._names: dict[FunctionType, str] = {}

    def name(self, func: Callable[..., Any]) -> str:
        """Return the `function_name` of a function; that of a plain one is made once."""
        if type(func) is not FunctionType:
            return function_name(func)
        name = self._names.get(func)
        if name is None:
            name = self._names[func] = function_name(func)
        return name

    def digest(self, func: Callable[..., Any], what: str) -> str:
        """Return the digest of a function's bytes. Raises TaskNotPicklable."""
        key = (id(getattr(func, "__func__", func)), id(getattr(func, "__self__", None)))
        known = self._digests.get(key)
        if known is not None:
            return known[1]
        body = dump_input(func, what)
        digest = hashlib.sha256(body).hexdigest()
        self.blobs.setdefault(digest, body)
        self._digests[key] = (func, digest)
        return digest


def _rules(desc: TaskDesc) -> TaskRules:
    options = desc.options
    if options is DEFAULT_OPTIONS or options == DEFAULT_OPTIONS:
        return DEFAULT_RULES
    return TaskRules(options.retries, options.retry_delay, options.priority, options.queue, tuple(options.resources))
