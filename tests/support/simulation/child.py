"""The child of a simulated supervisor: orders in, outcomes out, by the product's own `Attempts`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from overnight.invoke import Outcome
from overnight_worker.attempts import Attempts, Order
from overnight_worker.death import Death
from overnight_worker.frames import Frame, FrameReader, Kind, pack
from overnight_worker.outcomes import packed_outcome
from overnight_worker.progress import Progress
from overnight_worker.report import digest_of
from tests.support.simulation import tasks

if TYPE_CHECKING:
    from tests.support.simulation.actors import WorkerActor
    from tests.support.simulation.play import Play


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
        self.blobs: dict[str, int] = {}
        self.served: tuple[str, int] | None = None
        self.tasks_run = 0
        self.is_up = True
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

    def output_copy(self) -> int:
        return os.open(os.devnull, os.O_RDONLY)

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
            self.progress.begin(order.position)
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
        began, started = world.now, world.wall_clock()
        tasks.NOW.append(attempt)
        try:
            value = self._attempts._call(order)
        except Exception as error:
            value = error
        finally:
            tasks.NOW.remove(attempt)
        play.oracle.started(self._owner.name, self._attempts._run_id, order.task_id, attempt, self._owner.nonces)
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
            self._owner.nonces[order.task_id] = attempt.nonce
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
