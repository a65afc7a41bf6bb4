"""Play seeds: ``python -m tests.support.simulation --seeds N [--first S] [--jobs J] [--planted NAME]``, or one with
``--seed S [--trace]``; with ``--differential redis`` or ``valkey`` on a real server beside the memory store.

Prints what was played and what struck; of a failing seed its number and the broken invariant, with ``--trace`` all.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

from tests.support.differential.play import compared, server_of
from tests.support.differential.play import seeds as differential_seeds
from tests.support.servers import KINDS
from tests.support.simulation.many import seeds
from tests.support.simulation.planted import PLANTED, planted
from tests.support.simulation.play import Played, played

#: After so many seeds a line tells how far it has come.
PROGRESS_SEEDS = 5000


def main() -> int:
    """Run the command; 0 if no seed failed, or a planted bug was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.simulation")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--planted", choices=sorted(PLANTED))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--calm", action="store_true", help="no faults")
    parser.add_argument("--differential", choices=KINDS, help="compare the memory store with a server of this kind")
    chosen = parser.parse_args()
    return _one(chosen) if chosen.seed is not None else _many(chosen)


def _one(chosen: argparse.Namespace) -> int:
    seed, how = chosen.seed, {"faults": not chosen.calm, "tracing": chosen.trace}
    with ExitStack() as stack:
        client = stack.enter_context(server_of(chosen.differential)) if chosen.differential else None
        stack.enter_context(planted(chosen.planted))
        one = played(seed, **how) if client is None else compared(seed, client, **how)
    for line in one.trace or ():
        print(line)
    print(f"seed {seed}: digest {one.digest}, {one.steps} steps, {one.executions} executions, {dict(one.struck)}")
    if one.error is not None:
        traceback.print_exception(one.error)
    return 1 if one.error is not None else 0


def _seeds(chosen: argparse.Namespace) -> Iterator[Played]:
    what, how = (chosen.first, chosen.seeds, chosen.planted), {"jobs": chosen.jobs, "faults": not chosen.calm}
    return differential_seeds(chosen.differential, *what, **how) if chosen.differential else seeds(*what, **how)


def _many(chosen: argparse.Namespace) -> int:
    began, struck, steps, failed, count = time.monotonic(), Counter[str](), 0, 0, 0
    for one in _seeds(chosen):
        count += 1
        struck += one.struck
        steps += one.steps
        if one.error is not None:
            failed += 1
            print(f"seed {one.seed}: {type(one.error).__name__}: {one.error}", flush=True)
            if chosen.planted:
                break
        if count % PROGRESS_SEEDS == 0:
            print(f"{count} seeds, {failed} failed", flush=True)
    seconds = time.monotonic() - began
    pace = f"{count} seeds in {seconds:.1f} s ({count / seconds:.1f}/s), {steps} steps"
    print(f"{pace}, {failed} failed; struck: {dict(struck)}")
    return int(bool(failed) != bool(chosen.planted))


if __name__ == "__main__":
    sys.exit(main())
