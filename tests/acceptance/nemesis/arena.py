"""The loop of a run: faults strike and are mended, the dead come back, clients and ledger are judged."""

from __future__ import annotations

import heapq
import itertools
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import redis

from tests.acceptance.nemesis import ending
from tests.acceptance.nemesis.clients import Clients
from tests.acceptance.nemesis.cluster import SERVER, Cluster
from tests.acceptance.nemesis.faults import STRIKES
from tests.acceptance.nemesis.oracle import Oracle
from tests.acceptance.nemesis.rounds import Round
from tests.acceptance.nemesis.schedule import LEASE_SECONDS, Fault, Missed
from tests.acceptance.nemesis.tally import Tally

TICK_SECONDS, LOOK_SECONDS, COPY_SECONDS, OLD_SECONDS = 0.05, 5.0, 10.0, 30.0
RESTART_SECONDS = 0.2
#: A fault that finds no victim looks again so often, at such intervals.
TRIES, RETRY_SECONDS = 4, 0.5
#: How many hours of load (`load.plans`) a graph is, for each hour of the run. What is damaged takes with it what was
#: computed from it, so a longer graph does not come to its end before the faults do.
LOAD = 1.0
#: How long the last graph may take once all faults are over, at least.
CALM_SECONDS = 120.0


@dataclass(frozen=True)
class Length:
    """How long a run is, in seconds, by how much its faults are hurried, and the longest task."""

    seconds: float
    speed: float = 1.0
    longest: float = 5.0


class Arena:
    """One run of the nemesis; `run` returns what was violated."""

    def __init__(
        self, seed: int, length: Length, faults: Sequence[Fault], say: Callable[[str], None], other_python: str | None
    ) -> None:
        self._seed = seed
        self._length = length
        self._faults = faults
        self._say = say
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._down_until: dict[str, float] = {}
        self._disturbed: list[tuple[float, float, str | None]] = []
        self._names: dict[int, str] = {}
        self._began = time.monotonic()
        self.other_python = other_python
        self.violations: list[str] = []
        self.struck: Counter[str] = Counter()
        self.missed: Counter[tuple[str, str]] = Counter()
        self.strangers: set[int] = set()
        self.asleep: set[str] = set()
        self.copies: list[Path] = []
        self.rounds_done = 0
        self.tasks_done = 0
        self.notes: Counter[str] = Counter()
        self.cluster = Cluster(say)
        self.tally = Tally(self.cluster.logs)
        self.canary = self.cluster.directory / "canary"
        self._open_round(0)

    # Time, and what a fault asks for.

    def clock(self) -> float:
        """Seconds by the clock of the ledger."""
        return time.monotonic()

    def disturb(self, who: str | None, seconds: float) -> None:
        """Note that a worker, a link, or with None everybody, is disturbed so long."""
        self._disturbed.append((self.clock(), self.clock() + seconds, who))

    def stay_down(self, name: str, seconds: float) -> None:
        """Let a process that was killed stay away so long."""
        self._down_until[name] = self.clock() + seconds

    def patiently(self, act: Callable[[], object], tries: int = 20) -> None:
        """Do something with the server, again and again if it cannot be reached."""
        try:
            act()
        except (redis.RedisError, OSError):
            if tries:
                self.later(0.5, lambda: self.patiently(act, tries - 1))

    def later(self, seconds: float, act: Callable[[], object]) -> None:
        """Do something in so many seconds."""
        heapq.heappush(self._heap, (self.clock() + seconds, next(self._order), act))

    def _violated(self, what: str) -> None:
        if what not in self.violations:
            self.violations.append(what)
            self._say(f"VIOLATION at {self.clock() - self._began:.1f} s: {what}")

    def _excuses(self, pid: int, since: float, at: float) -> bool:
        """Whether the worker may have taken the task before `since` and have been held up until `at`."""
        name = self._names.get(pid, "")
        who = (None, name, name.partition("-")[0])
        return any(
            end + 2 * LEASE_SECONDS >= since and start <= at for start, end, victim in self._disturbed if victim in who
        )

    def _was_disturbed(self, start: float, end: float) -> bool:
        return any(
            until + 20 >= start and since <= end
            for since, until, victim in self._disturbed
            if victim in (None, "client")
        )

    # The run.

    def run(self) -> list[str]:
        """Carry the run out and return what was violated; `close` is the caller's."""
        self.cluster.start()
        self._began = self.clock()
        for fault in self._faults:
            self.later(fault.at, lambda fault=fault: self._strike(fault))  # type: ignore[misc]
        self._every(LOOK_SECONDS, self._look)
        self._every(COPY_SECONDS / self._length.speed, self._copy)
        self._until(lambda: self.clock() > self._began + self._length.seconds)
        self._calm()
        return self.violations

    def _until(self, is_over: Callable[[], bool]) -> None:
        while not is_over():
            self._turn()
            time.sleep(TICK_SECONDS)

    def _turn(self) -> None:
        due = self.clock()
        while self._heap and self._heap[0][0] <= due:
            heapq.heappop(self._heap)[2]()
        now = self.clock()  # what was due may have waited long for a frozen server, and disturbed others from then on
        for name in (SERVER, *self.cluster.schedulers, *self.cluster.workers):
            self._keep_up(name, now)
        self.clients.step(now)
        if self.clients.is_done:
            self._close_round()
            self._open_round(self.round.number + 1)

    def _keep_up(self, name: str, now: float) -> None:
        if self.cluster.lives(name):
            self._names.setdefault(self.cluster.processes[name].pid, name)
            return
        if now < self._down_until.setdefault(name, now + RESTART_SECONDS):
            return
        del self._down_until[name]
        self.cluster.start_server() if name == SERVER else self.cluster.start_member(name)

    def _strike(self, fault: Fault, tries: int = TRIES) -> None:
        at = f"{self.clock() - self._began:7.1f} s  {fault.kind}"
        earlier = len(self._disturbed)
        try:
            mend = STRIKES[fault.kind](self, fault, fault.chance())
        except Missed as reason:
            if tries > 1 and self.clock() + RETRY_SECONDS < self._began + self._length.seconds:
                self.later(RETRY_SECONDS, lambda: self._strike(fault, tries - 1))
                return
            self.missed[fault.kind, str(reason)] += 1
            self._say(f"{at}: missed, {reason}")
            return
        self.struck[fault.kind] += 1
        self._say(f"{at}" + (f" for {fault.length:.1f} s" if fault.length else ""))
        if mend is not None:
            disturbed = self._disturbed[earlier:]
            self.later(fault.length, lambda: self._mend(mend, disturbed))

    def _mend(self, mend: Callable[[], object], disturbed: Sequence[tuple[float, float, str | None]]) -> None:
        """Mend a fault; on a busy machine it may have lasted longer than it was to."""
        mend()
        self._disturbed += [(start, self.clock(), who) for start, _, who in disturbed]

    def _every(self, seconds: float, act: Callable[[], object]) -> None:
        def again() -> None:
            act()
            self.later(seconds, again)

        self.later(seconds, again)

    def _look(self) -> None:
        self.oracle.look(self.cluster.keyring)
        for pid in self.strangers:
            if self.oracle.workers[pid]:
                self._violated(f"P17: the stranger {pid} has run a task")
        if self.canary.exists():
            self._violated("P12: a hostile flag was unpickled")
        try:
            with redis.Redis.from_url(self.cluster.admin_url, socket_timeout=1) as admin:
                self.tally.read_events(admin)
        except (redis.RedisError, OSError):
            self.notes["looks without the server"] += 1

    def _copy(self) -> None:
        """Keep copies of the server's files, the first of them as old as a restored one is to be."""
        copy = self.cluster.directory / "copies" / f"{self.clock():.3f}"
        try:
            shutil.copytree(self.cluster.data, copy, ignore=shutil.ignore_patterns("filler"))
        except (OSError, shutil.Error):
            shutil.rmtree(copy, ignore_errors=True)
            return
        self.copies.append(copy)
        while len(self.copies) > OLD_SECONDS / COPY_SECONDS + 1:
            shutil.rmtree(self.copies.pop(0), ignore_errors=True)

    # Rounds.

    def _open_round(self, number: int) -> None:
        hours = LOAD * self._length.seconds / 3600
        self.round = Round(number, self._seed, hours, self._length.longest, self.cluster.disk, self.cluster.directory)
        self.round.prepare()
        self.oracle = Oracle(self.round, self.clock, self._excuses, self._violated)
        oracle = self.oracle
        self.clients = Clients(
            self.cluster,
            self.round,
            lambda status, facts: oracle.judge_end(status, facts, self.cluster.keyring),
            self._violated,
            self._was_disturbed,
        )
        self._say(f"round {number}: {len(self.round.plans)} tasks")

    def _close_round(self) -> None:
        self._say(f"{self.clock() - self._began:7.1f} s  round {self.round.number} is done")
        self._look()
        self.oracle.judge_starts()
        self.clients.close()
        self.rounds_done += 1
        self.tasks_done += len(self.round.plans)
        self.notes += self.oracle.counts
        self.notes["executions"] += sum(self.oracle.starts.values())

    def _calm(self) -> None:
        """Mend everything, see the last graph through, and look at what is left."""
        self._say(f"{self.clock() - self._began:7.1f} s  calm")
        acts, self._heap = sorted(self._heap), []
        for _, _, act in acts:
            act()
        self._down_until = {}
        last = self.round.number
        limit = self.clock() + CALM_SECONDS + self._length.seconds / 2
        self._until(lambda: self.round.number > last or self.clock() > limit)
        self.oracle.judge_starts()
        if self.round.number == last:
            self._violated(f"P1: round {last} is not over, long after the last fault")
            return
        self.clients.close()
        self._look()
        for found in (ending.busy, ending.everlasting_keys, ending.leftovers, ending.told_secrets):
            for what in found(self.cluster):
                self._violated(what)
        for what in self.tally.doubled_warnings():
            self._violated(f"P12: warned twice of one record: {what}")
        self.tally.read_logs(self.cluster.steer())
        for what in self.tally.lacking(self._length.seconds * self._length.speed / 3600):
            self._violated(f"the faults did not bite: {what}")

    def close(self, *, keep: bool) -> None:
        """End everything; keep the state if something was violated, or if it is asked for."""
        self.clients.close()
        if keep or self.violations:
            ignored = shutil.ignore_patterns("filler", "*.sock")
            shutil.copytree(self.cluster.disk, self.cluster.directory / "kept", ignore=ignored)
        self.cluster.close()
        if not keep and not self.violations:
            shutil.rmtree(self.cluster.directory)
