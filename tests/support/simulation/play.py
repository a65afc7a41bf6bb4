"""One seed: what it draws, how it is played, and what came of it."""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from overnight.audit import Audit, Findings
from overnight.cache import FileTaskCache, NoTaskCache, TaskCache
from overnight.graph import TaskGraph
from overnight.keyring import Keyring
from overnight.service.duties import Duties
from overnight.store.records import Request
from overnight.task import Task, TaskDesc, TaskOptions
from tests.support.simulation import tasks
from tests.support.simulation.actors import ClientActor, SchedulerActor, WorkerActor, settings_of
from tests.support.simulation.child import SimChild
from tests.support.simulation.faults import HEALED_BY_NETS, OF_FLAGS, drawn_rates
from tests.support.simulation.gremlin import Gremlin
from tests.support.simulation.oracle import Oracle
from tests.support.simulation.seams import in_place
from tests.support.simulation.server import Line, Server
from tests.support.simulation.world import Actor, Overrun, Violation, World

STORM_TICKS = 150
QUIET_TICKS = 900
DURATIONS = (0.0, 0.01, 0.05, 0.3, 1.0, 4.0)
#: Short ones go many to a batch.
SHORT = (0.01, 0.03, 0.06, 0.1)
SEASONS = (0, 0, 1, 1, 2)
#: Results lie in the store, or all elsewhere.
INLINE_BYTES = (1 << 16, 1 << 16, 16)
#: What makes the server of a world.
ServerOf = Callable[[World, Oracle], Server]


@dataclass(frozen=True, slots=True)
class Played:
    """What came of one seed."""

    seed: int
    digest: int
    steps: int
    struck: Counter[str]
    executions: int
    error: BaseException | None
    trace: list[str] | None


class Play:
    """The actors of one seed on one world."""

    def __init__(
        self, seed: int, directory: Path, *, faults: bool = True, tracing: bool = False, server: ServerOf = Server
    ) -> None:
        self.world = World(seed, tracing=tracing)
        self.directory = directory
        draw = self.world.random
        self.nets = draw.random() >= 0.25
        self.has_flags = draw.random() >= 0.2
        self.settings = settings_of(directory, inline_bytes=draw.choice(INLINE_BYTES))
        self.flags = directory / "flags"
        self.dependencies = _graph(draw)
        self.retries = {name: draw.choice((0, 0, 0, 0, 2, 2, 3, -1)) for name in self.dependencies}
        durations = draw.choice((DURATIONS, DURATIONS, SHORT))
        self.durations = {name: draw.choice(durations) for name in self.dependencies}
        tasks.FAILING.clear()
        for name, number in self.retries.items():
            if number < 0:
                tasks.FAILING[name] = None
            elif number > 2:
                tasks.FAILING[name] = draw.randint(1, 2)
        rates = drawn_rates(draw) if faults else {}
        never = (HEALED_BY_NETS if not self.nets else frozenset()) | (OF_FLAGS if not self.has_flags else frozenset())
        self.world.rates = {fault: rate for fault, rate in rates.items() if fault not in never}
        #: How often the command is given again before all is quiet.
        self.seasons = draw.choice(SEASONS) if faults else 0
        self.oracle = Oracle(self.world, self.flags if self.has_flags else None, self.dependencies, self.retries)
        self.server = server(self.world, self.oracle)
        self.clients: list[ClientActor] = []
        self.ended: list[ClientActor] = []
        self.gremlin = Gremlin(self)
        #: Who asks things of runs: nobody does any more when all is quiet.
        self.strikes: list[Actor] = []

    # What clients ask for.

    def graph(self) -> TaskGraph:
        """Return the graph of this seed, made anew as the same command makes it."""
        graph = TaskGraph()
        for name, dependencies in self.dependencies.items():
            results = [Task(dependency) for dependency in dependencies]
            options = TaskOptions(retries=abs(self.retries[name]), retry_delay=0.2)
            graph.add_task(TaskDesc(Task(name), tasks.work, [name, *results], {}, [], [], [], [], options))
        return graph

    def cache(self) -> TaskCache:
        """Return the cache that a client opens."""
        if not self.has_flags:
            return NoTaskCache()
        return FileTaskCache(str(self.flags), keyring=Keyring())

    def duration_of(self, name: str) -> float:
        """Return how long an execution of a task takes."""
        return self.durations[name] * (0.5 + self.world.random.random())

    def child(self, worker: str) -> SimChild:
        """Start the child of a worker."""
        owner = next(one for one in self.workers if one.name == worker)
        return SimChild(self, owner)

    # The play.

    def begin(self) -> None:
        """Set all actors up."""
        draw = self.world.random
        self.schedulers = [SchedulerActor(self, number) for number in range(draw.choice((1, 1, 1, 2)))]
        self.workers = [WorkerActor(self, number) for number in range(draw.choice((1, 2, 2, 3)))]
        self.client(0.1)
        if self.world.rates and draw.random() < 0.3:
            self.client(draw.random() ** 2 * 30.0)
        if self.world.rates:
            self.strikes.append(self.world.start("gremlin", self.gremlin.serve))

    def client(self, after: float = 0.0) -> None:
        """Let a user give the command."""
        self.clients.append(ClientActor(self, len(self.clients), after, self.ended.append))

    def run(self) -> None:
        """Storm, then quiet."""
        self.begin()
        self.world.run(self._is_over, STORM_TICKS)
        self.finish()

    def _is_over(self) -> bool:
        if not self._all_ended():
            return False
        if self.seasons:
            self.seasons -= 1
            self.client(self.world.random.random() * 2.0)
            return False
        return True

    def finish(self) -> None:
        """Let everything come to its end, as it must without faults."""
        self.quieten()
        self.world.start("people", self._resume)
        if not self.world.run(self._all_ended, QUIET_TICKS):
            raise Overrun(f"I4: no end after {QUIET_TICKS} quiet ticks")
        # The first may still attach to a run of the storm, with what failed in it.
        for self.oracle.is_final in (False, True) if self.world.struck else ():
            self.client()
            if not self.world.run(self._all_ended, QUIET_TICKS):
                raise Overrun(f"I4: the same command did not end after {QUIET_TICKS} quiet ticks")
        self.oracle.at_the_end(len(self.clients))
        if self.world.broken is not None:
            raise self.world.broken

    def quieten(self) -> None:
        """End all faults."""
        self.world.note(None, "quiet")
        self.world.storm = False
        for actor in self.strikes:
            self.world.kill(actor)
        self.server.settle_down()

    def _all_ended(self) -> bool:
        return len(self.ended) == len(self.clients)

    def _resume(self) -> None:
        """Whoever paused runs lets them go on."""
        line: Any = Line(self.server, "people")
        for run in line.runs():
            if run.paused:
                line.request(run.run_id, Request.RESUME)


def _graph(draw: Any) -> dict[str, list[str]]:
    """Draw 2 to 6 tasks: chains, fans, and what lies between."""
    names = [f"t{number}" for number in range(draw.randint(2, 6))]
    chained = draw.random() < 0.4
    graph: dict[str, list[str]] = {}
    for number, name in enumerate(names):
        earlier = names[:number]
        if chained:
            graph[name] = earlier[-1:]
        else:
            graph[name] = sorted(draw.sample(earlier, min(len(earlier), draw.choice((0, 1, 1, 2)))))
    return graph


def _without_nets(stack: ExitStack) -> None:
    """No audit and no repair: what they would heal shows."""
    stack.enter_context(patch.object(Audit, "run", lambda _self: Findings()))
    stack.enter_context(patch.object(Duties, "_still", lambda *_: []))


@contextmanager
def stage(seed: int, *, faults: bool = True, tracing: bool = False, server: ServerOf = Server) -> Iterator[Play]:
    """Put a seed's world in place; leave nothing behind."""
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None
    directory = Path(tempfile.mkdtemp(prefix="overnight-sim-", dir=place))
    play = Play(seed, directory, faults=faults, tracing=tracing, server=server)
    try:
        with ExitStack() as stack:
            files = stack.enter_context(in_place(play.world, play.child))
            files.placed, files.refused = play.oracle.placed, play.oracle.refused
            if not play.nets:
                _without_nets(stack)
            yield play
            play.world.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def played(seed: int, *, faults: bool = True, tracing: bool = False, server: ServerOf = Server) -> Played:
    """Play one seed and say what came of it."""
    error: BaseException | None = None
    gc.disable()
    try:
        with stage(seed, faults=faults, tracing=tracing, server=server) as play:
            try:
                play.run()
            except (Exception, Violation) as found:
                error = found
    finally:
        gc.enable()
    world = play.world
    return Played(
        seed, world.digest, world.steps, world.struck, sum(play.oracle.executions.values()), error, world.trace
    )
