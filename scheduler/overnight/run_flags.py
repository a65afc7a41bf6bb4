"""Write flags from what Redis holds of a run: failures, which are final only by the scheduler's verdict, and results
whose flags are missing. Nothing is unpickled: bodies are copied, errors come with their text.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from overnight.core.states import SUCCEEDED, TaskState
from overnight.error_text import bounded_error_text
from overnight.errors import BadSeal, DamagedRun, OvernightError, UnknownRun
from overnight.flag_files import existing_valid
from overnight.flag_publishing import later_ones, superseding_run
from overnight.flag_writing import Keep, Written, write_flags
from overnight.flags import DONE, FAILED, AttemptFacts, FlagHeader, encode_flag
from overnight.json_text import decoded
from overnight.keyring import Keyring
from overnight.lineage import DependencyRecord, lineage_digest
from overnight.messages import StoredError
from overnight.naming import flag_name, shown
from overnight.recording import TaskIdentity, record_header
from overnight.store.codec import NO_DIGEST
from overnight.store.ports import ReadingStore
from overnight.store.records import TaskView
from overnight.structure import Structure

_logger = logging.getLogger(__name__)


class Outdated(OvernightError):
    """The result that was to be written is on record no more: the task was run again since it was read."""


class RunFlags:
    """The flags of one run in a local status directory. Each cause of failed writing is told once."""

    def __init__(
        self, store: ReadingStore, run_id: str, structure: Structure, keyring: Keyring, directory: Path
    ) -> None:
        self._store = store
        self._run_id = run_id
        self._structure = structure
        self._keyring = keyring
        self._directory = directory
        self._warned: set[str] = set()

    def write_result(self, task: int, body: bytes) -> bool:
        """Write the flag of a finished task from its serialised result, but for one that is superseded; False if it
        could not be written, or if what it was computed from is on record no more: nobody could tell that a dependency
        has another result since. A flag of the same result that another client has put there meanwhile stays: what
        that client has told of is never out of place. It carries the attempt on record, so that no worker which has
        been frozen since an earlier one takes it for older than its own. Raises Outdated."""
        dependencies = self._structure.dependencies(task)
        digests = self._store.read_digests(self._run_id, dependencies) if dependencies else []
        if NO_DIGEST in digests:
            return False
        records = tuple([DependencyRecord(None, None, digest.hex()) for digest in digests])
        attempt = self._store.tasks(self._run_id, [task])[0].attempt or None
        facts = AttemptFacts(run_id=self._run_id, attempt=attempt, dependency_records=records)
        header, lineage = record_header(self._identity(task), DONE, facts), lineage_digest(digests)

        def keep(descriptor: int, name: str) -> Written | None:
            standing = existing_valid(name, header.task_id, self._run_id, lineage, self._keyring, directory=descriptor)
            is_same = standing is not None and standing.body == body
            if is_same or self.is_superseded(task):
                return Written(kept=True)
            # Whoever was frozen until now may find the flag of a later result, which it must not take away.
            if not self._is_on_record(task, body):
                raise Outdated(f"task {self._shown(task)} was run again")
            return None

        return self._write([(header, encode_flag(header, body, self._keyring))], keep)

    def _is_on_record(self, task: int, body: bytes) -> bool:
        """Tell whether this result is the task's; where the server has lost its digest alone, whether any is."""
        (recorded,) = self._store.read_digests(self._run_id, [task])
        if recorded == NO_DIGEST:
            return self._store.tasks(self._run_id, [task])[0].state in SUCCEEDED
        return recorded == hashlib.sha256(body).digest()

    def is_superseded(self, task: int) -> bool:
        """Tell whether a later run has recorded the task since (`flag_publishing`). One that the server has lost, or
        holds damaged, does not count: what depends on the task is this run's, and was made from another result."""
        task_id, _, dependencies = self._identity(task)
        later = superseding_run(self._directory, task_id, dependencies or (), self._run_id, self._keyring)
        return later is not None and self._is_known(later)

    def _is_known(self, run_id: str) -> bool:
        try:
            self._store.run(run_id)
        except (UnknownRun, DamagedRun):
            return False
        return True

    def write_failures(self, tasks: Sequence[int]) -> bool:
        """Write the flags of failed tasks from their recorded errors; False if one could not be written."""
        if not tasks:
            return True
        flags = [flag for view in self._store.tasks(self._run_id, tasks) if (flag := self._failure(view)) is not None]
        headers = [header for header, _ in flags]
        rule = later_ones(headers, self._keyring, [flag_name(header.task_id) for header in headers])
        return self._write(flags, rule)

    def _failure(self, view: TaskView) -> tuple[FlagHeader, bytes] | None:
        if view.error is None or view.state is not TaskState.FAILED:  # since it was told, the task was taken back
            return None
        try:
            stored = StoredError.opened(view.error, self._run_id, view.task, self._keyring)
        except BadSeal as error:
            _logger.warning("the error of task %s cannot be believed: %s", self._shown(view.task), error)
            return None
        text = bounded_error_text(stored.type_name, stored.message, stored.traceback)
        facts = _attempt_of(view, self._run_id)
        header = record_header(self._identity(view.task), FAILED, facts, error=text)
        return header, encode_flag(header, stored.body, self._keyring)

    def _write(self, flags: Sequence[tuple[FlagHeader, bytes]], keep: Keep | None) -> bool:
        named = [(flag_name(header.task_id), data) for header, data in flags]
        written = write_flags(self._directory, named, keep=keep)
        failed = [one.error for one in written if one.error is not None]
        if failed and str(failed[0]) not in self._warned:
            self._warned.add(str(failed[0]))
            _logger.warning("flags could not be written to %s: %s", self._directory, failed[0])
        return not failed

    def _identity(self, task: int) -> TaskIdentity:
        structure = self._structure
        dependencies = tuple([structure.task_id(dependency) for dependency in structure.dependencies(task)])
        return TaskIdentity(structure.task_id(task), structure.function(task), dependencies)

    def _shown(self, task: int) -> str:
        return shown(self._structure.task_id(task))


def _attempt_of(view: TaskView, run_id: str) -> AttemptFacts:
    """Return what is known of a task's last attempt: when and where it ran, unless what its worker said is rubbish."""
    try:
        told = decoded(view.facts or b"{}")
        started, seconds = float(told["started"]), float(told["seconds"])
        began, ended = (datetime.fromtimestamp(at, UTC).isoformat() for at in (started, started + seconds))
        host = str(told["host"])
    except (LookupError, TypeError, ValueError, OverflowError, OSError, RecursionError):
        return AttemptFacts(run_id=run_id, attempt=view.attempt)
    return AttemptFacts(
        run_id=run_id, attempt=view.attempt, started=began, finished=ended, duration_seconds=seconds, host=host
    )
