"""What became of each task of a run (BEHAVIOUR B8, B9)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from overnight.naming import shown

_MOST_IDS_IN_LINE = 20

_logger = logging.getLogger("overnight.summary")


@dataclass(frozen=True, slots=True)
class RunSummary:
    """Task ids of one run by how they ended, in the order in which they did.

    `skipped` maps an id to the failed task for which it was skipped; `not_run` are those that an abandoned run left.
    """

    run_id: str
    succeeded: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    cached: tuple[str, ...] = ()
    not_run: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """True iff nothing failed, was skipped or was left."""
        return not (self.failed or self.skipped or self.not_run)

    def line(self) -> str:
        """Return the counts, and the failed ids, on one line."""
        counts = (
            f"{len(self.succeeded)} succeeded, {len(self.failed)} failed, {len(self.skipped)} skipped, "
            f"{len(self.cached)} cached, {len(self.not_run)} not run"
        )
        return f"run {self.run_id}: {counts}{_named('failed', self.failed)}"

    def log(self) -> None:
        """Log the line: INFO if the run is ok, otherwise WARNING."""
        _logger.log(logging.INFO if self.ok else logging.WARNING, "%s", self.line())


def _named(word: str, ids: tuple[str, ...]) -> str:
    if not ids:
        return ""
    names = ", ".join(repr(shown(task_id)) for task_id in ids[:_MOST_IDS_IN_LINE])
    more = len(ids) - _MOST_IDS_IN_LINE
    return f"; {word}: {names}" + (f" and {more} more" if more > 0 else "")
