"""Records of tasks' outcomes, and the caches that keep them.

A cache answers for one task what is recorded (`get_record`) and takes its outcome (`cache`); more is not asked of
a foreign one. `FileTaskCache` keeps one flag file per task and judges it by file times. It also stores what is
known of an attempt (`store`) and reads the facts of many tasks at once without unpickling (`read_flags`).
"""

from __future__ import annotations

import logging
import os
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from overnight.chain import function_name
from overnight.error_text import short_type_name
from overnight.errors import FAULTS_OF_OBJECTS, BadSeal, OvernightError, RecordMismatch
from overnight.files import is_url, look_up
from overnight.flag_store import flag_store
from overnight.flags import (
    DONE,
    FAILED,
    UNSTORED,
    AttemptFacts,
    Flag,
    FlagHeader,
    FoundFlag,
    framed,
    sealed_header,
)
from overnight.freshness import NEVER_RAN, FileTime, Inputs, TaskFiles, file_reason, identity_difference
from overnight.keyring import Keyring, read_keyring
from overnight.naming import flag_name, shown
from overnight.pickling import load_exception, loads
from overnight.recording import (
    PYTHON,
    UNKNOWN,
    TaskIdentity,
    error_of_header,
    failure_record,
    identity_of_header,
    success_record,
)
from overnight.task import Task, TaskDesc

_logger = logging.getLogger(__name__)


class CacheRecordType(Enum):
    """What is recorded of a task."""

    NEEDS_COMPUTE = 0
    COMPUTED = 1
    ERROR = 2


@dataclass(frozen=True)
class CacheRecord:
    """What is recorded of a task, with its result or error; `reason` says why it needs to be computed."""

    type: CacheRecordType
    result_or_error: Any = None
    reason: str | None = field(default=None, compare=False)

    @property
    def result(self) -> Any:
        """The result of a COMPUTED record; RecordMismatch for any other."""
        return self._payload(CacheRecordType.COMPUTED)

    @property
    def error(self) -> Any:
        """The error of an ERROR record; RecordMismatch for any other."""
        return self._payload(CacheRecordType.ERROR)

    def invalidate(self) -> CacheRecord:
        """Return a record with the same payload that needs to be computed."""
        return CacheRecord(CacheRecordType.NEEDS_COMPUTE, self.result_or_error, self.reason)

    def _payload(self, expected: CacheRecordType) -> Any:
        if self.type is not expected:
            raise RecordMismatch(f"The record is {self.type.name}, not {expected.name}.")
        return self.result_or_error


class TaskCache:
    """Keeps the outcomes of tasks. A subclass defines both methods."""

    @abstractmethod
    def get_record(self, task_desc: TaskDesc) -> CacheRecord:
        """Return what is recorded of a task."""
        raise NotImplementedError(f"{type(self).__name__}.get_record is not defined.")

    @abstractmethod
    def cache(self, task: Task, *, is_error: bool, result: Any) -> None:
        """Record the result, or with `is_error` the exception, of a task."""
        raise NotImplementedError(f"{type(self).__name__}.cache is not defined.")

    @staticmethod
    def create(*, force: bool = False, task_progress_mode: bool = True, cache_dir: str | None = None) -> TaskCache:
        """Return the cache that these settings ask for (C4)."""
        if force or not task_progress_mode:
            return NoTaskCache()
        return FileTaskCache(cache_dir or str(Path.cwd()))


class NoTaskCache(dict[Any, Any], TaskCache):
    """Records nothing, so that every task runs. An empty dict, as the documented default is shown."""

    def get_record(self, task_desc: TaskDesc) -> CacheRecord:  # noqa: ARG002 - the documented signature
        """Return a record that needs to be computed."""
        return CacheRecord(CacheRecordType.NEEDS_COMPUTE, reason="no outcomes are recorded")

    def cache(self, task: Task, *, is_error: bool, result: Any) -> None:
        """Record nothing."""


#: The default of every `task_cache` parameter.
NO_TASK_CACHE = NoTaskCache()


class FileTaskCache(TaskCache):
    """One flag file per task in a directory (path or fsspec URL), judged by file times (C6 to C16).

    Construction touches nothing on disk. UsageError is raised if a secret key is set that cannot be used.
    """

    def __init__(self, cache_dir: str, *, keyring: Keyring | None = None) -> None:
        if not isinstance(cache_dir, str | os.PathLike):
            raise TypeError(f"The directory of a cache must be a path or URL, not {cache_dir!r}.")
        self._keyring = read_keyring() if keyring is None else keyring
        self._store = flag_store(str(cache_dir), self._keyring)
        self.directory = self._store.place("").rstrip("/")
        self._seen: dict[Task, TaskIdentity] = {}
        self._warned: set[tuple[str, str]] = set()

    def place(self, task: Task) -> str:
        """Return the path or URL of a task's flag, whether or not it exists."""
        return self._store.place(flag_name(task.task_id))

    def get_record(self, task_desc: TaskDesc) -> CacheRecord:
        """Return a task's record as flag and files stand; never raises (C9, C14)."""
        self._seen[task_desc.task] = identity = identity_of(task_desc)
        try:
            flag, mtime_ns = self._store.open(*_place_of(task_desc.task))
            return self._judged(task_desc, identity, flag, mtime_ns)
        except FileNotFoundError:
            return _needs_compute(NEVER_RAN)
        except OvernightError as reason:
            return _needs_compute(self._warn_unusable(task_desc.task, reason))

    def cache(self, task: Task, *, is_error: bool, result: Any) -> None:
        """Write a task's outcome; what goes wrong is one warning (C7, C8)."""
        self._write(self._seen.get(task, TaskIdentity(task.task_id)), UNKNOWN, is_error=is_error, result=result)

    def store(self, desc: TaskDesc, *, is_error: bool, result: Any, facts: AttemptFacts = UNKNOWN) -> FlagHeader | None:
        """Write a task's outcome with what is known of it; `desc` is the task as declared, with all its `deps`.

        Return the header as written, or None, after one warning, if it could not be written.
        """
        self._seen[desc.task] = identity = identity_of(desc)
        return self._write(identity, facts, is_error=is_error, result=result)

    def read_flags(self, tasks: Iterable[Task], *, with_bodies: bool = False) -> dict[Task, FoundFlag | BadSeal]:
        """Return the headers of those tasks that have a flag, by one listing, unpickling nothing.

        `with_bodies` gives those bodies too that cost no further read. A flag that is there and not to be believed
        gives its reason, and draws one warning. Raise Unreachable if a remote store cannot be asked.
        """
        found: dict[Task, FoundFlag | BadSeal] = {}
        wanted = {task.task_id: task for task in tasks}
        places = [(task_id, flag_name(task_id)) for task_id in wanted]
        for task_id, flag in self._store.read_headers(places, with_bodies=with_bodies):
            task = wanted[task_id]
            found[task] = BadSeal(self._warn_unusable(task, flag)) if isinstance(flag, BadSeal) else flag
        return found

    def sync(self) -> None:
        """Make what was recorded so far survive a power cut; what goes wrong is one warning."""
        error = self._store.sync()
        if error is not None:
            _logger.warning("Records in %s may not survive a power cut: %s.", self.directory, error)

    def stamp(self) -> int | None:
        """Return a number that changes whenever a flag is written; None where nothing tells."""
        try:
            return None if is_url(self.directory) else Path(self.directory).stat().st_mtime_ns
        except OSError:
            return None

    def read_headers(self, tasks: Iterable[Task]) -> dict[Task, FlagHeader]:
        """Return the believable ones of `read_flags`."""
        flags = self.read_flags(tasks).items()
        return {task: found.header for task, found in flags if isinstance(found, FoundFlag)}

    def load(self, desc: TaskDesc) -> Any:
        """Return the recorded result of a task, whatever the files say. Raise BadSeal if it cannot be loaded."""
        try:
            flag, _ = self._store.open(*_place_of(desc.task))
        except FileNotFoundError:
            raise BadSeal(f"Task {desc.task.task_id!r} has no record.") from None
        if flag.header.state != DONE:
            raise BadSeal(f"The record of task {desc.task.task_id!r} holds no result.")
        different = identity_reason(identity_of(desc), flag.header)
        if different is not None:
            raise BadSeal(f"The record of task {desc.task.task_id!r} is that of another: {different}.")
        return result_in(flag.body)

    def _judged(self, desc: TaskDesc, identity: TaskIdentity, flag: Flag, mtime_ns: int | None) -> CacheRecord:
        reason = record_reason(identity, flag.header)
        if flag.header.state == FAILED and identity_reason(identity, flag.header) is None:
            error = load_exception(flag.body, error_of_header(flag.header))
            return CacheRecord(CacheRecordType.ERROR, error, reason)
        if reason is not None:
            return _needs_compute(reason)
        record = CacheRecord(CacheRecordType.COMPUTED, result_in(flag.body))
        stale = _file_reason_of(desc, mtime_ns)
        return record if stale is None else CacheRecord(CacheRecordType.NEEDS_COMPUTE, record.result, stale)

    def _write(self, identity: TaskIdentity, facts: AttemptFacts, *, is_error: bool, result: Any) -> FlagHeader | None:
        try:
            header, body = (failure_record if is_error else success_record)(identity, result, facts)
            if header.state == UNSTORED:
                self._warn_unstored(header)
            header = sealed_header(header, body)
            data = framed(header, body, self._keyring)
            error = self._store.write(flag_name(identity.task_id), data, unless_later=header if is_error else None)
        except Exception as unexpected:  # recording never fails a run; the warning below says what was lost
            error = unexpected
        if error is None:
            return header
        _logger.warning(
            "The outcome of task %s could not be written to %s: %s. The task will run again next time.",
            shown(identity.task_id), self._store.place(flag_name(identity.task_id)), error,
        )  # fmt: skip
        return None

    def _warn_unusable(self, task: Task, reason: Exception) -> str:
        place = self._store.place(flag_name(task.task_id))
        if (place, str(reason)) not in self._warned:
            self._warned.add((place, str(reason)))
            _logger.warning("The record %s counts as missing: %s.", place, reason)
        return f"its record cannot be used: {reason}"

    def _warn_unstored(self, header: FlagHeader) -> None:
        _logger.warning(
            "The result of task %s, of type %s, cannot be pickled; the task will run again next time. (%s)",
            shown(header.task_id), header.error and header.error.type_name, header.error and header.error.message,
        )  # fmt: skip


def identity_of(desc: TaskDesc) -> TaskIdentity:
    """Return what a header says of a task as declared."""
    return TaskIdentity(desc.task.task_id, function_name(desc.func), tuple([dep.task_id for dep in desc.deps]))


def identity_reason(task: TaskIdentity, header: FlagHeader) -> str | None:
    """Say why a header is not that of the task as it is declared now, or return None (C15)."""
    if header.function == task.function and header.dependencies == task.dependencies and header.python == PYTHON:
        return None
    return identity_difference(identity_of_header(header), task.function, task.dependencies or (), PYTHON)


def record_reason(task: TaskIdentity, header: FlagHeader) -> str | None:
    """Say why a record does not stand whatever the files say, or return None."""
    different = identity_reason(task, header)
    if different is not None:
        return different
    if header.state == FAILED:
        return f"failed with {short_type_name(header.error.type_name)}" if header.error else "failed"
    if header.state == UNSTORED:
        return f"its result{f' of type {header.error.type_name}' if header.error else ''} could not be stored"
    return None


def _needs_compute(reason: str) -> CacheRecord:
    return CacheRecord(CacheRecordType.NEEDS_COMPUTE, reason=reason)


def _place_of(task: Task) -> tuple[str, str]:
    return flag_name(task.task_id), task.task_id


def result_in(body: bytes) -> Any:
    """Return the result that the verified body of a flag holds. Raise BadSeal if it cannot be loaded."""
    try:
        return loads(body)
    except FAULTS_OF_OBJECTS as error:  # a user's class may raise anything
        raise BadSeal(f"its result cannot be loaded: {type(error).__name__}: {error}") from error


def _file_reason_of(desc: TaskDesc, mtime_ns: int | None) -> str | None:
    declared = [*desc.input_files, *desc.output_files, *desc.intermediate_output_files]
    times = {path: FileTime(facts.mtime_ns, facts.is_directory) for path, facts in look_up(declared).items()}
    files = TaskFiles(desc.input_files, desc.output_files, desc.intermediate_output_files)
    return file_reason(files, Inputs(desc.input_files, times), mtime_ns, times)
