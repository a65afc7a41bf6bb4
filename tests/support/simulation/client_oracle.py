"""What must hold for clients, and for what is left when all has ended (I3, I6, I7, I8)."""

from __future__ import annotations

from typing import Any

from overnight.core.repairs import MOST_REPAIRS
from overnight.core.retry import LEAST_BEGUN, MOST_LOSSES, MOST_LOSSES_UNBEGUN
from overnight.core.states import SUCCEEDED, TERMINAL, TaskState
from overnight.flags import DONE, Flag
from overnight.pickling import loads
from overnight.results import ResultLost, Results
from overnight.store.memory import MemoryStore
from overnight.store.memory_data import MemoryRun
from tests.support.simulation.evidence import KEYRING, Evidence


class ClientOracle(Evidence):
    """The judge of clients."""

    __slots__ = ()

    def yielded(self, pairs: dict[str, Any], task_id: str, value: Any) -> None:
        """A client hears of a task once, after those it depends on, and computed from what it heard of those.

        Without flags a server that falls back has results computed again that were told already.
        """
        if task_id in pairs:
            self._fail("I2", f"{task_id} was yielded twice")
        pairs[task_id] = value
        if isinstance(value, dict):
            for dependency, nonce in value["of"].items():
                other = pairs.get(dependency)
                is_excused = self.has_forgotten or self._was_damaged(dependency)
                if other is not None and other["nonce"] != nonce and not is_excused:
                    self._fail("I3", f"{task_id} was yielded with another result of {dependency} than was")

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
        # Whoever gives the command once more runs all.
        if left and (self.is_final or not self.may_leave_tasks):
            self._fail("I7", f"the client ended and {left} never ran")
        unlike = [task_id for task_id in finished if self.retries[task_id] < 0]
        if unlike:
            self._fail("I7", f"{unlike} succeeded, and could not")
        if self.directory is None:
            for task_id in sorted(finished - set(pairs)):
                self._fail("I8", f"{task_id} is reported as finished and was not yielded")
            return
        fresh = {task_id for task_id, at in self.damaged.items() if at >= began}
        # Of what was finished before, a client that takes no value of it reads headers alone.
        unread = {task_id for task_id in summary.cached if self.flag(task_id) is None and self.has_header(task_id)}
        for task_id in sorted(finished - fresh - unread):
            self._proven(task_id, fresh, pairs.get(task_id))

    def _proven(self, task_id: str, fresh: set[str], value: Any) -> None:
        flag = self.flag(task_id)
        if flag is None and self._is_run_again(task_id):
            return
        if flag is None or flag.header.state != DONE:
            self._fail("I8", f"{task_id} is reported as finished and has no flag")
            return
        found = loads(flag.body)
        if value is not None and value != found and not self._was_damaged(task_id):
            self._fail("I8", f"the flag of {task_id} holds another result than was yielded")
        for dependency, nonce in found["of"].items():
            other = self.flag(dependency)
            if other is None or dependency in fresh or self._is_being_replaced(flag, other):
                continue
            if loads(other.body)["nonce"] != nonce:
                self._fail("I3", f"the flag of {task_id} is not of the flag of {dependency}")

    def _is_run_again(self, task_id: str) -> bool:
        """Tell whether a later run runs a task, or has yet to do it: between two steps its worker has no flag in place,
        and may be frozen there until another one takes its task over."""
        codes = [run.code(self._ids(run).index(task_id)) for run in self._runs().values() if task_id in self._ids(run)]
        return TaskState.RUNNING in codes or any(code not in TERMINAL for code in codes[1:])

    def _is_being_replaced(self, flag: Flag, other: Flag) -> bool:
        """Tell whether a later run, which goes on, has replaced the flag of a dependency and comes to this one."""
        later = self._runs().get(other.header.run_id or "")
        return later is not None and other.header.run_id != flag.header.run_id and not later.phase.is_over

    def _may_fail(self, task_id: str) -> bool:
        left = self.retries[task_id]
        if left < 0 or self.child_kills[task_id] + self.failures[task_id] > left or self._is_poison(task_id):
            return True
        # P12: an input that is lost is computed again, three times.
        return not self.is_final and any(self.strikes[name] > MOST_REPAIRS for name in self.dependencies[task_id])

    def _is_poison(self, task_id: str) -> bool:
        """P10: it lost its worker three times, and had begun before at least two of them; or nine times."""
        losses, begun = self.losses[task_id], max(self.executions[task_id], self.begun_losses[task_id])
        return losses >= MOST_LOSSES_UNBEGUN or (losses >= MOST_LOSSES and begun >= LEAST_BEGUN)

    def _may_skip(self, task_id: str) -> bool:
        return any(self._may_fail(name) or self._may_skip(name) for name in self.dependencies[task_id])

    # The end.

    def at_the_end(self, commands: int) -> None:
        """I6, I8 for what the server holds, after so many commands."""
        # What a run records is the flags', until another one is active.
        last = self.last_ended if all(run.phase.is_over for run in self._runs().values()) else ""
        for run_id, run in self._runs().items():
            store = MemoryStore(now=self.world.server_clock)
            store.data = self.server.data
            results = Results(store, run_id, KEYRING)
            for task in range(len(run.states) // 2):
                if run.code(task) in SUCCEEDED and run_id == last:
                    self._backed(results, run, task)
        faults = sum(self.world.struck.values())
        for task_id, number in self.executions.items():
            # A batch that the server forgot is run twice, and what one of the two computed in it from a result that
            # the other was faster with is run once more.
            forgotten = len(self.server.rollbacks) if self.dependencies[task_id] else 0
            allowed = 1 + self.failures[task_id] + faults + forgotten
            if self.directory is None or self.world.struck["disk"]:
                # Each command computes what no flag tells, and again what a batch computed after a member that failed.
                allowed += commands + sum(self.failures.values())
            if number > allowed:
                self._fail("I6", f"{task_id} ran {number} times, with {faults} faults")

    def _is_forgotten(self, run: MemoryRun, task: int, task_id: str) -> bool:
        """Tell whether a flag stems from a run or an attempt that the server lost: a command that finds it needs no
        server."""
        flag = self.flag(task_id)
        if flag is None or not self.server.rollbacks:
            return False
        is_later = flag.header.run_id == run.record.run_id and (flag.header.attempt or 0) > run.attempt(task)
        return is_later or flag.header.run_id not in self._runs()

    def _is_held(self, run: MemoryRun, task: int, task_id: str) -> bool:
        """Tell whether a result that was lost on the server, perhaps after it had been proven, is in its flag; without
        flags it is with those to whom it was yielded."""
        if self.directory is None or not self.strikes[task_id]:
            return self.strikes[task_id] > 0
        flag = self.flag(task_id)
        return flag is not None and flag.header.body_sha256 == run.digest(task).hex()

    def _backed(self, results: Results, run: MemoryRun, task: int) -> None:
        stored = results.stored([task]).get(task)
        name = self._name(run, task)
        if name in self.damaged and self.has_header(name):
            return  # another result, or a damaged one under a good header, which a command that needs no value takes
        if self._is_forgotten(run, task, name) or self._is_held(run, task, name):
            return
        if stored is None or isinstance(stored, ResultLost):
            self._fail("I8", f"{name} is done and has no result: {stored}")
        elif stored.digest != run.digest(task):
            self._fail("I8", f"{name} is done with another digest than its result has")
        else:
            try:
                results.body(stored, name)
            except ResultLost as error:
                self._fail("I8", str(error))
