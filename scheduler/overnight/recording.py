"""From the outcome of an attempt to the header and body of its record."""

from __future__ import annotations

import platform
import socket
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple

from overnight.error_text import bounded_error_text, error_text
from overnight.errors import FAULTS_OF_OBJECTS, RemoteTaskError
from overnight.flags import DONE, FAILED, UNSTORED, AttemptFacts, FlagHeader
from overnight.freshness import Identity
from overnight.lineage import listed_ids, listed_records
from overnight.pickling import describe_unpicklable, dump_exception, dumps, type_name

PYTHON = platform.python_version()
UNKNOWN = AttemptFacts()


class TaskIdentity(NamedTuple):
    """A task as its header names it: id, function as ``module:qualified.name``, dependency ids. None is unknown."""

    task_id: str
    function: str | None = None
    dependencies: tuple[str, ...] | None = None


def success_record(task: TaskIdentity, result: Any, facts: AttemptFacts = UNKNOWN) -> tuple[FlagHeader, bytes]:
    """Return the record of a result; one that cannot be pickled gives state `unstored`, type and cause as error."""
    try:
        body = dumps(result)
    except FAULTS_OF_OBJECTS as error:  # a user's class may raise anything; the record says what
        cause = bounded_error_text(type_name(type(result)), f"{describe_unpicklable(result)}: {_text(error)}", "")
        return record_header(task, UNSTORED, facts, error=cause), b""
    return record_header(task, DONE, facts), body


def failure_record(task: TaskIdentity, error: BaseException, facts: AttemptFacts = UNKNOWN) -> tuple[FlagHeader, bytes]:
    """Return the record of a failure: its text in the header, the pickled exception, or nothing, as body."""
    return record_header(task, FAILED, facts, error=error_text(error)), dump_exception(error)


def record_header(task: TaskIdentity, state: str, facts: AttemptFacts = UNKNOWN, *, error: Any = None) -> FlagHeader:
    """Return the header of an outcome; host, Python and time of the end are this process's unless given."""
    ids = task.dependencies
    records = facts.dependency_records
    known = ids is not None and records is not None and len(ids) == len(records)
    return FlagHeader(
        task_id=task.task_id,
        function=task.function,
        dependencies=None if ids is None else listed_ids(ids),
        dependency_records=listed_records(ids or (), records or ()) if known else None,
        run_id=facts.run_id,
        attempt=facts.attempt,
        started=facts.started,
        finished=facts.finished or datetime.now(UTC).isoformat(),
        duration_seconds=facts.duration_seconds,
        host=facts.host or _host(),
        python=facts.python or PYTHON,
        state=state,
        error=error,
    )


def identity_of_header(header: FlagHeader) -> Identity:
    """Return what a header says about which task it is the record of."""
    return Identity(header.function, header.dependencies, header.python)


@cache
def _host() -> str:
    return socket.gethostname()


def _text(error: BaseException) -> str:
    return error_text(error).message


def error_of_header(header: FlagHeader) -> RemoteTaskError:
    """Return the exception that stands for a recorded failure, made from text alone."""
    return RemoteTaskError("unknown error", "") if header.error is None else header.error.as_exception()
