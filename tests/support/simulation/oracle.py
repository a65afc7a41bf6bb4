"""What must hold in a world, checked against what tasks and scripts really did (I1 to I11).

Every result names the execution that made it and those it was computed from, so what a run records can be judged
without believing anything that it says of itself.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overnight.core.invariants import check
from overnight.core.states import SUCCEEDED, TERMINAL, TRANSITIONS, TaskState
from overnight.errors import BadSeal, InvariantBroken
from overnight.flags import DONE, Flag, decode_flag
from overnight.keyring import Keyring
from overnight.naming import flag_name
from overnight.pickling import loads
from overnight.results import ResultLost, Results
from overnight.store.memory import MemoryStore
from overnight.store.memory_data import MemoryRun
from overnight.store.records import Claim, Epoch
from overnight.structure import Structure
from tests.support.simulation.tasks import Attempt
from tests.support.simulation.world import Violation, World

if TYPE_CHECKING:
    from tests.support.simulation.server import Server

KEYRING = Keyring()
NO_DIGEST = bytes(32)
_OF_THE_LEADER = frozenset({"dispatch", "withdraw", "settle", "finish"})
_MAY_REOPEN = frozenset({"invalidate", "request"})


@dataclass(slots=True)
class Told:
    """What a script answered."""

    reply: Any = None


@dataclass(slots=True)
class Oracle:
    """The judge of one world. `dependencies` are the graph's edges by task id."""

    world: World
    directory: Path
    dependencies: dict[str, list[str]]
    retries: dict[str, int]
    server: Server = field(init=False)
    executions: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    child_kills: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)
    #: Nonces that were ever accepted, or adopted from flags.
    accepted: set[str] = field(default_factory=set)
    damaged: dict[str, float] = field(default_factory=dict)
    #: The last command, given when all is quiet, must mend everything.
    is_final: bool = False
    #: Batches that a server still held which fell back: they carry no mark to look for flags first.
    _fallen_back: set[str] = field(default_factory=set)
    _batch_of: dict[str, str] = field(default_factory=dict)
    _placed_at: dict[str, float] = field(default_factory=dict)
    _claimed_at: dict[str, float] = field(default_factory=dict)
    _values: dict[bytes, dict[str, Any]] = field(default_factory=dict)
    _names: dict[tuple[str, int], list[str]] = field(default_factory=dict)
    _rejected_core: Counter[str] = field(default_factory=Counter)
    _flags: dict[str, str] = field(default_factory=lambda: defaultdict(str))

    def _fail(self, invariant: str, text: str) -> None:
        self.world.note(None, f"{invariant}: {text}")
        self.world.broken = self.world.broken or Violation(f"{invariant}: {text}")

    # Scripts.

    @contextmanager
    def script(self, owner: str, name: str, arguments: tuple[Any, ...]) -> Iterator[Told]:
        """Watch one script: what it changes must be what it may change (I2, I3, I9, I11)."""
        before = {run_id: (run, bytes(run.states), bytes(run.digests)) for run_id, run in self._runs().items()}
        told = Told()
        yield told
        for run_id, run in self._runs().items():
            former = before.get(run_id)
            if former is not None and former[0] is run and (former[1] != run.states or former[2] != run.digests):
                self._compare(name, run, former[1], former[2])
            elif former is None or (former[0] is run and len(former[1]) != len(run.states)):
                self._added(run)
        if name == "reap" and told.reply:
            for reaped in told.reply:
                if reaped.tasks:
                    self.losses[self._name(self._runs()[reaped.run_id], reaped.tasks[0])] += 1
        if name == "claim" and isinstance(told.reply, Claim):
            self._batch_of[owner] = told.reply.batch
        if name in _OF_THE_LEADER:
            self._check_leader(name, arguments[0])

    def _check_leader(self, name: str, epoch: Epoch) -> None:
        """P7: what a scheduler writes after another took over is refused."""
        lease = self.server.data.scheduler
        if (lease.number, lease.holder) != (epoch.number, epoch.holder):
            self._fail("I9", f"{name} by a scheduler that was fenced off")

    def _runs(self) -> dict[str, MemoryRun]:
        return self.server.data.runs

    def _compare(self, name: str, run: MemoryRun, states: bytes, digests: bytes) -> None:
        for task in range(len(states) // 2):
            old, new = TaskState(states[2 * task]), TaskState(run.states[2 * task])
            former, digest = digests[32 * task : 32 * task + 32], run.digest(task)
            title = f"{name} of {self._name(run, task)}"
            if old is not new and old in TERMINAL and name not in _MAY_REOPEN:
                self._fail("I9", f"{title}: {old.name} became {new.name}")
            if old is not new and (old, new) not in TRANSITIONS:
                self._fail("I11", f"{title}: {old.name} to {new.name} is no transition")
            if old in SUCCEEDED and new in SUCCEEDED and former != digest:
                self._fail("I2", f"{title}: a second result replaced the accepted one")
            if old not in SUCCEEDED and new in SUCCEEDED:
                self._accepted(title, run, task, digest)
        for task in range(len(states) // 2, len(run.states) // 2):
            self._added_task(run, task)

    def _added(self, run: MemoryRun) -> None:
        for task in range(len(run.states) // 2):
            self._added_task(run, task)

    def _added_task(self, run: MemoryRun, task: int) -> None:
        if run.code(task) in SUCCEEDED:
            self._accepted("add_tasks", run, task, run.digest(task))

    def _accepted(self, title: str, run: MemoryRun, task: int, digest: bytes) -> None:
        """A result counts from now on: it must be of this task, and of the results that count (I1, I3)."""
        value = self._values.get(digest)
        name = self._name(run, task)
        if value is None or value["task"] != name:
            self._fail("I3", f"{title}: the accepted result is none of this task")
            return
        self.accepted.add(value["nonce"])
        names = self._ids(run)
        for dependency, nonce in value["of"].items():
            other = names.index(dependency) if dependency in names else None
            recorded = self._values.get(run.digest(other)) if other is not None else None
            if recorded is None and other is not None:
                self._fail("I1", f"{title} was accepted before its dependency {dependency}")
            elif recorded is not None and recorded["nonce"] != nonce:
                self._fail("I3", f"{title} was accepted; it was computed from another result of {dependency}")

    def _ids(self, run: MemoryRun) -> list[str]:
        key = (run.record.run_id, run.record.added)
        if key not in self._names:
            specs = [run.specs[first] for first in sorted(run.specs)]
            self._names[key] = list(Structure(run.record.run_id, specs, KEYRING).ids())
        return self._names[key]

    def _name(self, run: MemoryRun, task: int) -> str:
        return self._ids(run)[task]

    def fell_back(self) -> None:
        """The server forgot what happened last."""
        self._fallen_back |= {batch for run in self._runs().values() for batch in run.batches}

    def check_cores(self, runs: dict[str, Any]) -> None:
        """I10: what schedulers hold in memory is consistent whenever they wait."""
        for run in runs.values():
            try:
                check(run.core)
            except InvariantBroken as error:
                self._fail("I10", str(error))

    # Tasks.

    def claiming(self, worker: str) -> None:
        """A worker has taken an entry: what it will find in flags is what stands now, or more."""
        self._claimed_at[worker] = self.world.now

    def started(self, worker: str, run_id: str, task_id: str, attempt: Attempt, own: dict[str, str]) -> None:
        """I1, I5: a task starts after its dependencies, and not while a valid flag of the same lineage stands."""
        self.executions[task_id] += 1
        used = {result["task"]: result["nonce"] for result in attempt.used}
        self.world.note(self.world.current, f"starts {task_id} {attempt.nonce[:6]} of {used}")
        for dependency, nonce in used.items():
            if nonce not in self.accepted and own.get(dependency) != nonce and self._standing(dependency) != nonce:
                self._fail("I1", f"{task_id} starts with a result of {dependency} that was not accepted")
        flag = self.flag(task_id)
        placed = self._placed_at.get(flag_name(task_id))
        if flag is None or placed is None or placed >= self._claimed_at.get(worker, 0.0):
            return
        value = loads(flag.body)
        if self._batch_of.get(worker) in self._fallen_back:
            return
        if flag.header.run_id == run_id and flag.header.state == DONE and value["of"] == used:
            self._fail("I5", f"{task_id} starts though a valid flag of the same lineage stands")

    def _standing(self, task_id: str) -> str | None:
        """Return what made the result that a flag proves: a worker that finds it commits it first."""
        flag = self.flag(task_id)
        return None if flag is None or flag.header.state != DONE else str(loads(flag.body)["nonce"])

    def performed(self, task_id: str, body: bytes | None, digest: bytes) -> None:
        """An execution has ended."""
        if body is None:
            self.failures[task_id] += 1
        else:
            self._values[digest] = loads(body)

    def child_killed(self, task_id: str) -> None:
        """A child dies while it runs the task."""
        self.child_kills[task_id] += 1

    # Flags.

    def flag(self, task_id: str) -> Flag | None:
        """Return the flag of a task that is to be believed."""
        try:
            return decode_flag((self.directory / flag_name(task_id)).read_bytes(), task_id, KEYRING)
        except (OSError, BadSeal):
            return None

    def placed(self, name: str, torn: bool) -> None:
        """A flag was put in place: never another result where an accepted one stood (I2)."""
        task_id = next((task_id for task_id in self.dependencies if flag_name(task_id) == name), None)
        if task_id is None:
            return
        self._placed_at[name] = self.world.now
        if torn:
            self.damaged[task_id] = self.world.now
        flag = self.flag(task_id)
        former, now = self._flags[task_id], "" if flag is None else flag.header.body_sha256
        self._flags[task_id] = now
        if flag is None or flag.header.state != DONE or not former or former == now:
            return
        run = self._runs().get(flag.header.run_id or "")
        if run is None or task_id not in self._ids(run):
            return
        task = self._ids(run).index(task_id)
        if run.code(task) is TaskState.DONE and run.digest(task).hex() == former:
            self._fail("I2", f"the flag of {task_id} was overwritten after its result had been accepted")

    def damage(self, task_id: str) -> None:
        """A flag is damaged or removed at rest."""
        self.damaged[task_id] = self.world.now
        self._flags[task_id] = ""

    # Clients.

    def yielded(self, pairs: dict[str, Any], task_id: str, value: Any) -> None:
        """A client hears of a task once, after those it depends on."""
        if task_id in pairs:
            self._fail("I2", f"{task_id} was yielded twice")
        pairs[task_id] = value
        if isinstance(value, dict):
            for dependency, nonce in value["of"].items():
                other = pairs.get(dependency)
                if other is not None and other["nonce"] != nonce and not self._was_damaged(dependency):
                    self._fail("I3", f"{task_id} was yielded with another result of {dependency} than was")

    def _was_damaged(self, task_id: str) -> bool:
        return task_id in self.damaged or any(self._was_damaged(name) for name in self.dependencies[task_id])

    def client_ended(self, began: float, pairs: dict[str, Any], summary: Any) -> None:
        """I3, I7, I8: what a client reports as finished is proven, and what failed had to fail."""
        finished = set(summary.succeeded) | set(summary.cached)
        for task_id in summary.failed:
            if not self._may_fail(task_id):
                self._fail("I7", f"{task_id} failed")
        for task_id in summary.skipped:
            if not self._may_skip(task_id):
                self._fail("I7", f"{task_id} was skipped")
        left = [task_id for task_id in summary.not_run if not self._may_skip(task_id)]
        if left:
            self._fail("I7", f"the client ended and {left} never ran")
        unlike = [task_id for task_id in finished if self.retries[task_id] < 0]
        if unlike:
            self._fail("I7", f"{unlike} succeeded, and could not")
        fresh = {task_id for task_id, at in self.damaged.items() if at >= began}
        for task_id in sorted(finished - fresh):
            self._proven(task_id, fresh, pairs.get(task_id))

    def _proven(self, task_id: str, fresh: set[str], value: Any) -> None:
        flag = self.flag(task_id)
        if flag is None or flag.header.state != DONE:
            self._fail("I8", f"{task_id} is reported as finished and has no flag")
            return
        found = loads(flag.body)
        if value is not None and value != found and not self._was_damaged(task_id):
            self._fail("I8", f"the flag of {task_id} holds another result than was yielded")
        for dependency, nonce in found["of"].items():
            other = self.flag(dependency)
            if other is not None and dependency not in fresh and loads(other.body)["nonce"] != nonce:
                self._fail("I3", f"the flag of {task_id} is not of the flag of {dependency}")

    def _may_fail(self, task_id: str) -> bool:
        left = self.retries[task_id]
        if left < 0 or self.child_kills[task_id] > left or self.losses[task_id] >= 3:
            return True
        # Its input was adopted from a flag that was damaged before it ran: the same command computes both again.
        return not self.is_final and any(self._was_damaged(name) for name in self.dependencies[task_id])

    def _may_skip(self, task_id: str) -> bool:
        return any(self._may_fail(name) or self._may_skip(name) for name in self.dependencies[task_id])

    # The end.

    def at_the_end(self) -> None:
        """I6, I8 for what the server holds."""
        for run_id, run in self._runs().items():
            store = MemoryStore(now=self.world.server_clock)
            store.data = self.server.data
            results = Results(store, run_id, KEYRING)
            for task in range(len(run.states) // 2):
                if run.code(task) in SUCCEEDED and run.phase.is_over and run is self._latest():
                    self._backed(results, run, task)
        faults = sum(self.world.struck.values())
        for task_id, number in self.executions.items():
            allowed = 1 + self.failures[task_id] + faults
            if number > allowed:
                self._fail("I6", f"{task_id} ran {number} times, with {faults} faults")

    def _latest(self) -> MemoryRun:
        return max(self._runs().values(), key=lambda run: run.record.created_at)

    def _backed(self, results: Results, run: MemoryRun, task: int) -> None:
        stored = results.stored([task]).get(task)
        name = self._name(run, task)
        if stored is None or isinstance(stored, ResultLost):
            self._fail("I8", f"{name} is done and has no result: {stored}")
        elif stored.digest != run.digest(task):
            self._fail("I8", f"{name} is done with another digest than its result has")
        else:
            try:
                results.body(stored, name)
            except ResultLost as error:
                self._fail("I8", str(error))
