"""Print one table of figures: ``python -m tests.benchmarks [--only WIDE,CHAIN] [--rounds N] [--quick] [--json]``.

Overnight beside plain RQ (two SimpleWorkers on a server of their own), the standard library's process pool, and those
of Huey, Celery and Dramatiq that are installed; and its Dask executor beside plain Dask on one cluster; on this
machine, in one run. Each figure is the median of interleaved
rounds; the spread is half of the range of the rounds; the ratio is that to plain RQ, on Dask that to plain Dask.
Peak memory is the sum over all processes of a system since it started.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from tests.benchmarks import dask_systems, local_systems, overnight_systems, peer_queues, peers
from tests.benchmarks.measuring import Figure, System, Workload, measure, table
from tests.benchmarks.workloads import FULL, LONG, ON_DASK, ONCE, QUICK, SLOW, WORKLOADS, Sizes

FULL_ROUNDS = 5
QUICK_ROUNDS = 3


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else FULL_ROUNDS)
    figures = run(_chosen(options), QUICK if options.quick else FULL, rounds, options.systems)
    if options.json:
        print(json.dumps([figure.as_json() for figure in figures], indent=1))
    else:
        print(table(figures))


def run(chosen: Sequence[Workload], sizes: Sizes, rounds: int, names: Sequence[str] | None) -> list[Figure]:
    """Measure the chosen workloads on the systems of these names (None: all); everything started is stopped."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="ob-", ignore_cleanup_errors=True) as directory, ExitStack() as stack:
        makers = _makers(sizes, Path(directory))
        systems = [stack.enter_context(make) for name, make in makers.items() if names is None or name in names]
        if (names is None or "dask" in names) and any(workload.name in ON_DASK for workload in chosen):
            systems += stack.enter_context(dask_systems.plain_and_executor(sizes, Path(directory)))
        for workload in chosen:
            print(f"{workload.name} ...", file=sys.stderr, flush=True)
            yardstick = dask_systems.PLAIN if workload.name in ON_DASK else peers.RQ
            figures += measure(workload, systems, 1 if workload.name in ONCE else rounds, yardstick)
    return figures


def _makers(sizes: Sizes, place: Path) -> dict[str, AbstractContextManager[System]]:
    return {
        "queue": overnight_systems.queue(sizes, place),
        "process-pool": overnight_systems.process_pool(sizes, place),
        "sequential": overnight_systems.sequential(sizes, place),
        "rq": peers.plain_rq(sizes, place),
        "pool": peers.process_pool(sizes),
        "local": local_systems.local(sizes, place),
        **{peer.name: peer_queues.peer_queue(peer, sizes, place) for peer in peer_queues.installed()},
    }


def _chosen(options: argparse.Namespace) -> list[Workload]:
    if options.only is None:
        left_out = (frozenset() if options.long else LONG) | (SLOW if options.quick else frozenset())
        return [workload for workload in WORKLOADS if workload.name not in left_out]
    known = {workload.name.upper(): workload for workload in WORKLOADS}
    unknown = [name for name in options.only if name.upper() not in known]
    if unknown:
        sys.exit(f"There is no workload {unknown[0]!r}; there are {', '.join(known)}.")
    return [known[name.upper()] for name in options.only]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=main.__doc__)
    parser.add_argument("--only", type=lambda text: text.split(","), metavar="NAME,...", help="these workloads")
    parser.add_argument("--systems", type=lambda text: text.split(","), metavar="NAME,...", help="queue,rq,...")
    parser.add_argument("--rounds", type=int, help=f"default {FULL_ROUNDS}, with --quick {QUICK_ROUNDS}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, less sleep, no 100,000 tasks: two minutes")
    parser.add_argument("--long", action="store_true", help="also GRAPH and MILLION: a million tasks")
    parser.add_argument("--json", action="store_true", help="for machines")
    return parser


if __name__ == "__main__":
    main()
