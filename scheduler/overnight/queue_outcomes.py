"""Fetch the outcomes of a run's tasks into the driver, and tell which recorded results are lost.

A result that goes by reference is loaded to be yielded and then stays where it lies (BEHAVIOUR B15). What cannot be
rebuilt in this process is a failure of that task alone (B18).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from overnight.core.states import TaskState
from overnight.error_text import ErrorText
from overnight.errors import FAULTS_OF_OBJECTS, BadSeal, RemoteTaskError, ResultNotPicklable
from overnight.invoke import Outcome
from overnight.keyring import Keyring
from overnight.launch import LaunchStore
from overnight.mending import Mending
from overnight.messages import StoredError, StoredResult
from overnight.outcome_message import rebuilt_exception
from overnight.pickling import loads
from overnight.results import ResultLost, ResultOutOfReach, Results

_logger = logging.getLogger(__name__)


#: What to do about a result that the user of this process may not read.
_SHARE = (
    "Let the workers run as this user, or share the status directory with a group that both are in: chgrp GROUP, "
    "chmod 2770."
)


class Fetched(NamedTuple):
    """How a task ended; `load` gets its result once more, where the driver is not to keep it."""

    outcome: Outcome
    attempt: int = 0
    load: Callable[[], Any] | None = None


class QueueOutcomes:
    """Reads outcomes of one run. Tasks are given as index -> id. Methods raise UnknownRun and Unreachable."""

    def __init__(self, store: LaunchStore, run_id: str, keyring: Keyring) -> None:
        self._store = store
        self._run_id = run_id
        self._keyring = keyring
        self._results = Results(store, run_id, keyring)
        self._mending = Mending(store, run_id, keyring)
        #: The digests of results that came whole out of the store, by task.
        self.seen: dict[int, bytes] = {}

    def successes(self, tasks: Mapping[int, str]) -> dict[int, Fetched]:
        """Return the results of tasks on record as done. Those that are lost are left out, and will run again."""
        if not tasks:
            return {}
        fetched: dict[int, Fetched] = {}
        lost: list[int] = []
        stored = self._results.stored(tasks)
        for number, task_id in tasks.items():
            try:
                fetched[number] = self._fetched(number, stored.get(number), task_id)
            except ResultOutOfReach as error:
                fetched[number] = Fetched(_ended(ResultNotPicklable(f"{error} {_SHARE}"), ok=False))
            except ResultLost as error:
                _logger.warning("run %s: %s", self._run_id, error)
                lost.append(number)
        if lost:
            for number in self._mending.compute_again(lost, retries=True):
                fetched.pop(number, None)
        return fetched

    def failures(self, tasks: Mapping[int, str]) -> dict[int, Fetched]:
        """Return the errors of failed tasks, but for those that somebody has had run again since they were told."""
        fetched: dict[int, Fetched] = {}
        for view in self._store.tasks(self._run_id, list(tasks)) if tasks else ():
            if view.state is TaskState.FAILED:
                error = self._exception(view.task, view.error)
                fetched[view.task] = Fetched(_ended(error, ok=False), view.attempt)
        return fetched

    def overtaken(self, tasks: Sequence[int]) -> list[int]:
        """Let tasks run again that have failed now, after a success of theirs was given out; return those that do."""
        return self._mending.run_once_more(tasks)

    def _fetched(self, number: int, stored: StoredResult | ResultLost | None, task_id: str) -> Fetched:
        if stored is None:
            raise ResultLost(f"The result of task {task_id!r} is not on the server any more.")
        if isinstance(stored, ResultLost):
            raise stored
        body = self._results.body(stored, task_id)
        if stored.body is not None:
            self.seen[number] = stored.digest
        try:
            value = loads(body)
        except FAULTS_OF_OBJECTS as error:  # a user's class may raise anything
            reason = f"The result of task {task_id!r} cannot be rebuilt here: {type(error).__name__}: {error}"
            return Fetched(_ended(ResultNotPicklable(reason), ok=False))
        return Fetched(_ended(value, ok=True), load=partial(self._load, stored, task_id) if stored.locator else None)

    def _load(self, stored: StoredResult, task_id: str) -> Any:
        return loads(self._results.body(stored, task_id))

    def _exception(self, number: int, record: bytes | None) -> BaseException:
        if record is None:
            return RemoteTaskError("unknown error", "its record is missing")
        try:
            stored = StoredError.opened(record, self._run_id, number, self._keyring)
        except BadSeal as error:
            return RemoteTaskError("unknown error", f"its record cannot be believed: {error}")
        return rebuilt_exception(stored.body, ErrorText(stored.type_name, stored.message, stored.traceback))


def _ended(value: Any, *, ok: bool) -> Outcome:
    return Outcome(ok=ok, value=value, started=0.0, seconds=0.0)
