"""What was told of the text that one attempt writes, so that each line of it is told once.

Two sources tell of it. The log is complete in the end; what a task prints reaches it with its next record, or at its
end. The worker tells, every few seconds, the last lines of log and prints together. So what the worker tells runs ahead
of the log, and is left out when the log brings it.
"""

from __future__ import annotations

from overnight.log_tails import LONGEST_TAIL_BYTES, added_to

#: Stands where lines are missing between those that were told.
MISSING = "...\n"
_MOST_KEPT = 1 << 20


class Told:
    """What was told of one attempt."""

    def __init__(self) -> None:
        self._logged = ""
        #: Stretches that were told ahead of the log, in order; the first follows what is logged, lines are missing
        #: between one and the next.
        self._ahead = [""]

    @property
    def latest(self) -> str:
        """The end of what was told, as far as no line is missing in it."""
        return self._logged + self._ahead[0] if len(self._ahead) == 1 else self._ahead[-1]

    def by_worker(self, text: str) -> str:
        """Return what is new of the last lines that a worker tells; they may be older than what the log has told."""
        latest = self.latest
        if text in latest or text in self._logged:
            return ""
        added = added_to(latest[-2 * LONGEST_TAIL_BYTES :], text)
        if added is None:
            self._ahead.append(text)
            return f"{MISSING}{text}"
        self._ahead[-1] += added
        return added

    def by_log(self, added: str) -> str:
        """Return what is new of what the log has brought; what was missing before is told between two marks."""
        self._logged = (self._logged + added)[-_MOST_KEPT:]
        late = ""
        while added and self._ahead:
            stretch = self._ahead[0]
            if stretch.startswith(added):
                self._ahead[0] = stretch[len(added) :]
                return late
            if stretch and stretch not in added:
                self._ahead.clear()  # it is not what the log holds: nothing of that is left out
                break
            missing, _, added = added.partition(stretch) if stretch else ("", "", added)
            late += f"{MISSING}{missing}{MISSING}" if missing else ""
            del self._ahead[0]
        self._ahead = self._ahead or [""]
        return late + added
