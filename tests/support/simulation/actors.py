"""The actors: the product's scheduler, supervisor with its child, and client, each as a process that may die.

What is not the product's own here is what the machine does: starting processes again, taking entries off a queue,
running a function in a child. Functions are called by the product's own `Attempts`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overnight.config import Settings
from overnight.errors import Refused, RunCancelled, Unreachable
from overnight.keyring import Keyring
from overnight.queue_executor import QueueExecutor
from overnight.service.loop import Scheduler
from overnight.state_dir import unlock
from overnight.transport.port import Entry
from overnight_worker.heartbeat import Heartbeat
from overnight_worker.job import Foreman
from overnight_worker.post import Post
from overnight_worker.spool import Spool
from tests.support.simulation.belt import Belt
from tests.support.simulation.child import SimChild
from tests.support.simulation.faults import HEARTBEAT, LEASE
from tests.support.simulation.seams import SimEvent
from tests.support.simulation.server import Line
from tests.support.simulation.world import Actor, World

if TYPE_CHECKING:
    from tests.support.simulation.play import Play

QUEUE = "default"
#: Of a server on this host: no key is needed.
URL = "redis://127.0.0.1:1"
LEFTOVERS_SECONDS = 10.0


def settings_of(directory: Path, *, inline_bytes: int) -> Settings:
    """Return the settings of the simulated deployment: everything that waits is ten times quicker."""
    return Settings(
        redis_url=URL,
        state_dir=directory,
        lease_seconds=LEASE,
        heartbeat_seconds=HEARTBEAT,
        drain_seconds=2.0,
        inline_bytes=inline_bytes,
    )


class SchedulerActor:
    """A scheduler process; one that dies is started again."""

    def __init__(self, play: Play, number: int) -> None:
        self._play = play
        self._name = f"scheduler-{number}"
        self.start(0.0)

    def start(self, after: float) -> None:
        self.actor = self._play.world.start(self._name, self._serve, after)
        self.actor.on_death.append(lambda: self.start(self._play.world.random.random() * 4.0))

    def _serve(self) -> None:
        play = self._play
        line = Line(play.server, self._name)
        stop: Any = SimEvent(play.world)
        scheduler = Scheduler(line, Belt(play.server), Keyring(), play.settings, self._name, stop)
        line.at_rest = lambda: play.oracle.check_cores(scheduler._runs)
        scheduler.run()


class SimStopping:
    """What signals have asked of a supervisor: here none ever does."""

    level = 0

    def seconds_left(self, _drain_seconds: float) -> float:
        return 0.0

    def clear_wakeup(self) -> None:
        return


class SimDesk:
    """Where a supervisor takes entries, as the product's daemon does it."""

    def __init__(self, belt: Belt) -> None:
        self._belt = belt
        self._ahead: Entry | None = None

    def take(self, seconds: float) -> Entry | None:
        """Take an entry as soon as there is one, at most so many seconds later."""
        entry, self._ahead = self._ahead, None
        return entry or (self._belt.take(QUEUE, seconds) if seconds else self._belt.pop(QUEUE))

    def clear(self) -> None:
        return

    def take_ahead(self) -> None:
        if self._ahead is None:
            with suppress(Unreachable):
                self._ahead = self._belt.pop(QUEUE)

    def put_back(self) -> None:
        entry, self._ahead = self._ahead, None
        if entry is not None:
            with suppress(Unreachable):
                self._belt.push([entry])


class WorkerActor:
    """A supervisor process; one that dies is started again, as another instance with the same spool."""

    def __init__(self, play: Play, number: int) -> None:
        self._play = play
        self.name = f"worker-{number}"
        self.start(0.0)

    def start(self, after: float) -> None:
        self.actor = self._play.world.start(self.name, self._serve, after)
        self.children: list[SimChild] = []
        self.spool: Spool | None = None
        #: What made the results that its children gave it, by task: the next child of a batch gets them from it.
        self.nonces: dict[str, str] = {}
        self.actor.on_death.append(self._died)

    def _died(self) -> None:
        self._play.oracle.worker_died(self.name)
        for child in self.children:
            child.kill()
        if self.spool is not None and self.spool._lock is not None:
            unlock(self.spool._lock)
        self.start(self._play.world.random.random() * 5.0)

    def _serve(self) -> None:
        play, world = self._play, self._play.world
        stopping: Any = SimStopping()
        store: Any = Line(play.server, self.name)
        post = Post(store, Keyring(), play.settings, (QUEUE,), self.name, started_at=world.now, stopping=stopping)
        belt = Belt(play.server)
        heartbeat = Heartbeat(post)
        self.spool = Spool(play.settings.state_dir / "spool", post.instance, post.keyring)
        foreman = Foreman(post, belt, heartbeat, self.spool)
        desk, leftovers_at = SimDesk(belt), 0.0
        while True:
            try:
                entry = desk.take(0.0) if foreman.is_unfinished and world.now < heartbeat.due_at else None
                if entry is None:
                    foreman.finish()
                    if world.now >= heartbeat.due_at:
                        heartbeat.beat()
                    if world.now >= leftovers_at:
                        leftovers_at = world.now + LEFTOVERS_SECONDS
                        foreman.deliver_leftovers()
                    entry = desk.take(max(0.01, heartbeat.due_at - world.now))
            except Unreachable:
                foreman.finish()
                leftovers_at = 0.0
                world.sleep(0.3)
                continue
            if entry is not None:
                play.oracle.claiming(self.name)
                foreman.run(entry, desk)


@dataclass(slots=True)
class SimDeployment:
    """A deployment as `QueueRun` uses it."""

    store: Any
    settings: Settings
    keyring: Keyring = field(default_factory=Keyring)
    url: str = URL

    def check(self) -> None:
        return

    def close(self, *, stop: bool = True) -> None:
        return


class ClientActor:
    """A user who gives the same command until it has ended; a client that is killed is started again."""

    def __init__(self, play: Play, number: int, after: float, done: Callable[[ClientActor], None]) -> None:
        self._play = play
        self._name = f"client-{number}"
        self._done = done
        self.yielded: dict[str, Any] = {}
        self.exit: int | None = None
        self.began = 0.0
        self.start(after)

    def start(self, after: float) -> None:
        self.actor: Actor = self._play.world.start(self._name, self._serve, after)
        self.actor.on_death.append(lambda: self.start(self._play.world.random.random() * 6.0))

    def _serve(self) -> None:
        world: World = self._play.world
        while self.exit not in (0, 1):
            self.exit = self._command()
            world.note(self.actor, f"exit {self.exit}")
            if self.exit not in (0, 1):
                world.sleep(0.2 + world.random.random())
        self._done(self)

    def _command(self) -> int:
        """Give the command once; return its exit code."""
        play = self._play
        self.began = play.world.now
        self.yielded = {}
        executor = QueueExecutor(
            task_cache=play.cache(),
            redis_url=URL,
            workers=0,
            task_log_dir=str(play.directory / "logs"),
        )
        executor._deployment = SimDeployment(Line(play.server, self._name), play.settings)  # type: ignore[assignment]
        graph = play.graph()
        try:
            for task, value in executor.execute(graph):
                play.oracle.yielded(self.yielded, task.task_id, value)
        except RunCancelled:
            return 5
        except (Unreachable, Refused) as error:
            play.world.note(self.actor, f"gives up: {type(error).__name__}")
            return 4
        summary = executor.summary
        play.oracle.client_ended(self.began, self.yielded, summary)
        return 0 if summary is not None and summary.ok else 1
