"""What a running task is held to, and its end when it goes beyond: time, memory, processes, output.

The supervisor looks from outside, so no task can forget or undo it. A time limit is enforced when it is up. Memory and
processes, of the child and of all that its tasks have started, are counted several times a second: the first task that
goes beyond is killed with everything it started, and is charged. Its output is cut without harm to it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from overnight_worker.batch import ClaimedBatch
from overnight_worker.census import proportional_memory, resident_memory
from overnight_worker.child_process import ChildProcess
from overnight_worker.death import Death
from overnight_worker.post import Post

#: How long code that ignores the interruption of its time limit goes on.
TIMEOUT_GRACE_SECONDS = 2.0
LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why the child was killed: the position of the task it ran, and what that was beyond; its time if empty.

    `peak_memory` is what was found, in bytes.
    """

    position: int
    beyond: str = ""
    advice: str = ""
    peak_memory: int = 0

    def on(self, death: Death) -> Death:
        """Return the death with this as its reason."""
        peak = max(death.peak_memory, self.peak_memory)
        return replace(death, beyond=self.beyond, advice=self.advice, peak_memory=peak)


class Limits:
    """Holds the tasks of a batch to their limits while a child runs them."""

    def __init__(self, batch: ClaimedBatch, post: Post) -> None:
        self._batch = batch
        self._memory = post.memory_limit_bytes
        self._processes = post.process_limit
        self._output = post.settings.task_log_bytes
        self._look_at = time.monotonic() + LOOK_SECONDS
        self._verdict: Verdict | None = None

    def due_at(self, child: ChildProcess) -> float:
        """Return when `enforce` has something to do, by the monotonic clock."""
        if self._verdict is not None:
            return float("inf")
        time_limit = self._time_limit(child)
        return self._look_at if time_limit is None else min(self._look_at, time_limit[1])

    def enforce(self, child: ChildProcess) -> None:
        """Kill the child if the task that it runs is beyond a limit."""
        if self._verdict is not None:
            return
        now = time.monotonic()
        self._verdict = self._over_time(child, now)
        if self._verdict is None and now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            child.cap_output(self._output)
            self._verdict = self._too_large(child)
        if self._verdict is not None:
            child.kill()

    def take_verdict(self) -> Verdict | None:
        """Return why the child that has just died was killed, if it was; the next one begins anew."""
        verdict, self._verdict = self._verdict, None
        return verdict

    def _time_limit(self, child: ChildProcess) -> tuple[int, float] | None:
        """Return the position of the running task and when it is to be killed for its time limit."""
        if not self._batch.has_limits:
            return None
        running = child.progress.running()
        timeout = self._batch.members[running[0]].facts.timeout if running is not None else None
        if running is None or timeout is None:
            # The next task of the batch may have a limit: look again then.
            return None
        return running[0], running[1] + timeout + TIMEOUT_GRACE_SECONDS

    def _over_time(self, child: ChildProcess, now: float) -> Verdict | None:
        limit = self._time_limit(child)
        return Verdict(limit[0]) if limit is not None and now >= limit[1] else None

    def _too_large(self, child: ChildProcess) -> Verdict | None:
        running = child.progress.running()
        if running is None:
            return None
        processes = child.processes()
        if len(processes) > self._processes:
            beyond = f"too many processes, {len(processes)} above the worker's limit of {self._processes}"
            return Verdict(running[0], beyond, "start fewer processes at once, or raise --process-limit")
        if self._memory is None or resident_memory(processes) <= self._memory:
            return None
        held = proportional_memory(processes)
        if held <= self._memory:
            return None
        beyond = (
            f"out of memory, seen with {held / 1e6:.0f} MB, above the worker's limit of {self._memory / 1e6:.0f} MB"
        )
        return Verdict(running[0], beyond, "hold less at once, or raise --memory-limit", held)
