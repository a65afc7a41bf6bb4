"""The simulated world: one clock, actors that are greenlets, and one source of randomness from which all is drawn.

An actor runs product code that blocks; wherever that code would wait, or touches what others see, it comes here and
another actor may go on. The actor whose time comes first goes first; ties are drawn. The same seed gives the same
order of everything.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from zlib import crc32

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]  # it ships no types

from tests.support.simulation.faults import COSTLY, COSTLY_TO_ALL, DANGEROUS, FAULTS, PAUSES, TICK

#: The wall clock at the world's zero.
EPOCH = 1_700_000_000.0


class Killed(BaseException):
    """The process of this actor is gone; nothing in it may catch this."""


class Violation(AssertionError):
    """An invariant does not hold."""


class Overrun(Violation):
    """The world did not come to its end in time."""


@dataclass(eq=False)
class Actor:
    """One simulated process, or the child of one."""

    name: str
    body: Callable[[], None]
    thread: greenlet | None = None
    dead: bool = False
    turn: int = 0
    on_death: list[Callable[[], None]] = field(default_factory=list)
    ended: bool = False


class World:
    """The clock, the actors, and what goes wrong."""

    def __init__(self, seed: int, *, tracing: bool = False) -> None:
        self.random = Random(seed)
        self.seed = seed
        self.now = 1000.0
        self.server_skew = 0.0
        #: How far the wall clock of an actor is off, in seconds.
        self.wall_skews: dict[str, float] = {}
        self.storm = True
        self._odds: dict[str, float] = {}
        self._rates: dict[str, float] = {}
        self.struck: Counter[str] = Counter()
        self.steps = 0
        #: Until when an actor has met what may cost a lease; under "" what may cost anybody's.
        self.costs: dict[str, float] = {}
        self.digest = 0
        self.trace: list[str] | None = [] if tracing else None
        self.broken: BaseException | None = None
        self.actors: list[Actor] = []
        #: The actor whose code is running.
        self.current: Actor | None = None
        self._waiting: dict[Actor, bool] = {}
        self._queue: list[tuple[float, float, int, int, Actor]] = []
        self._count = 0
        self._deadline = 0.0
        self._hub = getcurrent()

    @property
    def rates(self) -> dict[str, float]:
        """How often each fault happens, per tick; what is missing never does."""
        return self._rates

    @rates.setter
    def rates(self, rates: dict[str, float]) -> None:
        self._rates = rates
        self._odds = {fault: rate * FAULTS[fault] for fault, rate in rates.items() if rate}

    # Actors.

    def start(self, name: str, body: Callable[[], None], after: float = 0.0) -> Actor:
        """Let a new actor begin after some seconds."""
        actor = Actor(name, body)
        actor.thread = greenlet(lambda: self._run(actor), parent=self._hub)
        self.actors.append(actor)
        self._schedule(actor, after)
        return actor

    def _run(self, actor: Actor) -> None:
        try:
            actor.body()
        except Killed:
            pass
        except BaseException as error:
            self.broken = self.broken or error
        finally:
            actor.ended = True

    def kill(self, actor: Actor) -> None:
        """End an actor where it stands, without a word of its own."""
        if actor.dead or actor.ended:
            return
        self.note(actor, "killed")
        self.cost(actor.name)
        actor.dead = True
        self._waiting.pop(actor, None)
        if actor is self.current:
            self._bury(actor)
            raise Killed
        self._throw(actor)
        self._bury(actor)

    def freeze(self, actor: Actor, seconds: float) -> None:
        """Let an actor that is waiting take no turn for some seconds, whatever wakes it."""
        if not actor.dead and not actor.ended:
            self.note(actor, "frozen")
            self.cost(actor.name, seconds)
            self._waiting.pop(actor, None)
            self._schedule(actor, seconds)

    def _bury(self, actor: Actor) -> None:
        for last in actor.on_death:
            last()

    def _schedule(self, actor: Actor, after: float) -> None:
        actor.turn += 1
        self._count += 1
        entry = (self.now + max(0.0, after), self.random.random(), self._count, actor.turn, actor)
        heapq.heappush(self._queue, entry)

    def sleep(self, seconds: float) -> None:
        """Let the current actor wait."""
        actor = self._living()
        if self._goes_on(seconds):
            return
        self._schedule(actor, seconds)
        self._hub.switch()
        if actor.dead:
            raise Killed

    def _goes_on(self, seconds: float) -> bool:
        """Let time pass without another actor's turn, if none comes before."""
        at = self.now + seconds if seconds > 0.0 else self.now
        if at > self._deadline or self.broken is not None or (self._queue and self._queue[0][0] <= at):
            return False
        self.now = at
        self.steps += 1
        return True

    def park(self, seconds: float, *, listening: bool = False) -> None:
        """Wait until woken, or for so long; who is `listening` is woken by news of the server."""
        actor = self._living()
        self._waiting[actor] = listening
        self.sleep(seconds)
        self._waiting.pop(actor, None)

    def wake(self, actor: Actor) -> None:
        """Wake an actor that is parked."""
        if self._waiting.pop(actor, None) is not None:
            self._schedule(actor, 0.0)

    def wake_all(self) -> None:
        """Wake all that listen: something has changed that all see."""
        for actor in [actor for actor, listening in self._waiting.items() if listening]:
            self.wake(actor)

    def _living(self) -> Actor:
        actor = self.current
        if actor is None:
            raise Violation("code outside of any actor waits")
        if actor.dead:
            raise Killed
        return actor

    def advance(self) -> bool:
        """Let the next actor run up to where it waits; False if there is none."""
        while self._queue:
            at, _, _, turn, actor = heapq.heappop(self._queue)
            if turn != actor.turn or actor.ended or actor.dead or actor.thread is None:
                continue
            self.now = max(self.now, at)
            self.steps += 1
            actor.thread.parent = self._hub
            self.current = actor
            actor.thread.switch()
            self.current = None
            if self.broken is not None:
                raise self.broken
            return True
        return False

    def run(self, until: Callable[[], bool], ticks: float) -> bool:
        """Go on until a condition holds or time is over; tell which."""
        self._deadline = self.now + ticks * TICK
        while not until():
            if self._queue and self._queue[0][0] > self._deadline:
                self.now = self._deadline
                return False
            if not self.advance():
                return until()
        return True

    def close(self) -> None:
        """End all actors."""
        for actor in list(self.actors):
            if not actor.ended and not actor.dead:
                actor.dead = True
                self._throw(actor)
        self._queue.clear()

    def _throw(self, actor: Actor) -> None:
        if actor.thread:  # it has begun
            before, self.current = self.current, actor
            actor.thread.parent = getcurrent()
            actor.thread.throw(Killed)
            self.current = before

    # What happens at each step.

    def step(self, point: str) -> None:
        """The current actor is about to do something that others may see: others may come first, or faults."""
        actor = self._living()
        self.note(actor, point)
        self.sleep(self._latency(point))
        if self.strikes("kill"):
            self.kill(actor)

    def _latency(self, point: str) -> float:
        odds = self._odds.get("pause") if self.storm else None
        if odds is not None and self.random.random() < odds * (1.0 if point in DANGEROUS else 0.1):
            self.struck["pause"] += 1
            length = self.random.choice(PAUSES)
            self.cost(self._living().name, length)
            return length
        return self.random.random() * 0.004

    def strikes(self, fault: str, share: float = 1.0) -> bool:
        """Tell whether a fault happens here."""
        odds = self._odds.get(fault)
        if odds is None or not self.storm or self.random.random() >= odds * share:
            return False
        self.struck[fault] += 1
        self.note(self.current, f"fault: {fault}")
        if fault in COSTLY_TO_ALL:
            self.cost("")
        elif fault in COSTLY and self.current is not None:
            self.cost(self.current.name)
        return True

    def cost(self, name: str, seconds: float = 0.0) -> None:
        """Note that an actor, or with "" anybody, may lose a lease from what happens now and lasts so long."""
        self.costs[name] = max(self.costs.get(name, 0.0), self.now + seconds)

    def note(self, actor: Actor | None, what: str) -> None:
        """Add a line to the trace, and to its digest."""
        name = actor.name if actor is not None else "world"
        self.digest = crc32(f"{name} {what} {self.steps}".encode(), self.digest)
        if self.trace is not None:
            self.trace.append(f"{self.now - 1000:10.4f} {name:12} {what}")

    def server_clock(self) -> float:
        """Return the server's wall clock."""
        return EPOCH + self.now + self.server_skew

    def wall_clock(self) -> float:
        """Return the wall clock of the current actor."""
        actor = self.current
        if actor is None:
            return EPOCH + self.now
        if self.strikes("wall"):
            skew = self.random.choice((-86400.0, -3600.0, -2.0, 2.0, 3600.0, 86400.0))
            self.wall_skews[actor.name] = self.wall_skews.get(actor.name, 0.0) + skew
        return EPOCH + self.now + self.wall_skews.get(actor.name, 0.0)
