"""The process that tells of a run: it follows the run to its end, through any outage, and gives the notices.

Its order lies in a file beside the lock that it inherited, and goes with the lock when all is told. Whoever removes the
file before ends it.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from overnight.client import Client
from overnight.commands.ending import Ending, failed_task, read_ending
from overnight.concealment import conceal_secrets
from overnight.config import GONE_SECONDS, Settings, read_settings
from overnight.core.states import RunPhase, TaskState
from overnight.deployment import Deployment, open_for_reading
from overnight.errors import OvernightError, Refused, UnknownRun, Unreachable
from overnight.following import Follower
from overnight.hints import hint
from overnight.naming import shown
from overnight.notices import Notices, Occasion, tell

_LOOK_SECONDS = 60.0
_logger = logging.getLogger("overnight.notices")


class Notifier:
    """Tells of one run."""

    def __init__(self, deployment: Deployment, run_id: str, notices: Notices, order: Path) -> None:
        self._order = order
        self._deployment = deployment
        self._run_id = run_id
        self._notices = notices
        self._heard_at = time.monotonic()
        self._look_at = 0.0

    def run(self) -> None:
        """Follow the run until it is over, or its server is gone for good.

        An embedded server stays until all is told, as this process uses it too.
        """
        try:
            for failed in self._first_failure():
                self._tell_failure(failed)
            self._tell_end()
        except UnknownRun:
            self._tell_lost()

    def _first_failure(self) -> Iterator[int]:
        """Yield the first task that fails; end with the run. Raises UnknownRun, Unreachable."""
        told = False
        for changed in Follower(self._deployment.store, self._run_id).changes():
            failed = [task for task, state in changed.tasks if state is TaskState.FAILED]
            if failed and not told:
                told = True
                yield failed[0]
            if changed.tasks:
                self._heard_at = time.monotonic()
            self._deployment.check()
            self._see_that_it_lives()

    def _see_that_it_lives(self) -> None:
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_SECONDS
        if not self._order.exists():
            raise Refused("the order was taken away.")
        try:
            self._deployment.store.run(self._run_id)
            self._heard_at = now
        except Unreachable:
            if now - self._heard_at > GONE_SECONDS:
                raise

    def _ending(self) -> Ending:
        ids = Client.of(self._deployment).task_ids(self._run_id)
        return read_ending(self._deployment, self._run_id, ids, every_failure=False)

    def _tell_failure(self, task: int) -> None:
        if not (self._notices.on_failure or self._notices.addresses):
            return
        store, client = self._deployment.store, Client.of(self._deployment)
        run, [view] = store.run(self._run_id), store.tasks(self._run_id, [task])
        failed = failed_task(self._deployment, run, view, client.structure(self._run_id).task_id(task))
        facts = {**self._ending().as_json(), "task": failed.task_id, "type": failed.type_name}
        first = failed.message.splitlines()[:1]
        line = f"{failed.task_id}: {failed.type_name}: {' '.join(first)}"
        text = f"{shown(line)}\n{hint(self._deployment.settings, 'status', self._run_id)}"
        title = f"overnight: a task of {shown(run.name)} failed"
        tell(self._notices, Occasion.FAILURE, title, text, {**facts, "message": failed.message})

    def _tell_end(self) -> None:
        ending = self._ending()
        verb = "retry" if ending.run.phase is RunPhase.FAILED else "status"
        text = "\n".join([*ending.lines(), hint(self._deployment.settings, verb, self._run_id)])
        title = f"overnight: {shown(ending.run.name)} {ending.run.phase.value}"
        tell(self._notices, Occasion.FINISH, title, text, ending.as_json())

    def _tell_lost(self) -> None:
        facts = {"run": self._run_id, "name": "", "phase": "unknown", "counts": {}, "total": 0, "seconds": 0.0}
        text = f"The server no longer knows run {self._run_id}. The command that started it goes on with what is left."
        tell(self._notices, Occasion.FINISH, "overnight: a run was lost by its server", text, facts)


def settings_of_order(order: dict[str, Any]) -> Settings:
    """Return the settings that were in force where the order was given."""
    settings = read_settings()
    return replace(
        settings, redis_url=order["redis_url"], state_dir=Path(order["state_dir"]), typed=tuple(order["typed"])
    )


def main(path: Path) -> None:
    """Carry out the order in a file."""
    conceal_secrets()
    form = "%(asctime)s %(levelname)s %(name)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, stream=sys.stderr)
    order = json.loads(path.read_text(encoding="ascii"))
    given = order["notices"]
    notices = Notices(given["on_finish"], given["on_failure"], tuple(given["addresses"]))
    try:
        with open_for_reading(settings_of_order(order)) as deployment:
            Notifier(deployment, order["run"], notices, path).run()
    except OvernightError as error:
        _logger.error("run %s cannot be told of: %s", order["run"], error)
    finally:
        path.unlink(missing_ok=True)
        path.with_suffix(".lock").unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
