"""What is ready: counters of unfinished dependencies, and the ready tasks of each lane in the order of their turn.

`waiting[t]` is the number of dependencies of t that have no result, for every task in whatever state, so that a
result that appears or vanishes costs the edges of its own task. A task is ready when it is PENDING, waits for
nothing and has no backoff to sit out. The order is by priority, then by rank where paths are
known (`paths`), then by index (BEHAVIOUR O5).

A task that stops being ready leaves its entry in the lane behind, marked as void; there is never a second entry.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Final

from overnight.core.rulebook import INDEX_BITS, Rulebook

#: Marks of a task: it is ready; a lane holds an entry for it; a backoff keeps it from being ready.
READY: Final = 1
LISTED: Final = 2
BACKING_OFF: Final = 4

NOBODY: Final = -1
_INDEX_MASK: Final = (1 << INDEX_BITS) - 1


class Lane:
    """The entries of one lane: `ascending` takes what comes in order, at constant cost, and `heap` all else."""

    __slots__ = ("ascending", "count", "heap")

    def __init__(self) -> None:
        self.ascending: deque[int] = deque()
        self.heap: list[int] = []
        self.count = 0

    def push(self, key: int) -> None:
        """Add an entry."""
        if not self.ascending or key > self.ascending[-1]:
            self.ascending.append(key)
        else:
            heappush(self.heap, key)

    def least(self) -> int | None:
        """Return the first entry in order, None if there is none."""
        if not self.heap:
            return self.ascending[0] if self.ascending else None
        if not self.ascending:
            return self.heap[0]
        return min(self.heap[0], self.ascending[0])

    def pop(self) -> None:
        """Remove the first entry in order. There must be one."""
        if not self.heap or (self.ascending and self.ascending[0] < self.heap[0]):
            self.ascending.popleft()
        else:
            heappop(self.heap)

    def entries(self) -> Iterator[int]:
        """Yield the tasks that have an entry, in no order."""
        for key in self.ascending:
            yield key & _INDEX_MASK
        for key in self.heap:
            yield key & _INDEX_MASK


class Readiness:
    """Dependency counters, marks and ready lanes of every task."""

    def __init__(self, rulebook: Rulebook) -> None:
        self._rulebook = rulebook
        self.waiting = array("i")
        self.marks = bytearray()
        self.lanes: list[Lane] = []

    def add(self, number: int) -> None:
        """Append `number` tasks that wait for nothing and are not ready yet."""
        self.waiting.extend(array("i", (0,)) * number)
        self.marks.extend(bytes(number))
        self._open_lanes()

    def clear(self) -> None:
        """Make no task ready and none wait."""
        number = len(self.marks)
        self.waiting = array("i", (0,)) * number
        self.marks = bytearray(number)
        self.lanes = []
        self._open_lanes()

    def admit(self, task: int) -> None:
        """Make the task ready; it is PENDING and waits for nothing."""
        mark = self.marks[task]
        lane = self.lanes[self._rulebook.lane(task)]
        lane.count += 1
        self.marks[task] = (mark | READY | LISTED) & ~BACKING_OFF
        if not mark & LISTED:
            lane.push(self._rulebook.place(task))

    def withdraw(self, task: int) -> None:
        """Make the task neither ready nor backing off."""
        mark = self.marks[task]
        if mark & READY:
            self.lanes[self._rulebook.lane(task)].count -= 1
        self.marks[task] = mark & LISTED

    def back_off(self, task: int) -> None:
        """Keep the task from being ready until it is admitted."""
        self.marks[task] |= BACKING_OFF

    def head(self, number: int) -> int:
        """Return the ready task of the lane whose turn it is, `NOBODY` if the lane has none."""
        lane = self.lanes[number]
        while (key := lane.least()) is not None:
            task = key & _INDEX_MASK
            if self.marks[task] & READY:
                return task
            lane.pop()
            self.marks[task] &= ~LISTED
        return NOBODY

    def rank(self, number: int) -> int:
        """Return the place of the lane's head in the order over all lanes; the lane has a ready task."""
        return self._rulebook.place(self.head(number))

    def take(self, number: int, task: int) -> None:
        """Remove the head `task` of the lane, which is no longer ready."""
        lane = self.lanes[number]
        lane.pop()
        lane.count -= 1
        self.marks[task] = 0

    def reorder(self) -> None:
        """Put the ready tasks into the order of their places, which have changed."""
        marks, place = self.marks, self._rulebook.place
        for lane in self.lanes:
            keys = []
            for task in lane.entries():
                if marks[task] & READY:
                    keys.append(place(task))
                else:
                    marks[task] &= ~LISTED
            lane.ascending, lane.heap = deque(sorted(keys)), []

    def open_to(self, queue: str | None) -> list[int]:
        """Return the lanes of this queue that have ready tasks; None means every queue."""
        if queue is None and len(self.lanes) == 1:
            return [0] if self.lanes[0].count else []
        lanes = self._rulebook.lanes
        return [
            number
            for number, lane in enumerate(self.lanes)
            if lane.count and (queue is None or queue == lanes[number][0])
        ]

    def count(self, queue: str | None) -> int:
        """Return how many tasks of this queue are ready; None means every queue."""
        return sum(self.lanes[number].count for number in self.open_to(queue))

    def _open_lanes(self) -> None:
        for _ in range(len(self.lanes), len(self._rulebook.lanes)):
            self.lanes.append(Lane())
