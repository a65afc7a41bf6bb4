"""Workers in simulated time: the core's decisions and the scheduler's window, without any process, clock or chance.

A queue is served first come, first served, urgent batches first, as Redis' list is. What a worker has done the
scheduler hears `LATENCY` later, and what it dispatches reaches the queue `LATENCY` after that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count

from overnight.core.actions import Dispatch
from overnight.core.events import BatchClaimed, Event, NewTask, SlotsOffered, TasksAdded, TaskSucceeded
from overnight.core.run_state import RunState
from overnight.service.window import Window

LATENCY = 0.001


class SimulatedWorkers:
    """So many workers, and one run; task `i` takes `seconds[i]`."""

    def __init__(self, tasks: Sequence[NewTask], seconds: Sequence[float], workers: int, *, by_paths: bool) -> None:
        self.state = RunState(by_paths=by_paths)
        self.state.handle(TasksAdded(0, tasks))
        self.seconds = seconds
        self.window = Window(workers)
        self.now = 0.0
        self.started: dict[int, float] = {}
        self._queue: deque[Dispatch] = deque()
        self._idle = workers
        self._order = count()
        self._agenda: list[tuple[float, int, str, object]] = []

    def run(self) -> float:
        """Run to the end; return when the last task ended."""
        self._offer()
        while self._agenda:
            self.now, _, what, content = heappop(self._agenda)
            if what == "queued":
                self._enter(content)  # type: ignore[arg-type]  # by `what`
            elif what == "free":
                self._idle += 1
            else:
                self.state.handle(content)  # type: ignore[arg-type]  # by `what`
                self._offer()
            self._start()
        assert self.state.phase.is_over
        return self.now

    def _later(self, seconds: float, what: str, content: object = None) -> None:
        heappush(self._agenda, (self.now + seconds, next(self._order), what, content))

    def _enter(self, dispatch: Dispatch) -> None:
        if dispatch.urgent:
            self._queue.appendleft(dispatch)
        else:
            self._queue.append(dispatch)

    def _offer(self) -> None:
        ready = self.state.ready_count()
        number = min(self.window.batches - self.state.outstanding(), ready)
        offers = [offer._replace(queue=None) for offer in self.window.offers("q", number, ready)]
        for action in self.state.handle(SlotsOffered(self.now, offers)):
            if isinstance(action, Dispatch):
                self._later(LATENCY, "queued", action)

    def _start(self) -> None:
        while self._idle and self._queue:
            self._idle -= 1
            batch = self._queue.popleft()
            self._tell(0.0, BatchClaimed(batch.batch))
            passed = 0.0
            for task in batch.tasks:
                self.started[task] = self.now + passed
                passed += self.seconds[task]
                self._tell(passed, TaskSucceeded(task, self.seconds[task]))
            self._later(passed, "free")

    def _tell(self, seconds: float, event: Event) -> None:
        self._later(seconds + LATENCY, "told", event)
