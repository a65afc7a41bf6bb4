"""The one warm child of a supervisor: when it is started, kept, replaced and buried."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from overnight import failpoints
from overnight.messages import RunContext
from overnight_worker.child_process import ChildProcess
from overnight_worker.death import Death
from overnight_worker.post import Post

_logger = logging.getLogger("overnight.worker")


class Nursery:
    """Keeps a child ready. It serves one run after another as long as they look for modules in the same places."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._child: ChildProcess | None = None
        self._served: tuple[str, tuple[str, ...]] | None = None

    def prepare(self) -> None:
        """Start a child if there is none, so that the first task does not wait for it."""
        if self._child is None:
            failpoints.reach("worker.before_child")
            self._child = ChildProcess(self._post.name)
            self._served = None

    def child_for(self, run_id: str, context: RunContext) -> ChildProcess:
        """Return a child that may serve the run."""
        wants = (context.directory, tuple(context.import_paths))
        if self._child is not None and self._served not in (None, wants):
            self.replace(f"run {run_id} looks for modules elsewhere")
        self.prepare()
        self._served = wants
        if self._child is None:
            raise RuntimeError("A child was just started.")
        return self._child

    def returned(self, child: ChildProcess, remains: Mapping[str, Any]) -> None:
        """A batch is through: replace the child if tasks left threads, it is too large, or has run its number."""
        child.tasks_run += remains["tasks"]
        child.collect_orphans()
        limit = self._post.memory_limit_bytes
        if remains["threads"] > 0:
            self.replace(f"tasks left {remains['threads']} threads in it")
        elif limit is not None and remains["memory"] > limit:
            self.replace(f"its memory of {remains['memory'] / 1e6:.0f} MB is above the limit")
        elif child.tasks_run >= self._post.tasks_per_child:
            self.replace(f"it has run {child.tasks_run} tasks")

    def replace(self, reason: str) -> None:
        """End the child; the next one starts fresh."""
        if self._child is not None:
            _logger.info("the child is replaced: %s", reason)
            self._child.kill()
            self.bury(self._child)

    def bury(self, child: ChildProcess) -> Death:
        """Collect a child that has died or was killed."""
        death = child.end()
        failpoints.reach("worker.after_child_exit")
        if child is self._child:
            self._child = None
        return death

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self.bury(self._child)
