"""A scheduler of a few lines for tests of the worker: it submits a run, dispatches batches, and follows what happens.

It drives the real store, the real transport and real worker processes, and decides nothing by itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from overnight.core.events import Charge
from overnight.core.states import TaskState
from overnight.keyring import Keyring
from overnight.lineage import lineage_digest
from overnight.messages import (
    RunContext,
    SpecChunk,
    StoredError,
    StoredResult,
    TaskFacts,
    TaskMessage,
    sealed_blob,
)
from overnight.pickling import dumps, load_exception, loads
from overnight.shared_arguments import SharedArgument
from overnight.store.records import Addition, Batch, Epoch, RunRecord, TaskView, Verdict
from overnight.store.redis import RedisStore
from overnight.task import Task
from overnight.transport.port import Entry
from overnight.transport.rq import RqTransport
from overnight.wire import PROTOCOL
from tests.support.servers import connect

ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 30.0
_ENDED = frozenset({TaskState.DONE, TaskState.FAILED, TaskState.CACHED})


@dataclass
class Plan:
    """One task of a test: what to call, on which other tasks (by index) it depends, and its time limit."""

    call: Callable[..., Any]
    args: Sequence[Any] = ()
    needs: Sequence[int] = ()
    timeout: float | None = None
    task_id: str = ""


@dataclass
class SmallScheduler:
    """One run on a server."""

    url: str
    keyring: Keyring = field(default_factory=Keyring)
    prefix: str = "overnight"
    run_id: str = field(default_factory=lambda: secrets.token_hex(8))

    def __post_init__(self) -> None:
        self.client = connect(self.url)
        self.store = RedisStore(self.client, self.prefix)
        self.transport = RqTransport(self.client, self.prefix)
        self.plans: list[Plan] = []
        self._attempts: dict[int, int] = {}
        self._shared: dict[str, bytes] = {}

    def submit(
        self,
        plans: Sequence[Plan],
        directory: Path,
        *,
        record: dict[str, Any] | None = None,
        context: dict[str, Any] | None = None,
    ) -> None:
        """Put a run of these tasks in place; `record` and `context` replace fields of its records."""
        self.plans = list(plans)
        run = RunRecord(
            run_id=self.run_id,
            name="test",
            key=self.run_id,
            place="",
            owner="tester",
            host="here",
            python=".".join(str(part) for part in sys.version_info[:3]),
            protocol=PROTOCOL,
            total=len(plans),
            queue="default",
            command="",
        )
        surroundings = RunContext(
            directory=str(directory),
            umask=0o027,
            environment={"PATH": os.environ["PATH"], "FROM_DRIVER": "yes"},
            import_paths=[str(ROOT), *sys.path],
            log_dir=None,
            verbosity=0,
            status_dir=None,
            blob_dir=None,
        )
        surroundings = replace(surroundings, **(context or {}))
        self.store.open_run(replace(run, **(record or {})), surroundings.sealed(self.run_id, self.keyring))
        for digest, body in self._shared.items():
            self.store.put_blobs(self.run_id, {digest: sealed_blob(self.run_id, digest, body, self.keyring)})
        messages = {index: self._message(index) for index in range(len(plans))}
        ids = [self.task_id(index) for index in range(len(plans))]
        spec = SpecChunk(0, ids, ["f"], [0] * len(plans), [list(plan.needs) for plan in plans])
        self.store.add_tasks(self.run_id, Addition(0, len(plans), spec.sealed(self.run_id, self.keyring), messages))
        self.store.activate(self.run_id)

    def task_id(self, index: int) -> str:
        """Return the id of a task."""
        return self.plans[index].task_id or f"task-{index}"

    def _message(self, index: int) -> bytes:
        plan = self.plans[index]
        blob = dumps(plan.call)
        digest = hashlib.sha256(blob).hexdigest()
        self.store.put_blobs(self.run_id, {digest: sealed_blob(self.run_id, digest, blob, self.keyring)})
        values = [int(arg.task_id) for arg in plan.args if isinstance(arg, Task)]
        args = [Task(self.task_id(int(arg.task_id))) if isinstance(arg, Task) else arg for arg in plan.args]
        blobs = [arg.digest for arg in args if isinstance(arg, SharedArgument)]
        names = [self.task_id(need) for need in plan.needs]
        facts = TaskFacts(self.task_id(index), "f", digest, plan.needs, names, values, blobs, plan.timeout)
        return TaskMessage(facts, dumps((args, {}))).sealed(self.run_id, index, self.keyring)

    def share(self, value: Any) -> SharedArgument:
        """Store an argument of several tasks once; return what stands for it. Call it before `submit`."""
        body = dumps(value)
        digest = hashlib.sha256(body).hexdigest()
        self._shared[digest] = body
        return SharedArgument(digest)

    def epoch(self) -> Epoch:
        """Take the epoch."""
        taken = self.store.take_epoch("tester", "a test", 3600)
        assert isinstance(taken, Epoch)
        return taken

    def dispatch(self, *tasks: int, queue: str = "default", push: bool = True) -> str:
        """Dispatch one batch and push its entry; return its id."""
        batch = secrets.token_hex(16)
        attempts = [self._attempts.get(task, 0) + 1 for task in tasks]
        lineages = [self._lineage(task, tasks) for task in tasks]
        dispatched = Batch(batch, queue, tasks, attempts, lineages)
        assert self.store.dispatch(self.epoch(), self.run_id, [dispatched]) == [True]
        self._attempts.update(zip(tasks, attempts, strict=True))
        if push:
            self.push(batch, queue)
        return batch

    def push(self, batch: str, queue: str = "default") -> None:
        """Push the entry of a batch."""
        self.transport.push([Entry(queue, self.run_id, batch)])

    def _lineage(self, task: int, batch: Sequence[int]) -> bytes:
        needs = self.plans[task].needs
        if not set(needs).isdisjoint(batch):
            return b""
        return lineage_digest(self.store.read_digests(self.run_id, needs) if needs else [])

    def settle_again(self, task: int) -> None:
        """Judge that a task which has failed is to run again."""
        self.store.settle(self.epoch(), self.run_id, [Verdict(task, TaskState.PENDING, Charge(1))])

    def settle_failed(self, task: int) -> None:
        """Judge that a task which has failed is not to run again."""
        self.store.settle(self.epoch(), self.run_id, [Verdict(task, TaskState.FAILED, Charge(1))])

    def state(self, task: int) -> TaskState:
        """Return a task's state."""
        return TaskState(self.store.states(self.run_id)[2 * task])

    def view(self, task: int) -> TaskView:
        """Return what is known of a task."""
        return self.store.tasks(self.run_id, [task])[0]

    def wait_for(self, condition: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
        """Wait until a condition holds; the run's event stream is what wakes the wait."""
        deadline = time.monotonic() + seconds
        cursor = "0"
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {seconds} s: {[self.state(task).name for task in range(len(self.plans))]}")
            events = self.store.follow(self.run_id, cursor, 0.1)
            cursor = events[-1].cursor if events else cursor

    def wait_ended(self, *tasks: int, seconds: float = WAIT_SECONDS) -> None:
        """Wait until the tasks have an accepted outcome."""
        wanted = tasks or range(len(self.plans))
        self.wait_for(lambda: all(self.outcome_is_in(task) for task in wanted), seconds)

    def outcome_is_in(self, task: int) -> bool:
        """Tell whether an outcome of the task's current attempt was accepted."""
        return self.state(task) in _ENDED or self.view(task).error is not None

    def result(self, task: int) -> Any:
        """Return a task's result; it must be stored inline."""
        return loads(self.stored(task).body or b"")

    def stored(self, task: int) -> StoredResult:
        """Return the record of a task's result."""
        record = self.store.read_results(self.run_id, [task])[task]
        return StoredResult.opened(record, self.run_id, task, self.keyring)

    def error(self, task: int) -> BaseException:
        """Return the exception that is recorded as a task's failure."""
        record = self.view(task).error
        assert record is not None
        stored = StoredError.opened(record, self.run_id, task, self.keyring)
        from overnight.errors import RemoteTaskError

        return load_exception(stored.body, RemoteTaskError(stored.type_name, stored.message, stored.traceback))

    def close(self) -> None:
        """Close the connection."""
        self.client.close()


@dataclass
class WorkerProcess:
    """A started worker and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    def stop(self, number: int = signal.SIGTERM, seconds: float = 30) -> int:
        """Send a signal and wait for the end; return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def said(self, words: str) -> bool:
        """Tell whether the log holds these words."""
        return words in self.log.read_text()


@contextlib.contextmanager
def worker(url: str, directory: Path, *arguments: str, **environment: str) -> Iterator[WorkerProcess]:
    """Run `python -m overnight_worker` against a server, with a short lease, until the context ends."""
    log = directory / f"worker-{secrets.token_hex(4)}.log"
    variables = {
        "OVERNIGHT_REDIS_URL": url,
        "OVERNIGHT_STATE_DIR": str(directory / "state"),
        "OVERNIGHT_LEASE_SECONDS": "1.5",
        "OVERNIGHT_HEARTBEAT_SECONDS": "0.5",
        "OVERNIGHT_DRAIN_SECONDS": "10",
        **environment,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "overnight_worker", *arguments],
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=directory,
        )
    try:
        yield WorkerProcess(process, log)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.returncode:
            print(log.read_text())
