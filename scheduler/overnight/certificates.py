"""Death certificates: what ended a failed attempt, where, when, and what it printed last.

One is kept for each of a task's latest failed attempts, beside the error of the last one and whatever becomes of the
task afterwards. It is for people: text and numbers of bounded length, sealed, and nothing of it is ever unpickled.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ParamSpec, TypeVar

from overnight.error_text import bounded
from overnight.errors import BadSeal
from overnight.keyring import Keyring
from overnight.wire import Purpose, open_sealed, seal

#: The attempts of one task of which certificates are kept: the latest.
KEPT_ATTEMPTS = 8
LONGEST_TAIL_BYTES = 2048
LONGEST_MESSAGE_BYTES = 1024
LONGEST_NAME_BYTES = 256
#: What ended an attempt in whose process an exception was raised, and one whose worker was lost.
BY_EXCEPTION = "an exception"
BY_LOSS = "the loss of its worker"
BY_TIME_LIMIT = "its time limit"
_P = ParamSpec("_P")
_R = TypeVar("_R")
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "str": (str,),
    "str | None": (str, type(None)),
    "float | None": (float, int, type(None)),
}


@dataclass(frozen=True, slots=True)
class DeathCertificate:
    """What ended one attempt. Times are seconds since the epoch, memory is in bytes; None is unknown.

    `ended_by` says it in a few words that are the same for all attempts that ended so: an exception, a signal, a
    limit. `place` is the innermost frame of the user's own code. `tail` is the end of what the attempt printed and
    logged before that.
    """

    attempt: int
    ended_by: str
    type_name: str
    message: str
    place: str | None = None
    worker: str = ""
    host: str = ""
    ended: float | None = None
    seconds: float | None = None
    peak_memory: int = 0
    tail: str = ""

    def sealed(self, run_id: str, task: int, keyring: Keyring) -> bytes:
        """Return the certificate as a record bound to its run and task, its texts cut to their bounds."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values["message"] = bounded(self.message, LONGEST_MESSAGE_BYTES)
        values["tail"] = last_part(self.tail)
        for name in ("ended_by", "type_name", "place", "worker", "host"):
            if values[name] is not None:
                values[name] = bounded(values[name], LONGEST_NAME_BYTES)
        body = json.dumps([values[name] for name in self.__slots__], separators=(",", ":")).encode("ascii")
        return seal(Purpose.CERTIFICATE, {"run": run_id, "task": task}, body, keyring)

    @classmethod
    def opened(cls, record: bytes, run_id: str, task: int, keyring: Keyring) -> DeathCertificate:
        """Return the certificate of a record; BadSeal if it is damaged, of another task, or of another form."""
        opened = open_sealed(record, Purpose.CERTIFICATE, keyring, bound={"run": run_id, "task": task})
        return _read(opened.body)

    @property
    def started(self) -> float | None:
        """When the attempt started, None if that is unknown."""
        return None if self.ended is None or self.seconds is None else self.ended - self.seconds


def last_part(text: str, limit_bytes: int = LONGEST_TAIL_BYTES) -> str:
    """Return the end of a text, from the beginning of a line on where it has lines, in at most `limit_bytes`."""
    data = text[-limit_bytes:].encode("utf-8", "backslashreplace")
    if len(data) <= limit_bytes and len(text) <= limit_bytes:
        return data.decode("utf-8")
    cut = data[-limit_bytes:].decode("utf-8", "ignore")
    _, newline, rest = cut.partition("\n")
    return rest if newline and rest else cut


def _of_known_form(read: Callable[_P, _R]) -> Callable[_P, _R]:
    """Have a reader say BadSeal of a content of another form: where no key is set, anyone can seal one."""

    @functools.wraps(read)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return read(*args, **kwargs)
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise BadSeal("The content of a death certificate is none that overnight writes.") from error

    return checked


@_of_known_form
def _read(body: bytes) -> DeathCertificate:
    values = json.loads(body)
    declared = fields(DeathCertificate)
    if not isinstance(values, list) or len(values) != len(declared):
        raise ValueError(body)
    read: dict[str, Any] = {}
    for field, value in zip(declared, values, strict=True):
        if not isinstance(value, _TYPES[str(field.type)]) or isinstance(value, bool):
            raise TypeError(field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(field.name)
        read[field.name] = value
    return DeathCertificate(**read)
