"""What waits in a batch behind a task that takes far longer than its batch was made for goes back, to run elsewhere.

The child is told to start nothing more, and what it then does not run is given back. A batch in which everything that
waits needs the slow task keeps it: nowhere else could it run.
"""

from __future__ import annotations

from overnight_worker.batch import ClaimedBatch, Member, Stage
from overnight_worker.child_process import ChildProcess

#: How long a task may hold up those behind it.
TAIL_SECONDS = 0.5
#: After a request to start nothing more, the child is left this long to see it.
STOP_SEEN_SECONDS = 0.005
NEVER = float("inf")


class Tail:
    """Watches over one batch. Times are seconds of the monotonic clock."""

    def __init__(self, batch: ClaimedBatch) -> None:
        self._batch = batch
        #: The position that was looked at last because it is slow, and when the child was told to stop after it.
        self._slow: int | None = None
        self._stopped_at: float | None = None

    def due_at(self, child: ChildProcess) -> float:
        """Return when to call `released`."""
        running = child.progress.running()
        if running is None:
            return NEVER
        if running[0] != self._slow:
            return running[1] + TAIL_SECONDS
        return NEVER if self._stopped_at is None else self._stopped_at + STOP_SEEN_SECONDS

    def released(self, child: ChildProcess, now: float) -> list[Member]:
        """Return what is to be given back, marked so; nothing while no task is slow, or none waits that need not."""
        running = child.progress.running()
        if running is None or now < running[1] + TAIL_SECONDS:
            return []
        position = running[0]
        if position != self._slow:
            self._slow, self._stopped_at = position, None
            if self._holds_up_others(position):
                child.progress.stop()
                self._stopped_at = now
            return []
        if self._stopped_at is None or now < self._stopped_at + STOP_SEEN_SECONDS:
            return []
        self._stopped_at = None
        tail = [member for member in self._batch.open_members() if member.position > position]
        for member in tail:
            member.stage = Stage.RETURNED
        return tail

    def _holds_up_others(self, position: int) -> bool:
        waits_for = {self._batch.members[position].task}
        for member in self._batch.open_members():
            if member.position == position:
                continue
            if waits_for.isdisjoint(member.facts.dependencies):
                return True
            waits_for.add(member.task)
        return False
