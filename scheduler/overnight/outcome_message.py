"""An outcome as bytes, for the private pipe between a task's process and the one that waits for it.

A result that cannot be pickled becomes a failure, `ResultNotPicklable` (B20). An exception travels with its text: one
that cannot be pickled or rebuilt arrives as `RemoteTaskError` (B18), and every one carries the traceback of its own
process as a note, so that printing it shows where it was raised (X6).
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Sequence
from dataclasses import astuple, replace

from overnight.error_text import ErrorText, error_text
from overnight.errors import FAULTS_OF_OBJECTS, ResultNotPicklable
from overnight.invoke import Outcome
from overnight.pickling import dump_exception, dump_result, load_exception, loads

_LENGTH = struct.Struct(">I")
_NOTE = "Traceback in the process of the task:\n"
#: What a death, which was raised nowhere, lacks.
_HEADING = "Traceback (most recent call last):"


def pack_outcome(outcome: Outcome, task_id: str) -> bytes:
    """Return the message that `unpack_outcome` turns into this outcome again."""
    if not outcome.ok:
        return head_of(outcome) + dump_exception(outcome.value)
    try:
        return head_of(outcome) + dump_result(outcome.value, task_id)
    except ResultNotPicklable as error:
        # The cause is what pickling raised: its text is in the message, and it may be unpicklable itself.
        return pack_outcome(replace(outcome, ok=False, value=error.with_traceback(None)), task_id)


def head_of(outcome: Outcome) -> bytes:
    """Return the beginning of a message: all but the pickled result or exception, which follows."""
    text = None if outcome.ok else astuple(error_text(outcome.value))
    facts = pickle.dumps((outcome.ok, text, outcome.started, outcome.seconds, outcome.peak_memory))
    return _LENGTH.pack(len(facts)) + facts


def unpack_outcome(message: bytes | memoryview, buffers: Sequence[memoryview] = ()) -> Outcome:
    """Return the outcome of a message; a result that cannot be rebuilt here is a failure that says why.

    `buffers` are what the pickler of the result was told to keep apart, in order.
    """
    view = memoryview(message)
    begin = _LENGTH.size + _LENGTH.unpack_from(view)[0]
    ok, text, started, seconds, peak_memory = loads(view[_LENGTH.size : begin])
    if not ok:
        error = rebuilt_exception(view[begin:], ErrorText(*text))
        return Outcome(ok, error, started, seconds, peak_memory)
    try:
        value = loads(view[begin:], buffers)
    except FAULTS_OF_OBJECTS as error:  # a user's class may raise anything here
        return Outcome(not ok, error_text(error).as_exception(), started, seconds, peak_memory)
    return Outcome(ok, value, started, seconds, peak_memory)


def rebuilt_exception(body: bytes | memoryview, text: ErrorText) -> BaseException:
    """Return the exception of another process, its traceback there as a note."""
    error = load_exception(body, text.as_exception())
    if _HEADING in text.traceback and not any(note.startswith(_NOTE) for note in getattr(error, "__notes__", ())):
        error.add_note(_NOTE + text.traceback.rstrip("\n"))
    return error
