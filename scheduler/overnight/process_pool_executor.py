"""Runs the tasks of a graph in processes of this machine (BEHAVIOUR PP).

A process holds one task, and a second one behind it while the first is short: then it need not wait for the driver. A
task that waits behind one which turns out to be long is taken back as soon as another process is idle, and one that
waited in a process that died has not begun and is handed to another: its ticket tells (`pool_frames`). So each death is
charged to exactly one task. `room` keeps what was started and has not finished below twice the number of processes. The
driver has no thread: it waits for channels and deaths.

`pool_process` holds the driver's ends, `pool_worker` is the program of the processes, `pool_frames` what they say.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from overnight.base_executor import RunFacts, TaskGraphExecutorBase
from overnight.errors import ResultNotPicklable, RunCancelled, TaskDied, TaskTimedOut
from overnight.forked import EXIT_SECONDS, KILL_GRACE_SECONDS, TERMINATE_SECONDS, death_of
from overnight.graph_run import Finished, Launch
from overnight.invoke import Outcome
from overnight.naming import shown
from overnight.pickling import dumps
from overnight.pool_frames import BrokenChannel, Frame, Kind, close_all, packed_frame
from overnight.pool_packing import PackedCalls, context_of, run_frame
from overnight.pool_process import Flight, PoolProcess
from overnight.pool_values import SharedValues
from overnight.process_pool import Pool, usable_cpus
from overnight.task_log import TaskLog

#: Seconds from which on a task counts as long: nothing is to wait behind it.
LONG_SECONDS = 0.002
#: Seconds that a process has to end by itself once it has closed its channel.
CLOSED_SECONDS = 1.0

_logger = logging.getLogger(__name__)
_task_logger = logging.getLogger("task_executor")


class ProcessPoolTaskExecutor(TaskGraphExecutorBase):
    """Executes tasks in up to `max_workers` processes (None: as many as this process may use CPUs).

    Keywords: those of `TaskGraphExecutorBase`, and `task_cache` and `force`. The processes start with the first task
    that needs one, serve all runs of the executor, and end with `close`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._pool: Pool | None = None

    def _open_backend(self, facts: RunFacts) -> PoolRun:
        if self._pool is None or self._pool.is_closed:
            self._pool = Pool(facts.max_workers or usable_cpus())
        return PoolRun(facts, self._pool)

    def close(self) -> None:
        """End the processes; a run that is still active ends with RunCancelled. May be called again."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close(TERMINATE_SECONDS)


class PoolRun:
    """The backend of one run on the pool."""

    def __init__(self, facts: RunFacts, pool: Pool) -> None:
        self._facts = facts
        self._pool = pool
        self._calls = PackedCalls()
        self._large = SharedValues()
        self._waiting: deque[Flight] = deque()
        self._finished: list[Finished] = []
        self._unfinished = 0
        self._enter = packed_frame(Kind.ENTER, dumps(context_of(facts)))

    def room(self) -> int:
        """Return how many more tasks may run or wait. Raises RunCancelled if the executor was closed."""
        if self._pool.is_closed:
            raise RunCancelled(self._facts.run_id, "its executor was closed")
        return 2 * self._pool.size - self._unfinished

    def start(self, launch: Launch) -> None:
        """Let an attempt wait for a process; the next `wait` hands it over. Raises TaskNotPicklable."""
        self._waiting.append(self._calls.packed(launch))
        self._unfinished += 1

    def wait(self, seconds: float | None) -> Sequence[Finished]:
        """Wait until some attempt has ended, or `wake`, at most so long; return all that have."""
        limit = None if seconds is None else time.monotonic() + seconds
        self._pool.was_woken = False
        with self._pool.in_use():
            while not (self._finished or self._pool.was_woken or self._pool.is_closed):
                self._feed()
                self._look(self._pause(limit))
                self._end_overdue()
                if limit is not None and time.monotonic() >= limit:
                    break
        return self._take_finished()

    def wake(self) -> None:
        """End a wait."""
        self._pool.wake()

    def abandon(self) -> Sequence[Finished]:
        """End the processes that are busy, with what they started; return what had finished before."""
        with self._pool.in_use():
            self._stop()
        if self._pool.is_closed:
            self._pool.close(TERMINATE_SECONDS)
        return self._take_finished()

    def _stop(self) -> None:
        self._waiting.clear()
        try:
            self._look(0)
            for process in self._pool.processes:
                while process.take_back() is not None:
                    pass
                if process.begun is not None:
                    self._log_end(process.begun.launch, "its run was given up", process.output(), logging.INFO)
        finally:
            busy = [process for process in self._pool.processes if process.flights or process.is_leaving]
            # A forked attempt ends with its own process, which waits for it as long.
            self._pool.end(busy, TERMINATE_SECONDS + (EXIT_SECONDS if self._facts.fork_tasks else 0))
            self._pool.end_run()

    def _take_finished(self) -> Sequence[Finished]:
        finished, self._finished = self._finished, []
        return finished

    # Handing over.

    def _feed(self) -> None:
        """Hand waiting tasks to the processes that can take one."""
        self._take_back_stuck()
        while self._waiting:
            try:
                process = self._pool.taker(LONG_SECONDS, brings_files=bool(self._waiting[0].places))
            except OSError as error:
                if self._pool.processes:
                    return
                self._finish(self._waiting.popleft().launch, Outcome(False, error, time.time(), 0.0))  # noqa: FBT003
                continue
            if process is None:
                return
            self._hand_over(process, self._waiting.popleft())

    def _take_back_stuck(self) -> None:
        """Let tasks wait here that wait behind a long one, where another process is idle."""
        if not self._pool.has_idle():
            return
        latest = time.monotonic() - LONG_SECONDS
        for process in self._pool.processes:
            if len(process.flights) > 1 and process.flights[0].begin <= latest:
                flight = process.take_back()
                if flight is not None:
                    self._waiting.appendleft(flight)

    def _hand_over(self, process: PoolProcess, flight: Flight) -> None:
        process.give(flight)
        data = b""
        if process.run_id != self._facts.run_id:
            process.run_id = self._facts.run_id
            process.numbers.clear()
            data = self._enter
        number = flight.number
        function = None if number in process.numbers else flight.function
        if number:
            process.numbers.add(number)
        frame, files = run_frame(flight, function)
        self._pool.post(process, data + frame, files)

    # Taking in.

    def _pause(self, limit: float | None) -> float | None:
        """Return the seconds to the next thing that happens by the clock alone."""
        due = [] if limit is None else [limit]
        has_idle = self._pool.has_idle()
        for process in self._pool.processes:
            due.extend(process.due())
            if has_idle and len(process.flights) > 1:
                due.append(process.flights[0].begin + LONG_SECONDS)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _look(self, seconds: float | None) -> None:
        """Wait for events and see to them: first feed the processes again, then open what they sent."""
        arrived: list[tuple[Flight, Frame]] = []
        self._pool.flush()
        for event in self._pool.wait(seconds):
            if event.process not in self._pool.processes:
                continue  # buried in this round
            if event.readable:
                self._listen(event.process, arrived)
            if event.ended or (event.process.is_leaving and event.process.handle is None):
                self._bury(event.process, arrived)
        self._pool.flush()
        for flight, frame in arrived:
            self._finish(flight.launch, self._opened(flight, frame))

    def _listen(self, process: PoolProcess, arrived: list[tuple[Flight, Frame]]) -> None:
        """Take what a process says. One that closes its channel is about to exit, or is killed a little later."""
        try:
            for frame in process.receive():
                kind, flight = frame.kind, process.with_ticket(frame.ticket)
                if kind is Kind.OUTCOME and flight is not None:
                    process.end(flight)
                    arrived.append((flight, frame))
                    self._feed()
                elif kind is Kind.BEGINS and flight is not None:
                    timeout = flight.launch.desc.options.timeout or 0
                    flight.overdue = time.monotonic() + timeout + KILL_GRACE_SECONDS
                elif kind is Kind.READY:
                    process.begin_serving()
                elif frame.descriptors:
                    close_all(frame.descriptors)
        except EOFError:
            self._pool.mute(process)
            if process.begun is not None:
                process.begun.overdue = time.monotonic() + CLOSED_SECONDS
            else:
                process.condemn(None, None)
        except BrokenChannel:
            self._pool.mute(process)
            # What comes before the outcome of the first was written before that ended, whatever has begun since.
            culprit = process.flights[0] if process.begun is not None else None
            name = "An idle process" if culprit is None else culprit.name
            process.condemn(culprit, TaskDied(f"{name} was killed: it wrote into the channel to its driver."))

    def _end_overdue(self) -> None:
        """Kill what runs on after its time limit, lives on without its channel, or does not begin what it has."""
        now = time.monotonic()
        for process in self._pool.processes:
            flight = process.begun
            if process.begin_due is not None and process.begin_due <= now:
                process.begin_due = None
                if flight is None:
                    process.condemn(None, None)
            if flight is None or flight.overdue is None or flight.overdue > now:
                continue
            flight.overdue = None
            if process.is_leaving:
                process.condemn(flight, TaskDied(f"{flight.name} was killed: it closed the channel to its driver."))
            else:
                timeout = flight.launch.desc.options.timeout
                verdict = TaskTimedOut(f"{flight.name} ran on after its limit of {timeout:g} s and was killed.")
                process.condemn(flight, verdict)

    def _bury(self, process: PoolProcess, arrived: list[tuple[Flight, Frame]]) -> None:
        """Take the last words of a process that has ended, and charge the task that it ran; if none, the first."""
        self._pool.mute(process)
        self._listen(process, arrived)
        flight, output = process.charged, process.output()
        first = flight or next(iter(process.flights), None)
        self._waiting.extendleft(other for other in reversed(process.flights) if other is not first)
        code = self._pool.remove(process)
        if not process.is_ready:
            _logger.warning("A process of the pool ended before it was ready, exit code %d. %s", code, output)
        if flight is None and first is not None:
            self._finish(first.launch, None)
        elif flight is not None:
            error = process.verdict or death_of(flight.name, code, worker=f"process {process.pid}")
            self._log_end(flight.launch, _told(error), output)
            seconds = time.monotonic() - flight.begin
            self._finish(flight.launch, Outcome(ok=False, value=error, started=flight.started, seconds=seconds))
        self._feed()

    def _opened(self, flight: Flight, frame: Frame) -> Outcome:
        try:
            outcome = self._large.opened(frame)
        except Exception as error:  # whatever is wrong with these bytes is this task's failure alone
            return Outcome(ok=False, value=error, started=flight.started, seconds=time.monotonic() - flight.begin)
        if isinstance(outcome.value, ResultNotPicklable):
            self._log_end(flight.launch, _told(outcome.value))
        return outcome

    def _finish(self, launch: Launch, outcome: Outcome | None) -> None:
        self._unfinished -= 1
        self._finished.append((launch, outcome))

    def _log_end(self, launch: Launch, reason: str, output: str = "", level: int = logging.ERROR) -> None:
        """Write to the log of a task how it ended, and what it had printed, where its process cannot do it."""
        facts, task_id = self._facts, launch.task.task_id
        log = TaskLog(task_id, facts.log_dir, facts.verbosity, run_id=facts.run_id, attempt=launch.attempt)
        with log:
            if output and facts.log_dir is not None:
                log.write(output)
            _task_logger.log(level, "task <%s> ended: %s", shown(task_id), reason)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
