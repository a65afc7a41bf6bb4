"""Metrics of a scheduler for Prometheus: what it counts as it works, and how everything stood when it last looked.

The loop writes, threads of the HTTP server read. Counters and histograms are the library's, which locks them. How
things stand is one value that is replaced whole, so that a reader sees one moment; a scheduler that does not dispatch
any more tells nothing of it, so that the sum over all schedulers is right. A label holds only what the deployment
itself names: queues, hosts, states and functions, of which the latter are cut off at a number.
"""

from __future__ import annotations

import time
from collections import Counter as Counted
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

from overnight.core.states import RunPhase
from overnight.errors import Unreachable
from overnight.service.active_run import ActiveRun
from overnight.service.observer import Observer
from overnight.store.records import Batch, Epoch, Happening, RunEvent, WorkerRecord

#: A standing that is older is that of a scheduler which dispatches no more.
FRESH_SECONDS = 10.0
MOST_FUNCTIONS = 200
OTHER_FUNCTIONS = "(other)"
_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600)
_TASK = (0.001, 0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500)


@dataclass(frozen=True, slots=True)
class Standing:
    """How everything stood at a moment of this host's monotonic clock."""

    at: float
    epoch: int
    runs: int
    tasks: Mapping[str, int]
    ready: Mapping[str, int]
    depth: Mapping[str, int]
    outstanding: Mapping[str, int]
    workers: Mapping[tuple[str, ...], float]
    heard: Mapping[str, float]
    """By host the seconds since its quietest worker was last heard of."""

    def families(self) -> Iterator[Metric]:
        """Yield each fact as Prometheus knows it."""
        yield _gauge("epoch", "Number of this scheduler's epoch; grows with each takeover", {(): self.epoch})
        yield _gauge("active_runs", "Runs that are not over", {(): self.runs})
        yield _gauge("tasks", "Tasks of the active runs", _keyed(self.tasks), "state")
        yield _gauge("ready_tasks", "Tasks that could start now and are on no queue yet", _keyed(self.ready), "queue")
        yield _gauge("queue_depth", "Entries that wait on the queue", _keyed(self.depth), "queue")
        yield _gauge("outstanding_batches", "Batches that wait or run", _keyed(self.outstanding), "queue")
        yield _gauge("workers", "Workers that are registered", self.workers, "queue", "doing")
        text = "Seconds since the quietest worker of the host was heard of"
        yield _gauge("worker_heard_seconds", text, _keyed(self.heard), "host")


@dataclass(slots=True)
class Metrics(Observer):
    """An observer that counts; `registry` gives all of it to whoever serves it."""

    looks = True
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    _standing: Standing | None = None
    _functions: set[str] = field(default_factory=set)
    _latency: Histogram = field(init=False)
    _sizes: Histogram = field(init=False)
    _seconds: Histogram = field(init=False)
    _redis: Histogram = field(init=False)
    _lost: Counter = field(init=False)
    _ended: Counter = field(init=False)

    def __post_init__(self) -> None:
        self._latency = self._histogram("dispatch_latency_seconds", "From the queue to a worker", _SHORT, "queue")
        self._sizes = self._histogram("batch_tasks", "Tasks in a dispatched batch", _SIZES, "queue")
        self._seconds = self._histogram("task_seconds", "How long attempts took", _TASK, "function", "outcome")
        self._redis = self._histogram("redis_seconds", "How long the server takes to answer", _SHORT)
        lost = "Batches whose worker vanished"
        self._lost = Counter("lost_batches", lost, namespace="overnight", registry=self.registry)
        self._ended = Counter("ended_runs", "Runs that ended", ["phase"], namespace="overnight", registry=self.registry)
        for phase in RunPhase:  # of what is not there yet no increase is seen when it comes
            if phase.is_over:
                self._ended.labels(phase.value)
        self.registry.register(_Standings(self))

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, text, labels, namespace="overnight", buckets=buckets, registry=self.registry)

    def dispatched(self, batches: Sequence[Batch]) -> None:
        """Count batches by size."""
        for batch in batches:
            self._sizes.labels(batch.queue).observe(len(batch.tasks))

    def heard(self, run: ActiveRun, entry: RunEvent, now: float) -> None:
        """Count claims, outcomes and losses."""
        if entry.what is Happening.CLAIMED:
            waiting = run.waiting.get(entry.batch or "")
            if waiting is not None and waiting.since:  # 0: it was there before this scheduler
                self._latency.labels(waiting.queue).observe(max(0.0, now - waiting.since))
        elif entry.what is Happening.COMMITTED:
            for report in entry.reports:
                if report.seconds is not None and report.task < run.known:
                    outcome = "ok" if report.ok else "died" if report.died else "failed"
                    self._seconds.labels(self._named(run.function(report.task)), outcome).observe(report.seconds)
        elif entry.what is Happening.REAPED:
            self._lost.inc()

    def ended(self, phase: RunPhase) -> None:
        """Count the end of a run."""
        self._ended.labels(phase.value).inc()

    def look(
        self,
        epoch: Epoch,
        runs: Mapping[str, ActiveRun],
        workers: Sequence[WorkerRecord],
        depth: Callable[[str], int],
        server_now: Callable[[], float],
    ) -> None:
        """Take in how everything stands; while the server is away nothing is taken in."""
        begun = time.perf_counter()
        try:
            now = server_now()
            self._redis.observe(time.perf_counter() - begun)
            self._standing = _standing(epoch, runs, workers, depth, now)
        except Unreachable:
            return

    @property
    def standing(self) -> Standing | None:
        """How everything stood lately; None unless this scheduler dispatches."""
        found = self._standing
        return found if found is not None and time.monotonic() - found.at < FRESH_SECONDS else None

    def _named(self, function: str) -> str:
        if len(self._functions) < MOST_FUNCTIONS:
            self._functions.add(function)
        return function if function in self._functions else OTHER_FUNCTIONS


class _Standings:
    """Gives the latest standing to the registry."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        standing = self._metrics.standing
        yield _gauge("dispatching", "1: this scheduler dispatches; 0: it stands by", {(): int(standing is not None)})
        if standing is not None:
            yield from standing.families()


def _standing(
    epoch: Epoch,
    runs: Mapping[str, ActiveRun],
    workers: Sequence[WorkerRecord],
    depth: Callable[[str], int],
    now: float,
) -> Standing:
    tasks: Counted[str] = Counted()
    for run in runs.values():
        tasks.update({state.name.lower(): number for state, number in run.core.counts().items()})
    served = {queue for worker in workers for queue in worker.queues}
    queues = sorted({queue for run in runs.values() for queue in run.queues} | served)
    doing: Counted[tuple[str, ...]] = Counted((queue, _doing(worker)) for worker in workers for queue in worker.queues)
    heard: dict[str, float] = {}
    for worker in workers:
        heard[worker.host] = max(heard.get(worker.host, 0.0), now - worker.seen_at)
    return Standing(
        at=time.monotonic(),
        epoch=epoch.number,
        runs=len(runs),
        tasks=tasks,
        ready={queue: sum(run.core.ready_count(queue) for run in runs.values()) for queue in queues},
        depth={queue: depth(queue) for queue in queues},
        outstanding={queue: sum(run.core.outstanding(queue) for run in runs.values()) for queue in queues},
        workers=doing,
        heard=heard,
    )


def _doing(worker: WorkerRecord) -> str:
    if worker.draining:
        return "draining"
    return "busy" if worker.batch is not None else "waiting"


def _keyed(values: Mapping[str, float]) -> dict[tuple[str, ...], float]:
    return {(name,): value for name, value in values.items()}


def _gauge(name: str, text: str, values: Mapping[tuple[str, ...], float], *labels: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"overnight_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family
