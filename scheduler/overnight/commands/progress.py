"""How far a run is, for people: a live display on a terminal, plain lines elsewhere.

`Pace` turns counts into a rate and the time left; a display shows what `Standing` says, and lets other lines pass
without tearing what it draws.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from overnight.commands.screen import WARNING_LINES, console, duration, say
from overnight.commands.time_left import TimeLeft
from overnight.core.states import TERMINAL, TaskState
from overnight.naming import shown

PLAIN_SECONDS = 5.0
LIVE_RUNNING = 8
_WINDOW_SECONDS = 30.0
_SHORTEST_WINDOW_SECONDS = 1.0
_UNITS = (("s", 1), ("min", 60), ("h", 3600))
#: Below so many tasks in a unit of time the next longer one tells more.
_LEAST_PACE = 0.5
_SHOWN_STATES = (
    TaskState.DONE,
    TaskState.CACHED,
    TaskState.FAILED,
    TaskState.SKIPPED,
    TaskState.CANCELLED,
    TaskState.RUNNING,
    TaskState.QUEUED,
)


@dataclass(frozen=True, slots=True)
class Running:
    """A task that runs: its id, for how many seconds, and what its worker has said of itself (empty: nothing yet)."""

    task_id: str
    seconds: float
    where: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run stands: tasks by state, how many there are, tasks a second, the time left (None: unknown)."""

    counts: Mapping[TaskState, int]
    total: int
    rate: float | None
    time_left: TimeLeft | None
    running: Sequence[Running]

    @property
    def ended(self) -> int:
        """How many tasks are terminal."""
        return sum(number for state, number in self.counts.items() if state in TERMINAL)


def worked(counts: Mapping[TaskState, int]) -> int:
    """Return how many tasks were run to their end: what is cached, skipped or cancelled took no worker's time."""
    return counts.get(TaskState.DONE, 0) + counts.get(TaskState.FAILED, 0)


class Pace:
    """The rate over the last half minute, of tasks that were run.

    What had ended before the first look, as in a run that was attached to, counts for nothing either.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, now: float, counts: Mapping[TaskState, int]) -> float | None:
        """Return tasks a second, None while that is not known yet."""
        done = worked(counts)
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] > _WINDOW_SECONDS:
            self._seen.popleft()
        first, before = self._seen[0]
        if now - first < _SHORTEST_WINDOW_SECONDS or done <= before:
            return None
        return (done - before) / (now - first)


class Display(Protocol):
    """What shows a run to people."""

    def show(self, standing: Standing) -> None:
        """Show where the run stands now."""

    def line(self, text: str) -> None:
        """Print a line that stays."""

    def close(self) -> None:
        """Draw no more."""


class PlainDisplay:
    """A line every few seconds, if something changed or the time has come to say that it lives."""

    def __init__(self, *, to_stderr: bool = False) -> None:
        self._to_stderr = to_stderr
        self._next = 0.0
        self._last = ""

    def show(self, standing: Standing) -> None:
        """Print a line if the last one is old enough and says something else."""
        now = time.monotonic()
        text = summary_line(standing)
        if now >= self._next and text != self._last:
            self._next, self._last = now + PLAIN_SECONDS, text
            self.line(text)

    def line(self, text: str) -> None:
        """Print a line."""
        if self._to_stderr:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()
        else:
            say(text)

    def close(self) -> None:
        """Nothing is left to draw."""


class LiveDisplay:
    """A block of lines that is drawn again in place."""

    def __init__(self) -> None:
        from rich.live import Live

        self._live = Live(console=console(), auto_refresh=False, transient=True, redirect_stdout=False)
        self._live.start()
        WARNING_LINES.print_through(self.line)

    def show(self, standing: Standing) -> None:
        """Draw the block anew."""
        from rich.console import Group
        from rich.padding import Padding
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        bar = ProgressBar(total=max(1, standing.total), completed=standing.ended, width=60)
        lines: list[Padding | Text] = [
            Padding(bar, 0),  # which ends its line; a bar alone does not
            Text(summary_line(standing), overflow="ellipsis", no_wrap=True),
        ]
        for running in standing.running[:LIVE_RUNNING]:
            where = f"  {shown(running.where)}" if running.where else ""
            text = f"  {duration(running.seconds):>8}  {shown(running.task_id)}{where}"
            lines.append(Text(text, style="dim", overflow="ellipsis", no_wrap=True))
        more = len(standing.running) - LIVE_RUNNING
        if more > 0:
            lines.append(Text(f"            and {more} more", style="dim"))
        self._live.update(Group(*lines), refresh=True)

    def line(self, text: str) -> None:
        """Print a line above the block."""
        from rich.text import Text

        self._live.console.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        """Take the block away."""
        WARNING_LINES.print_through(None)
        self._live.stop()


def open_display(*, as_json: bool) -> Display:
    """Return the display that fits standard output; with `as_json` that is left to the facts."""
    if as_json:
        return PlainDisplay(to_stderr=True)
    out = console()
    return LiveDisplay() if out.is_terminal and not out.is_dumb_terminal else PlainDisplay()


def summary_line(standing: Standing) -> str:
    """Return counts, rate, time left and the task that has run longest on one line."""
    parts = [f"{standing.ended}/{standing.total} ended", counts_text(standing.counts)]
    if standing.rate:
        parts.append(pace_text(standing.rate))
    if standing.time_left is not None and standing.ended < standing.total:
        parts.append(standing.time_left.text())
    if standing.running:
        oldest = max(standing.running, key=lambda running: running.seconds)
        parts.append(f"oldest: {shown(oldest.task_id)}, {duration(oldest.seconds)}")
    return "; ".join(part for part in parts if part)


def pace_text(rate: float) -> str:
    """Return tasks a second in the unit in which it is a number to think in."""
    unit, seconds = next(((unit, seconds) for unit, seconds in _UNITS if rate * seconds >= _LEAST_PACE), _UNITS[-1])
    return f"{rate * seconds:.1f} tasks/{unit}"


def counts_text(counts: Mapping[TaskState, int]) -> str:
    """Return the number of tasks by state, without the states that have none and those that only wait."""
    return ", ".join(f"{counts[state]} {state.name.lower()}" for state in _SHOWN_STATES if counts.get(state))
