"""The failures of a run grouped by cause: type of the exception and the innermost frame of the user's own code.

Where an exception has no such frame, because the task's process died or its worker was lost, the function of the task
and what ended it stand in its place. A cause has a short name, made from nothing but these, so that it stays the same
for as long as people speak of it. Texts and headers are read; nothing is unpickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from overnight.certificates import BY_EXCEPTION, DeathCertificate
from overnight.deployment import Deployment
from overnight.error_text import short_type_name
from overnight.errors import BadSeal, UsageError
from overnight.messages import StoredError
from overnight.naming import shown
from overnight.own_frames import place_of

MOST_NAMED = 5
_AT_ONCE = 500
_NAME_LENGTH = 6
_UNKNOWN = StoredError("unknown error", "its record is missing", "")


@dataclass(frozen=True, slots=True)
class Cause:
    """Why some tasks failed. `where` is a place in the user's code, or what stands for it.

    `example` is the first of `tasks` and `error` its error; `skipped` counts the tasks that did not run because of
    these.
    """

    name: str
    type_name: str
    where: str
    tasks: Sequence[int]
    error: StoredError
    skipped: int

    @property
    def example(self) -> int:
        """One of the tasks."""
        return self.tasks[0]

    def as_json(self, task_ids: Sequence[str], retry: str) -> dict[str, Any]:
        """Return the facts as plain values; `retry` is the command that runs these tasks again."""
        return {
            "cause": self.name,
            "type": self.type_name,
            "where": self.where,
            "failed": len(self.tasks),
            "skipped": self.skipped,
            "example": {"task": task_ids[self.example], "message": self.error.message},
            "retry": retry,
        }


def read_causes(
    deployment: Deployment,
    run_id: str,
    failed: Sequence[int],
    skipped: Sequence[int],
    function_of: Callable[[int], str],
) -> list[Cause]:
    """Return the causes of the failures of these tasks, the one with the most first. Raises UnknownRun, Unreachable."""
    groups: dict[tuple[str, str], list[int]] = {}
    examples: dict[tuple[str, str], StoredError] = {}
    for task, error in errors_of(deployment, run_id, failed):
        place = place_of(error.traceback) or _stand_in(deployment, run_id, task, function_of)
        key = short_type(error), place
        groups.setdefault(key, []).append(task)
        examples.setdefault(key, error)
    skipped_for: dict[int, int] = {}
    for start in range(0, len(skipped), _AT_ONCE):
        for ancestor in deployment.store.read_causes(run_id, skipped[start : start + _AT_ONCE]).values():
            skipped_for[ancestor] = skipped_for.get(ancestor, 0) + 1
    found = [
        Cause(_name(*key), *key, tasks, examples[key], sum(skipped_for.get(task, 0) for task in tasks))
        for key, tasks in groups.items()
    ]
    return sorted(found, key=lambda cause: -len(cause.tasks))


def errors_of(deployment: Deployment, run_id: str, tasks: Sequence[int]) -> Iterator[tuple[int, StoredError]]:
    """Yield each task with its recorded error, or with what is wrong with the record."""
    for start in range(0, len(tasks), _AT_ONCE):
        piece = tasks[start : start + _AT_ONCE]
        sealed = deployment.store.read_errors(run_id, piece)
        for task in piece:
            yield task, opened_error(deployment, run_id, task, sealed.get(task))


def opened_error(deployment: Deployment, run_id: str, task: int, sealed: bytes | None) -> StoredError:
    """Return a task's recorded error, or what is wrong with the record."""
    if sealed is None:
        return _UNKNOWN
    try:
        return StoredError.opened(sealed, run_id, task, deployment.keyring)
    except BadSeal as unusable:
        return StoredError("unknown error", f"its record cannot be believed: {unusable}", "")


def certificates_of(deployment: Deployment, run_id: str, task: int) -> list[DeathCertificate]:
    """Return the death certificates of a task's latest failed attempts, in their order; unusable ones are left out."""
    found: list[DeathCertificate] = []
    for sealed in deployment.store.read_certificates(run_id, [task]).get(task, ()):
        with suppress(BadSeal):
            found.append(DeathCertificate.opened(sealed, run_id, task, deployment.keyring))
    return sorted(found, key=lambda certificate: (certificate.ended or 0.0, certificate.attempt))


def short_type(error: StoredError | DeathCertificate) -> str:
    """Return the name of an error's type as people know it."""
    return short_type_name(error.type_name)


def chosen_cause(causes: Sequence[Cause], text: str, run_id: str) -> Cause:
    """Return the cause that a text names: by its name, the beginning of it, or the type of its exception.

    Raises UsageError if it names none or several.
    """
    found = [cause for cause in causes if text and cause.name.startswith(text.casefold())]
    found = found or [cause for cause in causes if text in (cause.type_name, cause.type_name.rpartition(".")[2])]
    if len(found) == 1:
        return found[0]
    if not causes:
        raise UsageError(f"Nothing of run {run_id} is failed, so it has no cause {text!r}.")
    known = ", ".join(f"{one.name} ({shown(one.type_name)}, {shown(one.where)})" for one in causes[:MOST_NAMED])
    more = f" and {len(causes) - MOST_NAMED} more" if len(causes) > MOST_NAMED else ""
    fits = f"fits {len(found)} causes" if found else "is no cause"
    raise UsageError(f"{text!r} {fits} of failures in run {run_id}; there are {known}{more}.")


def _stand_in(deployment: Deployment, run_id: str, task: int, function_of: Callable[[int], str]) -> str:
    """Say where a failure was whose error has no frame of the user's, and what ended the attempt.

    A crash may have told its place with its last words; else the function of the task stands for it.
    """
    latest = certificates_of(deployment, run_id, task)[-1:]
    place = next((one.place for one in latest if one.place), None) or f"in {function_of(task)}"
    by = "".join(f", {one.ended_by}" for one in latest if one.ended_by != BY_EXCEPTION)
    return f"{place}{by}"


def _name(type_name: str, where: str) -> str:
    return hashlib.sha256(f"{type_name}\n{where}".encode("utf-8", "backslashreplace")).hexdigest()[:_NAME_LENGTH]
