"""An outcome as bytes, for the private pipe between a task's process and the one that waits for it.

A result that cannot be pickled becomes a failure, `ResultNotPicklable` (B20). An exception travels with its text: one
that cannot be pickled or rebuilt arrives as `RemoteTaskError` (B18), and every one carries the traceback of its own
process as a note, so that printing it shows where it was raised (X6).
"""

from __future__ import annotations

import pickle
from dataclasses import astuple, replace

from overnight.error_text import ErrorText, error_text
from overnight.errors import FAULTS_OF_OBJECTS, ResultNotPicklable
from overnight.invoke import Outcome
from overnight.pickling import dump_exception, dump_result, load_exception, loads

_NOTE = "Traceback in the process of the task:\n"
#: What a death, which was raised nowhere, lacks.
_HEADING = "Traceback (most recent call last):"


def pack_outcome(outcome: Outcome, task_id: str) -> bytes:
    """Return the message that `unpack_outcome` turns into this outcome again."""
    if outcome.ok:
        try:
            body = dump_result(outcome.value, task_id)
        except ResultNotPicklable as error:
            # The cause is what pickling raised: its text is in the message, and it may be unpicklable itself.
            return pack_outcome(replace(outcome, ok=False, value=error.with_traceback(None)), task_id)
        text = None
    else:
        body = dump_exception(outcome.value)
        text = astuple(error_text(outcome.value))
    facts = (outcome.ok, text, outcome.started, outcome.seconds, outcome.peak_memory)
    return pickle.dumps((facts, body))


def unpack_outcome(message: bytes) -> Outcome:
    """Return the outcome of a message; a result that cannot be rebuilt here is a failure that says why."""
    (ok, text, started, seconds, peak_memory), body = loads(message)
    if not ok:
        error = rebuilt_exception(body, ErrorText(*text))
        return Outcome(ok, error, started, seconds, peak_memory)
    try:
        value = loads(body)
    except FAULTS_OF_OBJECTS as error:  # a user's class may raise anything here
        return Outcome(not ok, error_text(error).as_exception(), started, seconds, peak_memory)
    return Outcome(ok, value, started, seconds, peak_memory)


def rebuilt_exception(body: bytes, text: ErrorText) -> BaseException:
    """Return the exception of another process, its traceback there as a note."""
    error = load_exception(body, text.as_exception())
    if _HEADING in text.traceback and not any(note.startswith(_NOTE) for note in getattr(error, "__notes__", ())):
        error.add_note(_NOTE + text.traceback.rstrip("\n"))
    return error
