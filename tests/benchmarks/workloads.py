"""The workloads, how large they are, and their graphs."""

from __future__ import annotations

from dataclasses import dataclass

from tests.benchmarks.measuring import SLEEP_SECONDS, Unit, Workload

WORKERS = 2

WIDE = Workload("WIDE", Unit.RATE)
FLAGS = Workload("WIDE+flags", Unit.RATE)
CHAIN = Workload("CHAIN", Unit.HOP)
LAYERS = Workload("LAYERS", Unit.RATE)
SLEEP = Workload("SLEEP", Unit.IDEAL, ideal=lambda tasks: tasks * SLEEP_SECONDS / WORKERS)
FANIN = Workload("FANIN", Unit.RATE)
BIGRESULT = Workload("BIGRESULT", Unit.SECONDS)
MILLION = Workload("MILLION", Unit.RATE)
RECOVER = Workload("RECOVER100K", Unit.SECONDS)
SUBMIT = Workload("SUBMIT100K", Unit.SECONDS)
STATUS = Workload("STATUS100K", Unit.SECONDS)
GRAPH = Workload("GRAPH", Unit.SECONDS)
DASKMAP = Workload("DASKMAP", Unit.RATE)
DASKCHAIN = Workload("DASKCHAIN", Unit.HOP)

WORKLOADS = (
    WIDE,
    FLAGS,
    CHAIN,
    LAYERS,
    SLEEP,
    FANIN,
    BIGRESULT,
    SUBMIT,
    RECOVER,
    STATUS,
    GRAPH,
    MILLION,
    DASKMAP,
    DASKCHAIN,
)
#: Compared with plain Dask, not with plain RQ.
ON_DASK = frozenset({DASKMAP.name, DASKCHAIN.name})
#: Measured once, whatever the number of rounds: each takes long and varies little.
ONCE = frozenset({STATUS.name, GRAPH.name, MILLION.name})
#: Left out of a quick table.
SLOW = ONCE | {SUBMIT.name, RECOVER.name}
#: Measured on request only.
LONG = frozenset({GRAPH.name, MILLION.name})


@dataclass(frozen=True)
class Sizes:
    """Tasks of each workload. `rq_wide`: of WIDE and FANIN on plain RQ, whose cost a task does not change with size."""

    wide: int = 10_000
    chain: int = 500
    layer: int = 500
    layers: int = 10
    sleeps: int = 400
    submit: int = 100_000
    status: int = 100_000
    graph: int = 1_000_000
    million: int = 1_000_000
    big: int = 200
    big_bytes: int = 2_000_000
    rq_wide: int = 2_000
    dask_wide: int = 2_000


FULL = Sizes()
QUICK = Sizes(sleeps=100, rq_wide=1_000, big=50)
