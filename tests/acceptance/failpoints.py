"""One real run for each failpoint and action, and the oracle that judges it (ADVERSITY 5).

A case is a small graph, a scheduler, a worker and a client in a database and a state directory of their own, with
compressed times; one of the processes fails at its point. Whatever ends is started again at once, as a service manager
would, and the client's command is typed again until it succeeds. Then the oracle looks at ledger, flags and Redis.

`python -m tests.acceptance.failpoints --all --repeats 40` is the nightly form: each case again and again, at random
passes of its point.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from overnight.cache import FileTaskCache, result_in
from overnight.config import read_settings
from overnight.core.states import SUCCEEDED, TaskState
from overnight.failpoints import POINTS, Failpoint
from overnight.flags import FoundFlag
from overnight.graph import Task
from overnight.naming import flag_name
from overnight.state_dir import wait_until
from overnight.store.connection import connect
from overnight.store.records import Happening
from overnight.store.redis import RedisStore
from tests.support.copies import ROOT, Nursery, Started
from tests.support.servers import running_server, server_binary
from tests.support.stamped import SHAPES, Stamp, read_entries

AT_ONCE = 8
SECONDS = 60.0
STOP_SECONDS = 2.5
MOST_COMMANDS = 4
#: How much later than its flag a task may seem to start: file times come from a coarser clock than the ledger's.
CLOCK_NS = 20_000_000
#: Where a worker or its child freezes while a task has begun whose flag does not stand yet.
_IN_A_TASK = (
    "worker.in_heartbeat", "worker.after_child_exit", "child.mid_task", "child.during_serialise",
    "child.before_outcome", "flags.mid_temp_write", "flags.after_fsync", "flags.after_rename",
)  # fmt: skip
COMPRESSED = {
    "OVERNIGHT_LEASE_SECONDS": "1.5",
    "OVERNIGHT_HEARTBEAT_SECONDS": "0.5",
    "OVERNIGHT_DRAIN_SECONDS": "20",
}
#: What a point needs before it is reached, of the worker: a failpoint before it, other arguments.
_BEFORE = {
    "scheduler.after_reap": "worker.after_claim:kill9@1",
    "worker.in_spool_write": "worker.before_commit:raise@1",
}
#: Points that a process comes to after so many signals, sent when a task has started.
_SIGNALLED = {"scheduler.before_exit": 1, "worker.in_give_back": 2}
#: Two signals in quick succession are one.
_BETWEEN_SIGNALS = 1.2
_WORKER_WORDS = {"worker.after_child_exit": ("--tasks-per-child", "1")}
#: Deaths and exceptions that are the task's own: it is charged, and needs a retry.
_CHARGED = ("child.mid_task", "child.during_serialise")
#: A point that is reached when a result is lost.
_LOSING = "scheduler.after_repair"
_ENDS = {"kill9": -signal.SIGKILL, "exit0": 0}
#: Points that a run passes several times.
_OFTEN = (
    "client.while_following", "scheduler.before_dispatch", "scheduler.after_dispatch", "scheduler.after_enqueue",
    "worker.after_pop", "worker.after_claim", "worker.before_commit", "worker.after_commit", "worker.in_heartbeat",
    "child.mid_task", "child.between_batch_members", "child.during_serialise",
    "child.before_outcome", "flags.mid_temp_write", "flags.after_fsync", "flags.after_rename",
)  # fmt: skip
#: In the midst of batches whose tasks depend on each other; where exactly is a matter of speed.
_IN_A_ROW = (
    *(Failpoint("worker.before_commit", "kill9", at=number) for number in (4, 5, 6)),
    *(Failpoint("flags.after_fsync", "stop", 3.0, at=number) for number in (6, 8, 10)),
)
_QUEUES = (1, 2, 5)
_SMALL = ("chain", "diamond", "fan_out")


@dataclass(frozen=True)
class Case:
    """A failpoint, the shape of the graph, and how many queues the worker serves: RQ takes from several otherwise.

    A stopped process has a second one beside it, which takes its place. `must_strike` is False where the pass may be
    one that the run does not come to.
    """

    failpoint: Failpoint
    shape: str
    queues: int = 1
    must_strike: bool = True

    @property
    def name(self) -> str:
        at = "" if self.failpoint.at == 1 else f"@{self.failpoint.at}"
        return f"{self.failpoint.point}:{self.failpoint.action}{at}"

    @property
    def process(self) -> str:
        """The process that fails; a child and the writer of flags are the worker's."""
        process = self.failpoint.point.partition(".")[0]
        return process if process in ("client", "scheduler") else "worker"

    @property
    def charges(self) -> bool:
        """Whether the fault is a failed attempt of a task."""
        return self.failpoint.point in _CHARGED and self.failpoint.action != "stop"

    @property
    def begins_again(self) -> bool:
        """Whether a task runs again under its claim: its child died with an outcome that nobody had heard."""
        return self.failpoint.point == "child.before_outcome" and self.failpoint.action != "stop"

    @property
    def loses(self) -> bool:
        """Whether what is recorded of a result is lost. It is found in its flag."""
        return self.failpoint.point == _LOSING

    @property
    def has_rival(self) -> bool:
        """Whether there is a second scheduler or worker."""
        return self.failpoint.action == "stop" and self.failpoint.point not in _SIGNALLED

    @property
    def overlaps(self) -> bool:
        """Whether a second worker may have claimed a task when the flag of the frozen one's attempt is put there."""
        return self.failpoint.action == "stop" and self.failpoint.point in _IN_A_TASK


def _shape(point: str, number: int) -> str:
    if point == _LOSING:
        return "loss"
    return "wide" if point == "child.between_batch_members" else _SMALL[number % len(_SMALL)]


def all_cases() -> list[Case]:
    """Return a case for each action of each point; shapes and numbers of queues take turns."""
    pairs = [(point, action) for point, actions in POINTS.items() for action in actions]
    once = [
        Case(
            Failpoint(point, action, STOP_SECONDS if action == "stop" else 0.0),
            _shape(point, index),
            _QUEUES[index // 3 % len(_QUEUES)],
        )
        for index, (point, action) in enumerate(pairs)
    ]
    return once + [Case(failpoint, "row", must_strike=False) for failpoint in _IN_A_ROW]


def at_random(case: Case, chance: random.Random) -> Case:
    """Return the case with another graph, at another pass, with other queues, stopped for longer or less long."""
    failpoint = case.failpoint
    shape = _shape(failpoint.point, chance.randrange(len(_SMALL)))
    if failpoint.point in _OFTEN:
        shape = chance.choice(("row", shape))
        failpoint = replace(failpoint, at=chance.randint(1, 12 if shape == "row" else 4))
    if failpoint.action == "stop":
        failpoint = replace(failpoint, seconds=round(chance.uniform(0.5, 5.0), 2))
    return Case(failpoint, shape, chance.choice(_QUEUES), must_strike=False)


class Stage:
    """One case being played: its processes, its ledger, its flags."""

    def __init__(self, case: Case, nursery: Nursery, url: str, directory: Path) -> None:
        self.case = case
        self.url = url
        self.ledger = directory / "ledger"
        self.flags = directory / "flags"
        self.marks = directory / "marks"
        self.statuses: dict[str, list[int]] = {"scheduler": [], "worker": [], "client": []}
        self._nursery = nursery
        self._directory = directory
        self._kept: list[tuple[str, Started]] = []
        self._started: list[Started] = []
        self._told: list[float] = []
        self.marks.mkdir(parents=True)

    # Processes.

    def play(self) -> bool:
        """Run to the end; tell whether the fault struck. Raises AssertionError if anything is not as promised."""
        try:
            rivals = [self.case.process] if self.case.has_rival and self.case.process != "client" else []
            self._kept = [(name, self._start(name, self._words(name))) for name in ("scheduler", "worker", *rivals)]
            self._carry_out()
            self._check_struck()
            Oracle(self).judge()
            self._repeat()
            self._stop()
            return self.has_struck
        finally:
            for started in self._started:
                started.tell(signal.SIGKILL)

    def _start(self, process: str, words: Sequence[str]) -> Started:
        out = self._directory / f"{process}.log"
        started = self._nursery.start(process, words, self._environment(process), self._directory, out)
        self._started.append(started)
        return started

    def _words(self, process: str) -> Sequence[str]:
        if process == "scheduler":
            return ()
        if process == "worker":
            queues = ["default", *(f"other {number}" for number in range(1, self.case.queues))]
            served = [word for queue in queues for word in ("--queue", queue)]
            return [*served, *_WORKER_WORDS.get(self.case.failpoint.point, ())]
        first = 5.0 if self.case.failpoint.point == "worker.in_give_back" else 0.0
        given = {"ledger": self.ledger, "shape": self.case.shape, "first": first, "retries": int(self.case.charges)}
        given["seconds"] = 0.0 if self.case.shape in ("wide", "row") else 0.02
        if self.case.loses:
            given["loses"] = self.url
        parameters = [word for name, value in given.items() for word in ("-p", f"{name}={value}")]
        return ["run", "tests.support.stamped:stamped", *parameters, "-d", str(self.flags), "-j", "0"]

    def _environment(self, process: str) -> dict[str, str]:
        failpoint = self.case.failpoint
        texts = [_BEFORE.get(failpoint.point, "")] if process == "worker" else []
        texts += [failpoint.text] if process == self.case.process else []
        armed = ";".join(filter(None, texts))
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        environment |= {"PYTHONPATH": str(ROOT), "OVERNIGHT_REDIS_URL": self.url, **COMPRESSED}
        environment |= {"OVERNIGHT_STATE_DIR": str(self._directory / "state")}
        if armed:
            environment |= {"OVERNIGHT_FAILPOINT": armed, "OVERNIGHT_TESTING": "1"}
            environment |= {"OVERNIGHT_FAILPOINT_MARKS": str(self.marks)}
        return environment

    def _carry_out(self) -> None:
        """Type the command until it succeeds, keeping the other processes there."""
        for _ in range(MOST_COMMANDS):
            client = self._start("client", self._words("client"))
            deadline = time.monotonic() + SECONDS
            while not client.over.wait(0.02):
                self._keep()
                self._send_signals()
                assert time.monotonic() < deadline, f"the command does not end\n{self.told()}"
            self.statuses["client"].append(client.wait())
            if len(self.statuses["client"]) >= len(self._expected_statuses()):
                break
        assert self.statuses["client"] == self._expected_statuses(), self.told()

    def _expected_statuses(self) -> list[int]:
        """The exit statuses of the commands: one that fails itself, at its point, and one that succeeds."""
        failpoint = self.case.failpoint
        if self.case.process != "client" or failpoint.action in ("stop", "drop_reply") or not self.has_struck:
            return [0]
        if failpoint.action == "raise":
            return [0] if failpoint.point == "client.while_following" else [4, 0]
        return [_ENDS[failpoint.action], 0]

    def _keep(self) -> None:
        for number, (process, started) in enumerate(self._kept):
            if started.over.is_set():
                self.statuses[process].append(started.wait())
                self._kept[number] = process, self._start(process, self._words(process))

    def _send_signals(self) -> None:
        """Bring about what the case needs, once a task has started."""
        most = _SIGNALLED.get(self.case.failpoint.point, 0)
        if len(self._told) >= most or not self.ledger.exists():
            return
        now = time.monotonic()
        if not self._told or now - self._told[-1] > _BETWEEN_SIGNALS:
            self._told.append(now)
            next(started for process, started in self._kept if process == self.case.process).tell(signal.SIGTERM)

    @property
    def has_struck(self) -> bool:
        """Whether the fault has struck."""
        return (self.marks / self.case.failpoint.text).exists()

    def _check_struck(self) -> None:
        failpoint = self.case.failpoint
        if not self.case.must_strike and not self.has_struck:
            return
        assert self.has_struck, f"the fault did not strike\n{self.told()}"
        if failpoint.action == "drop_reply":
            assert "a reply is dropped" in self.told()
        if failpoint.action in _ENDS and not failpoint.point.startswith("child."):
            assert wait_until(lambda: self._has_ended(_ENDS[failpoint.action]), SECONDS), self.told()

    def _has_ended(self, status: int) -> bool:
        self._keep()
        return status in self.statuses[self.case.process]

    def _repeat(self) -> None:
        """P3: the same command finds everything recorded."""
        client = self._start("client", [*self._words("client"), "--dry-run"])
        assert client.wait() == 0, self.told()
        assert f"0 of {len(SHAPES[self.case.shape])} tasks would run" in client.said(), self.told()

    def _stop(self) -> None:
        self._keep()
        for _, started in self._kept:
            started.tell(signal.SIGTERM)
        for process, started in self._kept:
            # One that has only just been started, or woken, is ended by the signal itself: it holds nothing yet.
            assert started.wait() in (0, -signal.SIGTERM), f"{process} did not stop well\n{self.told()}"

    def told(self) -> str:
        """What the processes have said, for people."""
        logs = [path for path in sorted(self._directory.glob("*.log")) if path.exists()]
        said = [f"--- {path.name}\n{path.read_text('utf-8', 'backslashreplace')[-6000:]}" for path in logs]
        lines = self.ledger.read_text("utf-8") if self.ledger.exists() else ""
        return "\n".join([f"{self.case} {self.statuses}", *said, "--- ledger", lines])


class Oracle:
    """Judges a case that has been played (P1 to P5, P11)."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._dependencies = SHAPES[stage.case.shape]
        self._ids = [f"task {number}" for number in range(len(self._dependencies))]

    def judge(self) -> None:
        """Raise AssertionError for a broken promise."""
        found = self._flags()
        self._judge_values(self._values(found))
        with connect(self._stage.url, settings=read_settings({})) as client:
            store = RedisStore(client, "overnight")
            self._judge_starts(store)
            self._judge_store(store, found)

    def _flags(self) -> dict[str, FoundFlag]:
        cache = FileTaskCache(str(self._stage.flags))
        found = cache.read_flags([Task(task_id) for task_id in self._ids], with_bodies=True)
        flags = {task.task_id: flag for task, flag in found.items() if isinstance(flag, FoundFlag)}
        assert set(flags) == set(self._ids), f"not recorded: {set(self._ids) - set(flags)}\n{self._stage.told()}"
        return flags

    def _values(self, found: Mapping[str, FoundFlag]) -> dict[str, Stamp]:
        return {task_id: result_in(flag.body) for task_id, flag in found.items() if flag.body is not None}

    def _judge_values(self, values: Mapping[str, Stamp]) -> None:
        """P4: each value was computed from the recorded values of its dependencies."""
        for task_id, before in zip(self._ids, self._dependencies, strict=True):
            used = tuple(values[self._ids[number]].token for number in before)
            assert values[task_id].used == used, f"{task_id} was computed from others\n{self._stage.told()}"

    def _judge_starts(self, store: RedisStore) -> None:
        """P3, P5: each start has a claim, none comes after the own flag stood or before the dependencies had ended.

        Where a worker wakes and puts a flag there, a second one may have looked for it just before; however long its
        child then takes to begin, it had claimed the task by that time.
        """
        claims = self._claims(store)
        ended: set[str] = set()
        started = Counter[int]()
        for entry in read_entries(self._stage.ledger):
            number = self._ids.index(entry.task_id)
            if entry.event == "end":
                ended.add(entry.task_id)
                continue
            started[number] += 1
            most = len(claims[number]) + self._stage.case.begins_again
            assert started[number] <= most, f"{entry.task_id} was not claimed\n{self._stage.told()}"
            stands = (self._stage.flags / flag_name(entry.task_id)).stat().st_ctime_ns + CLOCK_NS
            in_time = sum(claim <= stands for claim in claims[number])
            again = entry.at > stands and not (self._stage.case.overlaps and started[number] <= in_time)
            assert not again, f"{entry.task_id} started again\n{self._stage.told()}"
            assert {self._ids[index] for index in self._dependencies[number]} <= ended, self._stage.told()

    def _claims(self, store: RedisStore) -> Mapping[int, Sequence[int]]:
        """When each task was claimed, in ns since the epoch by the server's clock, which is this host's."""
        claims: dict[int, list[int]] = {number: [] for number in range(len(self._ids))}
        for run in store.runs():
            for event in store.follow(run.run_id, "0", 0.0):
                if event.what is Happening.CLAIMED:
                    for number in event.tasks:
                        claims[number].append(int(event.cursor.partition("-")[0]) * 1_000_000)
        return claims

    def _judge_store(self, store: RedisStore, found: Mapping[str, FoundFlag]) -> None:
        """P1, P2: all are finished, by one accepted success each, whose digest is the flag's."""
        for run in store.runs():
            assert run.phase.is_over, self._stage.told()
        run = store.runs()[0]
        codes = [TaskState(code) for code in store.states(run.run_id)[::2]]
        assert all(state in SUCCEEDED for state in codes), f"{codes}\n{self._stage.told()}"
        digests = [digest.hex() for digest in store.read_digests(run.run_id, range(len(codes)))]
        assert digests == [found[task_id].header.body_sha256 for task_id in self._ids], self._stage.told()
        committed = [
            report
            for event in store.follow(run.run_id, "0", 0.0)
            if event.what is Happening.COMMITTED
            for report in event.reports
        ]
        accepted = Counter(report.task for report in committed if report.ok)
        computed = [task for task, state in enumerate(codes) if state is TaskState.DONE]
        expected = {task: 2 if self._stage.case.loses and task < 2 else 1 for task in computed}
        assert accepted == expected, f"{accepted}\n{self._stage.told()}"
        failures = sum(not report.ok for report in committed)
        most = int(self._stage.case.loses or (self._stage.case.charges and self._stage.has_struck))
        assert failures == most, f"{failures} failures\n{self._stage.told()}"


class Theatre:
    """Plays cases, several at a time."""

    def __init__(self, nursery: Nursery, url: str, directory: Path) -> None:
        self._nursery = nursery
        self._url = url
        self._directory = directory
        self._played = 0
        self._pool = ThreadPoolExecutor(AT_ONCE)

    def play(self, case: Case) -> Future[bool]:
        """Have a case played; the future tells whether its fault has struck, and raises what was wrong."""
        self._played += 1
        url = self._url.replace("db=0", f"db={self._played}")
        stage = Stage(case, self._nursery, url, self._directory / str(self._played))
        return self._pool.submit(stage.play)

    def close(self) -> None:
        """Drop what has not begun; wait for what has."""
        self._pool.shutdown(cancel_futures=True)


@contextmanager
def open_theatre(databases: int) -> Iterator[Theatre]:
    """A theatre for so many cases, with a server of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="ov-", ignore_cleanup_errors=True) as directory,
        running_server(server_binary("valkey"), Path(directory) / "server", databases=str(databases + 1)) as url,
        Nursery() as nursery,
    ):
        theatre = Theatre(nursery, url, Path(directory))
        try:
            yield theatre
        finally:
            theatre.close()


def main(arguments: Sequence[str]) -> int:
    """Play cases; print those that fail; return 1 if any does."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--all", action="store_true", help="every case; without it those whose name holds a WORD")
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("--repeats", type=int, default=1, help="after the first time, at random passes")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    chosen = [case for case in all_cases() if options.all or any(word in case.name for word in options.words)]
    chance = random.Random(options.seed)
    cases = chosen + [at_random(case, chance) for _ in range(options.repeats - 1) for case in chosen]
    begin = time.monotonic()
    counts = Counter[str]()
    with open_theatre(len(cases)) as theatre:
        for case, future in [(case, theatre.play(case)) for case in cases]:
            error = future.exception()
            word = "FAILED" if error else "ok" if future.result() else "not reached"
            counts[word] += 1
            sys.stdout.write(f"{word}: {case.failpoint.text} {case.shape}, {case.queues} queues\n")
            sys.stdout.write("".join(traceback.format_exception(error)) if error else "")
            sys.stdout.flush()
    sys.stdout.write(f"{len(cases)} cases, {dict(counts)}, {time.monotonic() - begin:.0f} s\n")
    return int(counts["FAILED"] > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
