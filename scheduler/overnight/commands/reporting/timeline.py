"""Who ran what when: one lane a worker, drawn as few paths, however many tasks there were.

Up to some thousand attempts each is a bar that names its task. Beyond that a lane is divided into equal pieces of time,
each shown by the function that took most of it, lighter where the worker was partly idle, and marked where an attempt
failed. Long stretches in which nobody ran anything, as between a night and the retry in the morning, are left out and
marked too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from overnight.commands.reporting.facts import Execution

WIDTH = 1000.0
MOST_BARS = 2000
MOST_LANES = 40
PIECES = 250
LEVELS = 3
#: A pause is left out if it is longer than this part of the whole, and than this part of the time in which work ran.
LONG_PAUSE = 0.1
_SHOWN_PAUSE = 0.02
_LEAST_MARK = 2.0
FAILED = "bad"


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch of a lane: from `left` over `width`, in thousandths of the whole; `task` None: of several tasks."""

    left: float
    width: float
    kind: str
    task: int | None = None
    seconds: float = 0.0


@dataclass(slots=True)
class Lane:
    """One worker: its bars, how many attempts it ran, and which part of the time shown it was busy."""

    worker: str
    bars: list[Bar] = field(default_factory=list)
    attempts: int = 0
    busy: float = 0.0


@dataclass(frozen=True, slots=True)
class Timeline:
    """The lanes shown; `more` is how many workers are not. `ticks` are (place, time); `pauses` (place, seconds)."""

    lanes: Sequence[Lane]
    more: int
    ticks: Sequence[tuple[float, float]]
    pauses: Sequence[tuple[float, float]]
    is_condensed: bool


class Scale:
    """From times to places between 0 and `WIDTH`, long pauses left out."""

    def __init__(self, executions: Sequence[Execution]) -> None:
        stretches = _merged(executions)
        busy = sum(end - start for start, end in stretches) or 1.0
        long = LONG_PAUSE * max(busy, stretches[-1][1] - stretches[0][0])
        self.pauses: list[tuple[float, float]] = []
        self._times: list[float] = []
        self._places: list[float] = []
        place = 0.0
        for number, (start, end) in enumerate(stretches):
            if number:
                pause = start - stretches[number - 1][1]
                if pause > long:
                    self.pauses.append((place + _SHOWN_PAUSE * busy / 2, pause))
                    pause = _SHOWN_PAUSE * busy
                place += pause
            self._times += [start, end]
            self._places += [place, place + end - start]
            place += end - start
        self._length = place or 1.0
        self.pauses = [(WIDTH * at / self._length, seconds) for at, seconds in self.pauses]

    def place(self, time: float) -> float:
        """Return where a time lies."""
        return WIDTH * _between(self._times, self._places, time) / self._length

    def time(self, place: float) -> float:
        """Return which time lies at a place."""
        return _between(self._places, self._times, place * self._length / WIDTH)


def timeline(executions: Iterable[Execution], kind_of: Sequence[str]) -> Timeline | None:
    """Return the lanes of these attempts; None if there are none. `kind_of` gives the class of each task's bar."""
    all_of_them = list(executions)
    if not all_of_them:
        return None
    scale = Scale(all_of_them)
    by_worker: dict[str, list[Execution]] = {}
    for one in all_of_them:
        by_worker.setdefault(one.worker, []).append(one)
    names = sorted(by_worker, key=lambda name: -sum(one.seconds for one in by_worker[name]))[:MOST_LANES]
    condensed = len(all_of_them) > MOST_BARS
    lanes = []
    for name in sorted(names):
        ran = sorted(by_worker[name], key=lambda one: one.started)
        bars = _pieces(ran, scale, kind_of) if condensed else [_bar(one, scale, kind_of) for one in ran]
        busy = sum(scale.place(one.started + one.seconds) - scale.place(one.started) for one in ran) / WIDTH
        lanes.append(Lane(name, bars, len(ran), min(1.0, busy)))
    ticks = [(place, scale.time(place)) for place in (0.0, WIDTH / 4, WIDTH / 2, 3 * WIDTH / 4, WIDTH)]
    return Timeline(lanes, len(by_worker) - len(names), ticks, scale.pauses, condensed)


def _bar(one: Execution, scale: Scale, kind_of: Sequence[str]) -> Bar:
    left = scale.place(one.started)
    width = max(0.8, scale.place(one.started + one.seconds) - left)
    return Bar(left, width, FAILED if one.failed else kind_of[one.task], one.task, one.seconds)


def _pieces(ran: Sequence[Execution], scale: Scale, kind_of: Sequence[str]) -> list[Bar]:
    """Return a lane in equal pieces, each of the kind that took most of it, equal neighbours as one bar."""
    size = WIDTH / PIECES
    shares: list[dict[str, float]] = [{} for _ in range(PIECES)]
    for one in ran:
        left, right = scale.place(one.started), scale.place(one.started + one.seconds)
        kind = FAILED if one.failed else kind_of[one.task]
        for piece in range(min(PIECES - 1, int(left / size)), min(PIECES - 1, int(right / size)) + 1):
            part = min(right, (piece + 1) * size) - max(left, piece * size)
            shares[piece][kind] = shares[piece].get(kind, 0.0) + max(0.0, part)
    bars: list[Bar] = []
    marks: list[Bar] = []
    for piece, share in enumerate(shares):
        busy = sum(share.values()) / size
        if busy <= 0:
            continue
        failed = share.pop(FAILED, None)
        if failed is not None:
            marks.append(Bar(piece * size, max(_LEAST_MARK, min(size, failed)), FAILED))
        if not share:
            continue
        kind = f"{max(share, key=share.__getitem__)} l{min(LEVELS, 1 + int(busy * LEVELS))}"
        if bars and bars[-1].kind == kind and abs(bars[-1].left + bars[-1].width - piece * size) < 1e-6:
            bars[-1] = Bar(bars[-1].left, bars[-1].width + size, kind)
        else:
            bars.append(Bar(piece * size, size, kind))
    return bars + marks


def _merged(executions: Iterable[Execution]) -> list[tuple[float, float]]:
    """Return the stretches of time in which something ran, in order."""
    found: list[tuple[float, float]] = []
    for start, end in sorted((one.started, one.started + one.seconds) for one in executions):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found


def _between(keys: Sequence[float], values: Sequence[float], key: float) -> float:
    """Return the value at a key between known ones, by a straight line."""
    after = bisect_right(keys, key)
    if after == 0:
        return values[0]
    if after == len(keys):
        return values[-1]
    span = keys[after] - keys[after - 1]
    part = (key - keys[after - 1]) / span if span else 0.0
    return values[after - 1] + part * (values[after] - values[after - 1])
