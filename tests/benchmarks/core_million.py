"""Drains a million tasks through the pure core and prints a table: CPU seconds of the core, memory of its state.

Run as `python -m tests.benchmarks.core_million [TASKS]`. Only the time inside `RunState.handle` counts: the events
are made outside of it, as a performer would.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence

from overnight.core.actions import Dispatch
from overnight.core.events import NewTask, Offer, SlotsOffered, TasksAdded, TaskSucceeded
from overnight.core.run_state import RunState
from overnight.core.states import RunPhase

ADDITION = 10_000


def independent(tasks: int) -> Iterator[NewTask]:
    """Tasks without any edge."""
    return (NewTask(()) for _ in range(tasks))


def chain(tasks: int) -> Iterator[NewTask]:
    """Each task depends on the one before it."""
    return (NewTask((task - 1,) if task else ()) for task in range(tasks))


def fan_in(tasks: int) -> Iterator[NewTask]:
    """The last task depends on all others."""
    return (NewTask(range(task) if task == tasks - 1 else ()) for task in range(tasks))


def layers(tasks: int) -> Iterator[NewTask]:
    """Ten layers with two dependencies a task."""
    width = tasks // 10
    for task in range(tasks):
        above = task - width
        yield NewTask((above, above - above % width + (above + 1) % width) if above >= 0 else ())


class Drain:
    """One drain of one graph with offers of one size, ordered by paths as the scheduler's runs are."""

    def __init__(self, shape: Callable[[int], Iterator[NewTask]], tasks: int, most_tasks: int) -> None:
        self.state = RunState(by_paths=True)
        self.shape, self.tasks, self.most_tasks = shape, tasks, most_tasks
        self.add_seconds = self.drain_seconds = 0.0

    def timed(self, event: object) -> tuple[Sequence[object], float]:
        before = time.process_time()
        actions = self.state.handle(event)  # type: ignore[arg-type]  # one signature for every event
        return actions, time.process_time() - before

    def build(self) -> None:
        source = self.shape(self.tasks)
        for first in range(0, self.tasks, ADDITION):
            part = [next(source) for _ in range(min(ADDITION, self.tasks - first))]
            self.add_seconds += self.timed(TasksAdded(first, part))[1]

    def drain(self) -> None:
        number, handle, clock, ended = 0, self.state.handle, time.process_time, False
        while not ended:
            number += 1
            offer = SlotsOffered(time.monotonic(), (Offer(f"{number:x}", None, self.most_tasks, 0.1),))
            before = clock()
            actions = handle(offer)
            self.drain_seconds += clock() - before
            (dispatch,) = actions
            assert isinstance(dispatch, Dispatch)
            events = [TaskSucceeded(task, 1e-5) for task in dispatch.tasks]
            before = clock()
            for event in events:
                actions = handle(event)
            self.drain_seconds += clock() - before
            ended = len(actions) > 1
        assert self.state.phase is RunPhase.SUCCEEDED


def bytes_per_task(shape: Callable[[int], Iterator[NewTask]], tasks: int) -> float:
    """Return what the state of a fresh run holds for each task, edges included."""
    tracemalloc.start()
    run = Drain(shape, tasks, 1)
    run.build()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return held / tasks


def main(tasks: int) -> None:
    print(f"{tasks:,} tasks, CPU seconds inside the core")
    print(f"{'graph':<14}{'offers of':>10}{'add':>8}{'drain':>8}{'sum':>8}{'bytes/task':>12}")
    for shape in (independent, chain, fan_in, layers):
        held = bytes_per_task(shape, tasks // 10)
        for most_tasks in (1, 500):
            run = Drain(shape, tasks, most_tasks)
            run.build()
            run.drain()
            total = run.add_seconds + run.drain_seconds
            figures = f"{run.add_seconds:>8.2f}{run.drain_seconds:>8.2f}{total:>8.2f}{held:>12.0f}"
            print(f"{shape.__name__:<14}{most_tasks:>10}{figures}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
