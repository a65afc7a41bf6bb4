"""Which host is to blame: the deaths of one run's tasks, and what their later success elsewhere says of them.

A task that dies everywhere is bad itself; one that dies here and succeeds there speaks against here. A host with
enough of these is put into quarantine (ADVERSITY P10). What is counted are processes that died with their task, not
workers that vanished: a machine that is restarted is not sick.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

#: So many tasks that died on a host and succeeded elsewhere put it into quarantine ...
DEATHS_TO_QUARANTINE: Final = 3
#: ... if all of them succeeded within this time.
EVIDENCE_SECONDS: Final = 3 * 3600.0


class Suspicions:
    """On which hosts the tasks of a run died."""

    def __init__(self) -> None:
        self._died_on: dict[int, dict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._died_on)

    def died(self, task: int, host: str) -> None:
        """A task's process died on a host."""
        self._died_on.setdefault(task, {})[host] = None

    def succeeded(self, task: int, host: str) -> Sequence[str]:
        """A task succeeded on a host; return the hosts that this speaks against. It is asked once a task."""
        died_on = self._died_on.pop(task, {})
        return [other for other in died_on if other != host] if host not in died_on else []
