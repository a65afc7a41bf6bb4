"""From an order to an outcome, inside the child: loading what a task needs, calling it, keeping what others need.

Functions are loaded once, and so are large values that nobody can change; other arguments and dependency results afresh
for each task, so that no task sees what another did to its arguments. What members of a batch hand on to each other
stays here as bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from overnight import failpoints
from overnight.arguments import resolve_arguments
from overnight.invoke import Outcome, attempt
from overnight.kept_values import KeptValues
from overnight.naming import shown
from overnight.output_capture import OutputCapture
from overnight.pickling import loads
from overnight.shared_arguments import put_back
from overnight.task import Task
from overnight.task_log import TaskLog
from overnight_worker.explain import arguments_of, function_of, loading, result_of
from overnight_worker.frames import Frame


class Order(NamedTuple):
    """One task of a batch, as the child is told to run it.

    `values` are (task index, task id) of the dependencies whose results the arguments take; `after` the positions of
    members that must have succeeded before; `keeps` says that later members take its result; `blobs` are the digests of
    its shared arguments.
    """

    position: int
    task: int
    task_id: str
    function: str
    digest: str
    attempt: int
    timeout: float | None
    values: Sequence[Sequence[Any]]
    after: Sequence[int]
    keeps: bool
    blobs: Sequence[str]
    payload: bytes


class Attempts:
    """What this process knows of the run and of the batch at hand."""

    def __init__(self, worker: str, capture: OutputCapture) -> None:
        self.blobs: dict[str, bytes] = {}
        self.worker = worker
        self._capture = capture
        self._functions: dict[str, Callable[..., Any]] = {}
        self._kept = KeptValues()
        self._results: dict[int, bytes] = {}
        self._digests: dict[int, str] = {}
        self._run_id = ""
        self._log_dir: str | None = None
        self._verbosity = 0

    def enter(self, run_id: str, log_dir: str | None, verbosity: int) -> None:
        """Serve a run from now on."""
        self._run_id, self._log_dir, self._verbosity = run_id, log_dir, verbosity
        self.forget()

    def forget(self) -> None:
        """Forget all blobs; the supervisor sends again what it still needs."""
        self.blobs.clear()
        self._functions.clear()
        self._kept = KeptValues()

    def read_batch(self, frame: Frame) -> list[Order]:
        """Take in a batch: dependency results first, then a payload for each task, in one body."""
        fields = frame.fields()
        position = 0
        for task, size in fields["results"]:
            self._results[task] = frame.body[position : position + size]
            position += size
        for task, digest in fields.get("shared", ()):
            self._digests[task] = digest
        orders = []
        for *facts, size in fields["tasks"]:
            facts.append(frame.body[position : position + size])
            orders.append(Order(*facts))
            position += size
        return orders

    def end_batch(self) -> None:
        """Drop what only the batch needed."""
        self._results.clear()
        self._digests.clear()

    def keep(self, order: Order, body: bytes) -> None:
        """Keep a result for later members of the batch."""
        if order.keeps:
            self._results[order.task] = body

    def attempt(self, order: Order) -> Outcome:
        """Run the task inside its log; loading what it needs is part of the attempt."""
        return attempt(
            order.task_id,
            self._call,
            (order,),
            {},
            timeout=order.timeout,
            log_dir=self._log_dir,
            verbosity=self._verbosity,
            run_id=self._run_id,
            attempt=order.attempt,
            whole_process=True,
            capture=self._capture,
        )

    def told_death(self, order: Order, sentence: str, started: float) -> str:
        """Move what a process of its own had printed for a task to the task's log, and say there what ended that
        process (N5); return the end of what it had printed. `started` is seconds since the epoch."""
        where = (order.task_id, self._log_dir, self._verbosity)
        log = TaskLog(*where, run_id=self._run_id, attempt=order.attempt, started=started)
        log.capture = self._capture
        with log:
            tail = log.tail()
            log.write(f"{shown(order.task_id)}: the process of the task {sentence}\n")
        return tail

    def _call(self, order: Order) -> Any:
        function = self._functions.get(order.digest)
        if function is None:
            with loading(self.worker, function_of, order.task_id, order.function):
                function = self._functions[order.digest] = loads(self.blobs[order.digest])
        with loading(self.worker, arguments_of, order.task_id):
            args, kwargs = loads(order.payload)
            if order.blobs:
                args, kwargs = put_back(args, kwargs, {digest: self._blob(digest) for digest in order.blobs})
        if order.values:
            results = {Task(task_id): self._result(task, task_id) for task, task_id in order.values}
            args, kwargs = resolve_arguments((Task(order.task_id), args, kwargs), results)
        failpoints.reach("child.mid_task")
        return function(*args, **kwargs)

    def _result(self, task: int, task_id: str) -> Any:
        with loading(self.worker, result_of, task_id):
            return self._blob(self._digests[task]) if task in self._digests else loads(self._results[task])

    def _blob(self, digest: str) -> Any:
        """Return the value of a large result or shared argument: one that nobody can change is loaded once."""
        if digest not in self._kept:
            value = loads(self.blobs[digest])
            self._kept.offer(digest, value, len(self.blobs[digest]))
            return value
        return self._kept.get(digest)
