"""The actors: the product's scheduler, supervisor with its child, and client, each as a process that may die.

What is not the product's own here is what the machine does: starting processes again, taking entries off a queue,
running a function in a child. Functions are called by the product's own `Attempts`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overnight.config import Settings
from overnight.errors import OvernightError, RunCancelled, Unreachable
from overnight.invoke import Outcome
from overnight.keyring import Keyring
from overnight.queue_executor import QueueExecutor
from overnight.service.loop import Scheduler
from overnight.state_dir import unlock
from overnight_worker.attempts import Attempts, Order
from overnight_worker.death import Death
from overnight_worker.frames import Frame, FrameReader, Kind, pack
from overnight_worker.heartbeat import Heartbeat
from overnight_worker.job import Foreman
from overnight_worker.outcomes import packed_outcome
from overnight_worker.post import Post
from overnight_worker.progress import Progress
from overnight_worker.report import digest_of
from overnight_worker.spool import Spool
from tests.support.simulation import tasks
from tests.support.simulation.seams import SimEvent
from tests.support.simulation.server import Belt, Line
from tests.support.simulation.world import HEARTBEAT, LEASE, Actor, World

if TYPE_CHECKING:
    from tests.support.simulation.play import Play

QUEUE = "default"
LEFTOVERS_SECONDS = 10.0


def settings_of(directory: Path) -> Settings:
    """Return the settings of the simulated deployment: everything that waits is ten times quicker."""
    return Settings(
        redis_url="redis://simulated",
        state_dir=directory,
        lease_seconds=LEASE,
        heartbeat_seconds=HEARTBEAT,
        drain_seconds=2.0,
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
        scheduler = Scheduler(line, Belt(play.server), Keyring(), play.settings, self._name, stop)  # type: ignore[arg-type]
        line.at_rest = lambda: play.oracle.check_cores(scheduler._runs)
        scheduler.run()


class SimStopping:
    """What signals have asked of a supervisor: here none ever does."""

    level = 0

    def seconds_left(self, _drain_seconds: float) -> float:
        return 0.0

    def clear_wakeup(self) -> None:
        return


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
        self.actor.on_death.append(self._died)

    def _died(self) -> None:
        for child in self.children:
            child.kill()
        if self.spool is not None and self.spool._lock is not None:
            unlock(self.spool._lock)
        self.start(self._play.world.random.random() * 5.0)

    def _serve(self) -> None:
        play, world = self._play, self._play.world
        stopping: Any = SimStopping()
        store: Any = Line(play.server, self.name)
        post = Post(
            store, Keyring(), play.settings, (QUEUE,), self.name, host="host", started_at=world.now, stopping=stopping
        )
        belt = Belt(play.server)
        heartbeat = Heartbeat(post)
        self.spool = Spool(play.settings.state_dir / "spool", post.instance, post.keyring)
        foreman = Foreman(post, belt, heartbeat, self.spool)
        leftovers_at = 0.0
        while True:
            try:
                if world.now >= heartbeat.due_at:
                    heartbeat.beat()
                if world.now >= leftovers_at:
                    leftovers_at = world.now + LEFTOVERS_SECONDS
                    foreman.deliver_leftovers()
                entry = belt.pop(QUEUE)
            except Unreachable:
                leftovers_at = 0.0
                world.sleep(0.3)
                continue
            if entry is None:
                world.park(max(0.01, heartbeat.due_at - world.now))
            else:
                play.oracle.claiming(self.name)
                foreman.run(entry)


class _Channel:
    """The socket between supervisor and child, as `FrameReader` reads it."""

    def __init__(self) -> None:
        self.data = b""

    def recv(self, _size: int) -> bytes:
        data, self.data = self.data, b""
        return data


class SimChild:
    """What the nursery takes for a child process: an actor that runs orders by the product's own `Attempts`."""

    def __init__(self, play: Play, owner: WorkerActor) -> None:
        self.blobs: set[str] = set()
        self.run_id: str | None = None
        self.tasks_run = 0
        self.pid = 0
        self.progress = Progress(-1)
        self._play = play
        self._owner = owner
        self._attempts = Attempts(owner.name, None)  # type: ignore[arg-type]  # no output is caught here
        self._orders: list[Frame] = []
        self._outbox: list[Frame] = []
        self._incoming = _Channel()
        self._reader = FrameReader(self._incoming)  # type: ignore[arg-type]  # reads as a socket does
        self._exit: int | None = None
        self._stopped_by_us = False
        self.nonces: dict[str, str] = {}
        self._actor = play.world.start(f"child of {owner.name}", self._serve)
        owner.children.append(self)

    @property
    def has_news(self) -> bool:
        return bool(self._outbox) or self._exit is not None

    def watch(self, poll: Any) -> None:
        poll.register(self)

    def send(self, frames: Any) -> None:
        self._incoming.data += b"".join(frames)
        self._orders += self._reader.receive() or []
        self._play.world.wake(self._actor)

    def write(self) -> None:
        return

    def receive(self) -> list[Frame] | None:
        frames, self._outbox = self._outbox, []
        return frames if frames or self._exit is None else None

    def memory(self) -> int:
        return 0

    def collect_orphans(self) -> None:
        return

    def cap_output(self, *_: Any) -> None:
        return

    def processes(self) -> list[int]:
        return []

    def kill(self) -> None:
        """End the process."""
        if self._exit is None:
            self._exit = -9
            self._play.world.kill(self._actor)

    def end(self) -> Death:
        self.kill()
        if self in self._owner.children:
            self._owner.children.remove(self)
        return Death(None, "SIGKILL", 0)

    # In the child.

    def _serve(self) -> None:
        world = self._play.world
        while True:
            while self._orders:
                self._handle(self._orders.pop(0))
            world.park(60.0)

    def _handle(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.CONTEXT:
                self._attempts.enter(frame.fields()["run"], None, 0)
                self._attempts._run_id = frame.fields()["run"]
            case Kind.BLOB:
                self._attempts.blobs[frame.fields()["digest"]] = frame.body
            case Kind.FORGET:
                self._attempts.forget()
            case Kind.BATCH:
                self._run_batch(frame)
            case _:
                raise ValueError(frame.kind)

    def _run_batch(self, frame: Frame) -> None:
        orders = self._attempts.read_batch(frame)
        failed: set[int] = set()
        for order in orders:
            self.progress.start(order.position)
            if self.progress.is_stopped or not failed.isdisjoint(order.after):
                failed.add(order.position)
                continue
            message, ok = self._perform(order)
            self.progress.clear()
            self._say(message)
            if not ok:
                failed.add(order.position)
        self.progress.clear()
        self._attempts.end_batch()
        self._say(pack(Kind.ENDED, {"tasks": len(orders), "threads": 0, "memory": 0}))

    def _perform(self, order: Order) -> tuple[bytes, bool]:
        play, world = self._play, self._play.world
        attempt = tasks.Attempt(play.world.random.getrandbits(64), order.task_id)
        began, started = world.now, world.wall + world.now
        tasks.NOW.append(attempt)
        try:
            value = self._attempts._call(order)
        except Exception as error:
            value = error
        finally:
            tasks.NOW.remove(attempt)
        play.oracle.started(self._owner.name, self._attempts._run_id, order.task_id, attempt, self.nonces)
        world.sleep(play.duration_of(order.task_id))
        if world.strikes("child"):
            play.oracle.child_killed(order.task_id)
            self._exit = -9
            world.wake(self._owner.actor)
            world.kill(self._actor)
        ok = not isinstance(value, BaseException)
        outcome = Outcome(ok, value, started, world.now - began)
        message, ok, body = packed_outcome(order.position, order.task_id, outcome)
        if ok:
            self._attempts.keep(order, body)
            self.nonces[order.task_id] = attempt.nonce
        play.oracle.performed(order.task_id, body if ok else None, digest_of(body))
        return message, ok

    def _say(self, message: bytes) -> None:
        reader = FrameReader(_said(message))  # type: ignore[arg-type]  # reads as a socket does
        self._outbox += reader.receive() or []
        self._play.world.wake(self._owner.actor)


def _said(message: bytes) -> _Channel:
    channel = _Channel()
    channel.data = message
    return channel


@dataclass(slots=True)
class SimDeployment:
    """A deployment as `QueueRun` uses it."""

    store: Any
    settings: Settings
    keyring: Keyring = field(default_factory=Keyring)

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
            task_cache=play.cache(), redis_url="redis://simulated", workers=0, task_log_dir=str(play.directory / "logs")
        )
        executor._deployment = SimDeployment(Line(play.server, self._name), play.settings)  # type: ignore[assignment]
        graph = play.graph()
        try:
            for task, value in executor.execute(graph):
                play.oracle.yielded(self.yielded, task.task_id, value)
        except RunCancelled:
            return 5
        except OvernightError as error:
            play.world.note(self.actor, f"gives up: {type(error).__name__}")
            return 4
        summary = executor.summary
        play.oracle.client_ended(self.began, self.yielded, summary)
        return 0 if summary is not None and summary.ok else 1
