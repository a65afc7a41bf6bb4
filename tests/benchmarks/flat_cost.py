"""What a task costs the scheduler, at growing sizes of a run: ``python -m tests.benchmarks.flat_cost [--long]``.

Processor time of the real scheduler process while workers drain a run through the queue, and of the pure core alone, in
microseconds a task; the last column is how many times the least of them each is. A run of few tasks is repeated until
it is as many in all as `LEAST_TASKS`. The sizes take turns, and the best of a few rounds counts: the same work takes
half as much processor time again while others use the processor's other half, and none is quicker than it can be.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from overnight.core.events import NewTask
from overnight.queue_executor import QueueExecutor
from tests.benchmarks.core_million import Drain, independent, layers
from tests.benchmarks.overnight_systems import execute, warm_up
from tests.benchmarks.processes import await_end, cpu_seconds
from tests.benchmarks.recovery import scheduler_of
from tests.benchmarks.workloads import WORKERS
from tests.support import graphs

SIZES = (1_000, 10_000, 100_000)
LONG_SIZES = (*SIZES, 1_000_000)
LEAST_TASKS = 10_000
ROUNDS = 3
#: How many times the least cost of a task at any size the highest may be.
MOST_TIMES = 1.5


def repeated(size: int) -> int:
    return max(1, LEAST_TASKS // size)


def best_of_rounds(seconds_of: Callable[[int], float], sizes: Sequence[int]) -> dict[int, float]:
    """Return the least processor time, in seconds a task, of runs of each size; `seconds_of` runs one."""
    rounds = [
        [sum(seconds_of(size) for _ in range(repeated(size))) / (repeated(size) * size) for size in sizes]
        for _ in range(ROUNDS)
    ]
    return {size: min(costs) for size, costs in zip(sizes, zip(*rounds, strict=True), strict=True)}


def scheduler_costs(state: Path, sizes: Sequence[int]) -> dict[int, float]:
    """Return the processor time of the scheduler, in seconds a task, by size of the run."""
    with QueueExecutor(state_dir=state, workers=WORKERS) as executor:
        warm_up(executor, state)
        scheduler = scheduler_of(state)

        def seconds_of(size: int) -> float:
            before = cpu_seconds(scheduler)
            execute(executor, graphs.noops(n=size))
            return cpu_seconds(scheduler) - before

        costs = best_of_rounds(seconds_of, sizes)
    await_end(state)
    return costs


def core_costs(sizes: Sequence[int]) -> dict[str, dict[int, float]]:
    """Return the processor time of the core, in seconds a task, by shape and size."""
    return {shape.__name__: best_of_rounds(partial(_core_seconds, shape), sizes) for shape in (independent, layers)}


def _core_seconds(shape: Callable[[int], Iterator[NewTask]], size: int) -> float:
    run = Drain(shape, size, 500)
    run.build()
    run.drain()
    return run.add_seconds + run.drain_seconds


def main(arguments: Sequence[str]) -> None:
    sizes = LONG_SIZES if "--long" in arguments else SIZES
    measured = {f"core, {shape}": costs for shape, costs in core_costs(sizes).items()}
    with tempfile.TemporaryDirectory(prefix="ob-", ignore_cleanup_errors=True) as directory:
        measured["scheduler process"] = scheduler_costs(Path(directory) / "state", sizes)
    print(f"{'what':<20}{'tasks':>10}{'us a task':>12}{'of least':>10}")
    for what, costs in measured.items():
        least = min(costs.values())
        for size, cost in costs.items():
            print(f"{what:<20}{size:>10,}{cost * 1e6:>12.1f}{cost / least:>9.2f}x")


if __name__ == "__main__":
    main(sys.argv[1:])
