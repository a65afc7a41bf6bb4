"""An exception as bounded text, for readers that must not unpickle it.

Every text is cut to 64 kB (UTF-8), keeping its beginning and its end, so that the facts of a failure always fit into
the header of a flag. A class whose `__str__` raises gives ``<unprintable>``.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from overnight.errors import FAULTS_OF_OBJECTS, RemoteTaskError
from overnight.pickling import type_name
from overnight.shadowing import shadowing

LONGEST_TEXT_BYTES = 64 * 1024
LONGEST_TYPE_NAME = 1000
UNPRINTABLE = "<unprintable>"
#: What stands in the message of a death before what its process printed last, on lines of its own.
LAST_OUTPUT = "Its last output:"
_CUT = " [... cut ...] "


@dataclass(frozen=True, slots=True)
class ErrorText:
    """Type name, message and formatted traceback of a failure, each of bounded length."""

    type_name: str
    message: str
    traceback: str

    def as_exception(self) -> RemoteTaskError:
        """Return the exception that stands for one that cannot be rebuilt."""
        return RemoteTaskError(self.type_name, self.message, self.traceback)


def error_text(error: BaseException) -> ErrorText:
    """Describe an exception in bounded text; one that stands for another describes that other."""
    if isinstance(error, RemoteTaskError):
        return bounded_error_text(error.type_name, error.message, error.traceback_text)
    return bounded_error_text(type_name(type(error)), _whole_message(error), _formatted(error))


def short_type_name(name: str) -> str:
    """Return the name of an error's type as people know it: of Python's own and overnight's, without a module."""
    return name.removeprefix("builtins.").removeprefix("overnight.errors.")


def without_last_output(message: str) -> str:
    """Return the message of a failure without what the process of the task had printed last."""
    return message.partition(f" {LAST_OUTPUT}\n")[0]


def frames_of(formatted: str, message: str) -> str:
    """Return a formatted traceback; empty if it has no frame and does nothing but say type and message again."""
    name, _, text = formatted.partition(": ")
    return "" if len(name.split()) == 1 and text.strip() == message.strip() else formatted


def bounded_error_text(kind: str, message: str, formatted: str) -> ErrorText:
    """Return the three texts of a failure, cut to their bounds."""
    return ErrorText(kind[:LONGEST_TYPE_NAME], bounded(message), bounded(formatted))


def bounded(text: str, limit_bytes: int = LONGEST_TEXT_BYTES) -> str:
    """Return `text`, or its beginning and end with a mark between them, in at most `limit_bytes` of UTF-8."""
    if len(text) * 4 <= limit_bytes:
        return text
    head = text[:limit_bytes].encode("utf-8", "surrogatepass")
    if len(text) <= limit_bytes and len(head) <= limit_bytes:
        return text
    half = (limit_bytes - len(_CUT)) // 2
    tail = text[-limit_bytes:].encode("utf-8", "surrogatepass")
    return head[:half].decode("utf-8", "ignore") + _CUT + tail[-half:].decode("utf-8", "ignore")


def _whole_message(error: BaseException) -> str:
    """Return an exception's message, and which file it is about if that has the name of a module of the library."""
    reason = shadowing(error)
    return _message(error) if reason is None else f"{_message(error)}; {reason}"


def _message(error: BaseException) -> str:
    try:
        return f"the task called sys.exit({error.code!r})" if isinstance(error, SystemExit) else str(error)
    except FAULTS_OF_OBJECTS:  # a user's __str__ may raise anything, and the failure must still be told
        return UNPRINTABLE


def _formatted(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except FAULTS_OF_OBJECTS:  # likewise
        return UNPRINTABLE
