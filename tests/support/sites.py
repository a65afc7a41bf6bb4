"""Real runs in a state directory of their own, and the killing of their processes.

A `Site` is a state directory with its server, keeper, scheduler and two workers, times compressed ten to one. A
`Run` is one command on it, over a small census or a graph of one's own, with the ledger as the oracle: what was on
record before a fault must not start again after it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import redis

from overnight.cache import FileTaskCache
from overnight.config import read_settings
from overnight.embedded import EmbeddedServer
from overnight.fleet_files import FleetFiles, fleet_files
from overnight.graph import Task
from overnight.local_fleet import ensure_fleet
from overnight.slots import slot_pid
from overnight.state_dir import wait_until
from overnight.store.connection import connect
from overnight.store.redis import RedisStore
from tests.support.command import Desk
from tests.support.ledgers import read_ledger
from tests.support.plain_census import plain_census

SECONDS = 60.0
SCHEDULER, WORKER = "scheduler", "worker-default-1"
PACKAGES = ("json", "logging", "email", "urllib")
COMPRESSED = {
    "OVERNIGHT_LEASE_SECONDS": "1.5",
    "OVERNIGHT_HEARTBEAT_SECONDS": "0.5",
    "OVERNIGHT_IDLE_SECONDS": "1",
}


class Site(Desk):
    """A state directory and all that runs for it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.environ = {**COMPRESSED, "TEST_SITE": str(directory)}

    def environment(self) -> dict[str, str]:
        """The environment of a script of one's own on this site."""
        return {**os.environ, **self.environ}

    @property
    def files(self) -> FleetFiles:
        return fleet_files(self.state_dir, None)

    @contextmanager
    def client(self) -> Iterator[redis.Redis]:
        """A connection to the site's server."""
        with connect(EmbeddedServer(self.state_dir).url, settings=read_settings({})) as client:
            yield client

    @contextmanager
    def store(self) -> Iterator[RedisStore]:
        """The store on the site's server."""
        with self.client() as client:
            yield RedisStore(client, read_settings({}).prefix)

    def epoch(self) -> tuple[int, str]:
        """The number of the scheduler's epoch, and what its holder says of itself."""
        with self.client() as client:
            number, description = client.hmget("{overnight}:scheduler", "number", "description")
        return int(number or 0), str(description)

    def start_scheduler(self) -> subprocess.Popen[str]:
        """Start a scheduler of our own, beside the keeper's."""
        return self.start("scheduler")

    def phase(self) -> str:
        """How the newest run stands."""
        with self.store() as store:
            return store.runs()[0].phase.value

    def is_over(self) -> bool:
        """Whether the newest run is over."""
        with self.store() as store:
            return store.runs()[0].phase.is_over

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds."""
        assert wait_until(condition, SECONDS), "it never came to be"

    def processes(self) -> list[psutil.Process]:
        """All processes that commands on this site, or what these started, have left running."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            ours = process.environ().get("TEST_SITE") == str(self.directory)
            return ours or Path(process.cwd()).is_relative_to(self.state_dir.resolve())
        return False

    def slot(self, name: str) -> psutil.Process:
        """The process in a slot, waited for."""
        return self._holder(self.files.slot_lock(name))

    def keeper(self) -> psutil.Process:
        """The keeper, waited for."""
        return self._holder(self.files.keeper_lock)

    def server(self) -> psutil.Process:
        """The server."""
        with self.client() as client:
            return psutil.Process(client.info("server")["process_id"])

    def task_children(self) -> list[psutil.Process]:
        """The children in which the workers run tasks, one each."""
        names = [name for name in self.files.known_slots() if name != SCHEDULER]
        return [child for name in names for child in self.slot(name).children()]

    def _holder(self, lock: Path) -> psutil.Process:
        assert wait_until(lambda: slot_pid(lock) is not None, SECONDS), f"nothing holds {lock}"
        return psutil.Process(slot_pid(lock))


def kill(*processes: psutil.Process) -> None:
    """Kill at once, and see that they are gone: nothing that was killed has lived on to do the work."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.suspend()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    assert wait_until(lambda: not any(map(_lives, processes)), SECONDS), "a killed process lives"


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@contextmanager
def open_site(directory: Path) -> Iterator[Site]:
    """A site whose processes stay until the context ends; then none may be left."""
    site = Site(directory)
    lease = ensure_fleet(site.state_dir, workers=2)
    try:
        yield site
    finally:
        lease.close(stop=True)
        for process in site.processes():
            process.kill()


@dataclass(frozen=True)
class Recorded:
    """What was on record at a moment, and how often each task had been started by then."""

    tasks: frozenset[str]
    starts: Counter[str]


class Run:
    """A command on a site, repeatable; `words` are target and parameters."""

    def __init__(self, site: Site, name: str, *words: str, jobs: int = 2) -> None:
        self.site = site
        self.flags = site.directory / f"flags-{name}"
        self.ledger = site.directory / f"ledger-{name}"
        self._words = ("run", *words, "-p", f"ledger={self.ledger}", "-d", str(self.flags), "-j", str(jobs))

    def start(self) -> subprocess.Popen[str]:
        """Start the command."""
        return self.site.start(*self._words)

    def again(self) -> str:
        """Carry the command out; it must succeed. Return what it printed."""
        return finish(self.start())

    def starts(self) -> Counter[str]:
        """How often each task has been started."""
        return Counter(task_id for event, task_id in read_ledger(self.ledger) if event == "start")

    def ended(self) -> int:
        """How many attempts have ended."""
        return sum(event == "end" for event, _ in read_ledger(self.ledger))

    def in_progress(self) -> int:
        """How many attempts have started and not ended."""
        return sum(1 if event == "start" else -1 for event, _ in read_ledger(self.ledger))

    def freeze_at_work(self, processes: Sequence[psutil.Process]) -> None:
        """Stop all processes that run tasks at a moment when each of them is in the middle of one."""

        def are_at_work() -> bool:
            for process in processes:
                process.suspend()
            assert wait_until(lambda: all(one.status() == psutil.STATUS_STOPPED for one in processes), SECONDS)
            if self.in_progress() == len(processes):
                return True
            for process in processes:
                process.resume()
            return False

        assert wait_until(are_at_work, SECONDS), "no moment came at which every child was at work"

    def wait_for(self, ended: int) -> None:
        """Wait until so many attempts have ended and some are on record."""
        assert wait_until(lambda: self.ended() >= ended and bool(self.recorded().tasks), SECONDS), "no progress"

    def recorded(self) -> Recorded:
        """What is on record now: flags first, so that a start that is not counted came after its flag."""
        ids = {task_id for _, task_id in read_ledger(self.ledger)}
        found = FileTaskCache(str(self.flags)).read_headers([Task(task_id) for task_id in ids])
        return Recorded(frozenset(task.task_id for task in found), self.starts())

    def check_not_started_again(self, before: Recorded) -> None:
        """P3: nothing that was on record has been started since."""
        assert before.tasks, "nothing was on record: the fault came too early"
        starts = self.starts()
        assert [task_id for task_id in before.tasks if starts[task_id] != before.starts[task_id]] == []

    def check_complete(self, tasks: int) -> None:
        """Everything has run, and the same command has nothing to do."""
        starts = self.starts()
        assert len(starts) == tasks
        assert "Nothing to do" in self.again()
        assert self.starts() == starts, "a finished run was executed again"


class Entries(Run):
    """A random graph of 40 tasks of `seconds` each; `words` are further options."""

    total = 40

    def __init__(self, site: Site, name: str, *words: str, seconds: float = 0.1, jobs: int = 2) -> None:
        parameters = ["-p", f"n={self.total}", "-p", f"seconds={seconds}"]
        super().__init__(site, name, "tests.support.graphs:ledger_graph", *parameters, *words, jobs=jobs)


class Census(Run):
    """The census of a few packages of the standard library, each count slowed."""

    def __init__(self, site: Site, name: str, *, slow: float = 0.1) -> None:
        self.root = _some_packages(site.directory / "library")
        self.out = site.directory / f"census-{name}"
        words = ["-p", f"root={self.root}", "-p", f"out={self.out}", "-p", f"slow={slow}"]
        super().__init__(site, name, "tests.support.graphs:ledger_census", *words)
        self.files = len(list(self.root.rglob("*.py")))

    @property
    def total(self) -> int:
        """How many tasks there are: one a file, one a package, the ranking, the report."""
        return self.files + len(PACKAGES) + 2

    def check(self) -> None:
        """The outputs are whole and right."""
        document = json.loads((self.out / "census.json").read_text("utf-8"))
        assert document["totals"] == plain_census(str(self.root))
        assert len((self.out / "census.csv").read_text("utf-8").splitlines()) == 1 + self.files
        assert (self.out / "census.html").read_text("utf-8").rstrip().endswith("</html>")
        assert [path.name for path in self.out.iterdir() if path.suffix not in (".csv", ".json", ".html")] == []
        self.check_complete(self.total)


def _some_packages(directory: Path) -> Path:
    if not directory.exists():
        library = Path(sysconfig.get_paths()["stdlib"])
        for package in PACKAGES:
            shutil.copytree(library / package, directory / package, ignore=shutil.ignore_patterns("__pycache__"))
    return directory


def finish(command: subprocess.Popen[str], status: int = 0) -> str:
    """Wait for a command and return its standard output; it must end with `status`."""
    out, err = command.communicate(timeout=SECONDS)
    assert command.returncode == status, f"status {command.returncode}\n{out[-2000:]}\n{err[-2000:]}"
    return out


def killed(command: subprocess.Popen[str]) -> None:
    """Kill a command's process and wait for its end."""
    assert command.poll() is None, "the command had ended before it could be killed"
    command.kill()
    command.communicate(timeout=SECONDS)
    assert command.returncode == -signal.SIGKILL
