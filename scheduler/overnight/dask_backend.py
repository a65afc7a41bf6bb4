"""Runs the attempts of one graph on a Dask cluster (BEHAVIOUR DK; decisions/0014).

    start     pack the attempt into the batch that is being filled             (`dask_packing`)
    submit    one Dask task for each batch, with a key that no other run has   (here)
    run       the tasks of the batch, on a worker                              (`dask_batch`)
    collect   the batch's value comes here                                     (`dask_collecting`)
    judge     outcomes for the run; large results stay on the cluster too      (`dask_flights`)

All calls come from the driver's thread; the client's event loop only fills the mailbox.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from distributed import Client, Future
from distributed.client import FutureCancelledError

from overnight.base_executor import RunFacts
from overnight.dask_batch import Settings, run_batch
from overnight.dask_collecting import BatchEnded, BatchLate, Collector, Mailbox
from overnight.dask_flights import Flight, Flights
from overnight.dask_packing import PackedBatch, Packing, no_size_warning
from overnight.dask_run import BatchedLaunch
from overnight.dask_surroundings import own_surroundings
from overnight.errors import OvernightError, Unreachable
from overnight.graph_run import Finished, Launch
from overnight.pickling import dumps

#: Batches on the cluster for each of its threads, so that no thread waits for the driver.
BATCHES_PER_THREAD = 2
#: At first only so many tasks start as the cluster takes at once, to learn how long they run; at most so long.
PROBE_SECONDS = 0.1
#: After so long without a word of any batch the cluster is asked for its workers.
SILENCE_SECONDS = 10.0

_logger = logging.getLogger(__name__)


class DaskBackend:
    """The backend of one run. `most_running()` bounds the tasks that are unfinished on the cluster."""

    def __init__(self, client: Client, facts: RunFacts, most_running: Callable[[], int]) -> None:
        self._client = client
        self._address = address_of(client)
        self._end: OvernightError | None = None
        self._lost_connection = False
        self._most_running = most_running
        self.run_id = facts.run_id
        self._prefix = f"overnight-{facts.run_id}"
        self._settings = dumps(_settings(facts, self._prefix))
        self._slots: int = max(1, sum(client.nthreads().values())) * BATCHES_PER_THREAD
        self._packing = Packing(client, self._prefix)
        self._mailbox: Mailbox = SimpleQueue()
        self._collector = Collector(client, self._mailbox)
        client.subscribe_topic(self._prefix, _late_reports_to(self._mailbox))
        self._filling: Flight | None = None
        self._flights = Flights(facts)
        self._held_back: deque[Flight] = deque()
        self._in_flight = 0
        self._probing = True
        self._told_of_no_workers = False

    # How much.

    def room(self) -> int:
        """Return how many more attempts may be started now.

        Raises what `end` was given, and Unreachable if the cluster is gone.
        """
        if self._is_cut_off():
            raise self._end or Unreachable(f"The Dask cluster at {self._address} was lost in the middle of the run.")
        most = self._most_running()
        return (min(most, self._slots) if self._probing else most) - self._in_flight

    def most_tasks(self) -> int:
        """Return how many tasks a batch may hold now."""
        return 1 if self._flights.suspects else max(1, self._most_running() // self._slots)

    def most_ready(self, ready: int) -> int:
        """Return how many of the ready tasks a batch may take now."""
        return max(1, -(-ready // self._slots))

    # Starting.

    def start(self, launch: Launch) -> None:
        """Put the attempt into its batch. Raises TaskNotPicklable."""
        if not isinstance(launch, BatchedLaunch):
            raise TypeError(f"A {type(launch).__name__} does not say where its results are.")
        flight = self._filling
        if flight is None or flight.name != launch.batch:
            self._send_batch()
            flight = self._filling = Flight(launch.batch, launch.desc.options.priority)
        try:
            self._packing.add(launch, flight.packed)
        except Exception:
            if not self._is_cut_off():
                raise
        flight.waiting[len(flight.packed.orders) - 1] = launch
        flight.suspect = flight.suspect or launch.index in self._flights.suspects
        self._in_flight += 1

    def _send_batch(self) -> None:
        """Send the batch that is being filled, or hold it back while another suspect is on the cluster."""
        flight, self._filling = self._filling, None
        if flight is None or not flight.waiting:
            return
        self._flights.add(flight)
        if flight.suspect and self._flights.has_suspect:
            self._held_back.append(flight)
        else:
            self._submit(flight)

    def _submit(self, flight: Flight) -> None:
        orders, inputs, functions = flight.packed.arguments()
        key = f"{self._prefix}-{flight.name}"
        try:
            with no_size_warning(len(orders)):
                flight.future = self._client.submit(
                    run_batch, flight.name, self._settings, orders, inputs, functions,
                    key=key, priority=flight.priority, pure=False,
                )  # fmt: skip
            self._collector.follow(flight.name, flight.future)
        except Exception as error:  # whatever keeps a batch from being sent is the failure of its tasks (R4)
            self._mailbox.put([BatchEnded(flight.name, error=error)])
        flight.packed = PackedBatch()

    # Collecting.

    def wait(self, seconds: float | None) -> Sequence[Finished]:
        """Send what was started; wait until a batch has ended or reports, at most so long."""
        self._send_batch()
        most = PROBE_SECONDS if self._probing else SILENCE_SECONDS
        self._probing = False
        try:
            return self._judged(self._mailbox.get(timeout=most if seconds is None else min(seconds, most)))
        except Empty:
            self._tell_of_no_workers()
            return []

    def _tell_of_no_workers(self) -> None:
        """Warn, once until there are some again, of a cluster that has no workers: a local one whose workers die again
        and again takes them for lost, and starts none any more."""
        try:
            has_workers = bool(self._client.nthreads())
        except Exception:  # whether the cluster is gone is found out elsewhere
            return
        if not has_workers and not self._told_of_no_workers:
            _logger.warning(
                "The Dask cluster at %s has no workers: the run waits until it has some (cluster.scale, dask worker).",
                self._address,
            )
        self._told_of_no_workers = not has_workers

    def wake(self) -> None:
        """End a wait: an empty letter tells of nothing."""
        self._mailbox.put(())

    def _judged(self, messages: Sequence[BatchEnded | BatchLate]) -> list[Finished]:
        if any(_tells_of_lost_connection(message) for message in messages):
            self._lost_connection = True
        if self._is_cut_off():  # of what does not end as usual now, no task is to blame
            messages = [message for message in messages if isinstance(message, BatchLate) or message.report is not None]
        finished = list(self._flights.judged(messages))
        self._in_flight -= len(finished)
        if self._held_back and not self._flights.has_suspect:
            self._submit(self._held_back.popleft())
        return finished

    # Ending.

    def end(self, reason: OvernightError) -> None:
        """Let the run end with this error, before the cluster is shut down. Called from any thread."""
        self._end = reason
        self.wake()

    def _is_cut_off(self) -> bool:
        """Tell whether nothing more is to be expected of the cluster."""
        return self._end is not None or self._lost_connection or self._client.status != "running"

    def abandon(self) -> Sequence[Finished]:
        """Take in what has finished and cancel the rest; results stay on the cluster until `release`."""
        self._filling = None
        self._held_back.clear()
        finished: list[Finished] = []
        try:
            while not self._mailbox.empty():
                finished += self._judged(self._mailbox.get())
            finished += self._judged(self._collector.finished(self._flights.futures()))
        except Exception:  # a cluster that does not answer has nothing more to give, and the run ends all the same
            _logger.debug("The last results of run %s were not fetched.", self._prefix, exc_info=True)
        self._let_go(list(self._flights.futures().values()), cancel=True)
        return finished

    def release(self) -> None:
        """Let the cluster forget the results of this run. After `abandon`."""
        self._let_go([*self._flights.kept, *self._packing.on_cluster])
        try:
            self._client.unsubscribe_topic(self._prefix)
            # The loop works in order: when it answers, it has let all of the futures go.
            self._client.sync(asyncio.sleep, 0)
        except Exception:  # likewise
            _logger.debug("The cluster was not told of the end of run %s.", self._prefix, exc_info=True)

    def _let_go(self, futures: Sequence[Future[Any]], *, cancel: bool = False) -> None:
        try:
            if cancel and futures:
                self._client.cancel(futures)
            for future in futures:
                future.release()
        except Exception:  # likewise
            _logger.debug("The cluster was not told to forget run %s.", self._prefix, exc_info=True)


def address_of(client: Client) -> str:
    """Return the address of the client's scheduler, for messages."""
    scheduler: Any = client.scheduler
    return "an unknown address" if scheduler is None else str(scheduler.address)


def _tells_of_lost_connection(message: BatchEnded | BatchLate) -> bool:
    """Tell whether the client gave a batch up: it does so with all of them, even if it finds the scheduler again."""
    error = message.error if isinstance(message, BatchEnded) else None
    return isinstance(error, FutureCancelledError) and error.reason == "scheduler-connection-lost"


def _settings(facts: RunFacts, topic: str) -> Settings:
    return Settings(facts.run_id, topic, facts.log_dir, facts.verbosity, facts.fork_tasks, own_surroundings())


def _late_reports_to(mailbox: Mailbox) -> Callable[[Any], None]:
    """Return a handler of events that holds nothing of the run but its mailbox: the client never forgets it."""

    def put(event: tuple[float, Any]) -> None:
        told = event[1]
        mailbox.put([BatchLate(told["batch"], told["outcomes"], told["given_back"])])

    return put
