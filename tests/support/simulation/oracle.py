"""What must hold in a world, checked against what tasks and scripts really did (I1 to I11).

Every result names the execution that made it and those it was computed from, so what a run records can be judged
without believing anything that it says of itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from overnight.config import LONGEST_TERMS
from overnight.core.invariants import check
from overnight.core.states import SUCCEEDED, TERMINAL, TRANSITIONS, TaskState
from overnight.errors import InvariantBroken
from overnight.flags import DONE
from overnight.naming import flag_name
from overnight.pickling import loads
from overnight.store.memory_data import MemoryRun
from overnight.store.records import Acceptance, Claim, Epoch, Reaped
from tests.support.simulation.client_oracle import ClientOracle
from tests.support.simulation.faults import LEASE
from tests.support.simulation.tasks import Attempt

_OF_THE_LEADER = frozenset({"dispatch", "withdraw", "settle", "finish", "repair"})
ADDED = "add_tasks"
_MAY_REOPEN = frozenset({"invalidate", "repair", "mend", "request"})
#: What a scheduler reopens by itself for a task that shall run again, or whose failed ancestor does (decision 0010).
_MAY_BE_SETTLED = frozenset({TaskState.FAILED, TaskState.SKIPPED, TaskState.CANCELLED})
#: Of a batch without a lease.
_NOBODY = ("", 0.0, None)


@dataclass(slots=True)
class Told:
    """What a script answered."""

    reply: Any = None


class Oracle(ClientOracle):
    """The judge of one world."""

    # Scripts.

    @contextmanager
    def script(self, owner: str, name: str, arguments: tuple[Any, ...]) -> Iterator[Told]:
        """Watch one script: what it changes must be what it may change (I2, I3, I9, I11)."""
        before = {run_id: (run, bytes(run.states), bytes(run.digests)) for run_id, run in self._runs().items()}
        holders = self._holders() if name in ("reap", "commit") else {}
        inner = self._inner(arguments[0]) if name == "commit" else frozenset[int]()
        active = {run_id for run_id, run in self._runs().items() if not run.phase.is_over}
        told = Told()
        yield told
        self.last_ended = next((run_id for run_id in active if self._is_over(run_id)), self.last_ended)
        for run_id, run in self._runs().items():
            former = before.get(run_id)
            if former is not None and former[0] is run and (former[1] != run.states or former[2] != run.digests):
                self._compare(name, run, former[1], former[2])
            elif former is None or (former[0] is run and len(former[1]) != len(run.states)):
                self._added(run)
        if name == "commit" and arguments[0] in before:
            is_holder = holders.get(arguments[:2], _NOBODY)[0] == arguments[2]
            self._committed(arguments[0], before[arguments[0]][1], inner, is_holder=is_holder)
            answers = zip(arguments[3], told.reply.acceptances, strict=True)
            accepted = {report.task for report, answer in answers if answer is Acceptance.ACCEPTED}
            self._through_with[arguments[1]] |= accepted
        if name == "give_back":
            self._through_with[arguments[1]].update(arguments[3])
        if name == "reap":
            for reaped in told.reply:
                self._reaped(reaped, *holders.get((reaped.run_id, reaped.batch), _NOBODY))
            if max(self.server.data.leases.values(), default=0.0) > self.world.server_clock() + LONGEST_TERMS * LEASE:
                self._fail("I7", "a lease lasts for longer than whoever lives would let it")
        if name == "claim" and isinstance(told.reply, Claim):
            self._batch_of[owner] = told.reply.batch
            self._owners[arguments[2]] = owner
        if name in _OF_THE_LEADER:
            self._check_leader(name, arguments[0])

    def _is_over(self, run_id: str) -> bool:
        run = self._runs().get(run_id)
        return run is not None and run.phase.is_over

    def _inner(self, run_id: str) -> frozenset[int]:
        """Return the tasks in flight that depend on their own batch."""
        run = self._runs().get(run_id)
        return frozenset(task for task, one in run.inflight.items() if one.lineage == b"") if run else frozenset()

    def _committed(self, run_id: str, states: bytes, inner: frozenset[int], *, is_holder: bool) -> None:
        """I2: a failure, or a success whose lineage nobody can compare, counts from the holder of the batch alone."""
        run = self._runs()[run_id]
        for task in range(len(states) // 2):
            now = run.code(task)
            is_fenced = now is TaskState.TRIED or (now is TaskState.DONE and task in inner)
            if now != states[2 * task] and is_fenced and not is_holder:
                self._fail("I2", f"commit of {self._name(run, task)} by a worker that does not hold the batch")

    def _holders(self) -> dict[tuple[str, str], tuple[str, float, int | None]]:
        """Return who holds each batch, until when, and which of its tasks is known to have begun."""
        ahead = self.world.server_clock() - self.world.now
        batches = [(run_id, name, one) for run_id, run in self._runs().items() for name, one in run.batches.items()]
        leases = self.server.data.leases
        return {
            (run_id, name): (one.hold.instance, leases.get((run_id, name), 0.0) - ahead, one.hold.begun)
            for run_id, name, one in batches
            if one.hold is not None
        }

    def worker_died(self, name: str) -> None:
        """Take note that a supervisor is gone; it comes back as another instance."""
        self._dead.update(instance for instance, owner in self._owners.items() if owner == name)

    def _reaped(self, reaped: Reaped, holder: str, ran_out: float, begun: int | None) -> None:
        """I7: a lease runs out only for who is dead or kept from renewing it; its first task is charged for that."""
        if not reaped.tasks:
            return
        first = self._name(self._runs()[reaped.run_id], reaped.tasks[0])
        self.losses[first] += 1
        self.begun_losses[first] += begun == reaped.tasks[0]
        if holder in self._dead:
            return
        if self._through_with[reaped.batch].issuperset(reaped.tasks):
            return  # the server has lost their outcomes, or that they went back or were reaped: their worker is through
        self._through_with[reaped.batch].update(reaped.tasks)
        # A scheduler that was frozen while the clock was moved gives leases another term when it sees that.
        who = ("", self._owners.get(holder, ""), *(name for name in self.world.costs if name.startswith("scheduler")))
        hindered = max(self.world.costs.get(name, 0.0) for name in who)
        if ran_out - hindered > 4 * LEASE:
            self._fail("I7", f"batch {reaped.batch[:6]} lost its lease for no reason")

    def _check_leader(self, name: str, epoch: Epoch) -> None:
        """P7: what a scheduler writes after another took over is refused."""
        lease = self.server.data.scheduler
        if (lease.number, lease.holder) != (epoch.number, epoch.holder):
            self._fail("I9", f"{name} by a scheduler that was fenced off")

    def _compare(self, name: str, run: MemoryRun, states: bytes, digests: bytes) -> None:
        for task in range(len(states) // 2):
            old, new = TaskState(states[2 * task]), TaskState(run.states[2 * task])
            former, digest = digests[32 * task : 32 * task + 32], run.digest(task)
            title = f"{name} of {self._name(run, task)}"
            if old is not new and old in TERMINAL and not _may_reopen(name, old):
                self._fail("I9", f"{title}: {old.name} became {new.name}")
            if old is not new and not _is_possible(name, old, new):
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
            self._accepted(ADDED, run, task, run.digest(task))

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
            elif recorded is not None and recorded["nonce"] != nonce and not (title == ADDED and self.has_forgotten):
                self._fail("I3", f"{title} was accepted; it was computed from another result of {dependency}")

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
            is_known = nonce in self.accepted or own.get(dependency) == nonce or self._standing(dependency) == nonce
            if not is_known and not self._stood_at_the_claim(worker, dependency, nonce):
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

    def placed(self, name: str, torn: bool) -> None:
        """A flag was put in place: never another result where an accepted one stood (I2)."""
        task_id = next((task_id for task_id in self.dependencies if flag_name(task_id) == name), None)
        if task_id is None:
            return
        self._placed_at[name] = self.world.now
        if torn:
            self.damaged[task_id] = self.world.now
        flag = self.flag(task_id)
        self._keep_former(task_id)
        former, now = self._flags[task_id], "" if flag is None else flag.header.body_sha256
        self._flags[task_id] = now
        if flag is None or flag.header.state != DONE or not former or former == now:
            return
        known = self._values.get(bytes.fromhex(former))
        if self.server.rollbacks and known is not None and known["of"] != loads(flag.body)["of"]:
            return  # what stood there had been invalidated, which the server has forgotten
        run = self._runs().get(flag.header.run_id or "")
        if run is None or task_id not in self._ids(run):
            return
        task = self._ids(run).index(task_id)
        if run.code(task) is TaskState.DONE and run.digest(task).hex() == former:
            self._fail("I2", f"the flag of {task_id} was overwritten after its result had been accepted")

    def _keep_former(self, task_id: str) -> None:
        """Keep what may be put back later, as by a copy that is restored."""
        if self.directory is not None:
            kept = self.former[task_id]
            kept.append((self.directory / flag_name(task_id)).read_bytes())
            del kept[:-3]

    def refused(self, name: str) -> None:
        """A flag could not be written: what stands there, or nothing, is not of the result on record."""
        for task_id in self.dependencies:
            if flag_name(task_id) == name:
                self.damaged[task_id] = self.world.now

    def damage(self, task_id: str) -> None:
        """A flag is damaged or removed at rest, or a former one put back: whoever has looked by then knows nothing."""
        self._placed_at[flag_name(task_id)] = self.world.now
        self.damaged[task_id] = self.world.now
        self.strikes[task_id] += 1
        self._flags[task_id] = ""

    def lose(self, task_id: str) -> None:
        """What is recorded of a result is lost or damaged."""
        self.strikes[task_id] += 1


def _is_possible(script: str, old: TaskState, new: TaskState) -> bool:
    """Tell whether one script may bring a task from here to there. One call settles by several verdicts: a task is
    tried again, and then ended with another one."""
    if script == "settle" and {(old, TaskState.PENDING), (TaskState.PENDING, new)} <= TRANSITIONS.keys():
        return True
    return (old, new) in TRANSITIONS


def _may_reopen(script: str, old: TaskState) -> bool:
    return script in _MAY_REOPEN or (script == "settle" and old in _MAY_BE_SETTLED)
