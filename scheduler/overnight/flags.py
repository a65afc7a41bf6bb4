"""The format of a flag: the sealed record of one task's outcome (BEHAVIOUR C11 to C16).

    overnight-flag 1 <signature or ->
    {one line of JSON: the header; its last member is the SHA-256 of the line before that member}
    body

The signature is the hex HMAC-SHA256 of the header line under a secret key. The header holds length and SHA-256 of
the body, so the seal covers every byte: with a key against forgery, without one against damage. Whoever needs facts
alone reads the header; nothing here unpickles, and nothing here touches a file.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from operator import itemgetter
from typing import Any

from overnight.error_text import ErrorText
from overnight.errors import BadSeal, ForeignRecord
from overnight.keyring import Keyring
from overnight.lineage import (
    CombinedIds,
    CombinedRecords,
    Dependencies,
    DependencyRecord,
    DependencyRecords,
    lineage_of,
)
from overnight.naming import shown

DONE = "done"
FAILED = "failed"
UNSTORED = "unstored"
STATES = frozenset({DONE, FAILED, UNSTORED})

FORMAT = 1
LONGEST_HEADER_BYTES = 1024 * 1024
LONGEST_FIRST_LINE_BYTES = 128
_MAGIC = b"overnight-flag "
_FIRST_LINE = re.compile(rb"overnight-flag ([0-9]{1,9}) (-|[0-9a-f]{64})")
_CHECK_NAME = b',"header_sha256":"'
_CHECK_LENGTH = len(_CHECK_NAME) + 64 + len(b'"}')
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DECODER = json.JSONDecoder()
_TEXT: frozenset[type] = frozenset({str, type(None)})
_WHOLE: frozenset[type] = frozenset({int, type(None)})


@dataclass(frozen=True, slots=True)
class FlagHeader:
    """The facts of one recorded outcome (C11). None is an unknown fact.

    `function` is ``module:qualified.name``; `started` and `finished` are UTC in ISO 8601; `body_sha256` is hex and
    names the result in other records. `error` describes a failure or, in an `unstored` record, the result's type.
    """

    task_id: str
    function: str | None = None
    dependencies: Dependencies | None = None
    dependency_records: DependencyRecords | None = None
    run_id: str | None = None
    attempt: int | None = None
    started: str | None = None
    finished: str | None = None
    duration_seconds: float | None = None
    host: str | None = None
    python: str | None = None
    state: str = DONE
    body_bytes: int = 0
    body_sha256: str = hashlib.sha256(b"").hexdigest()
    error: ErrorText | None = None


_MEMBER_NAMES = tuple(member.name for member in fields(FlagHeader))
_values_of = itemgetter(*_MEMBER_NAMES)
_TYPES: dict[str, frozenset[type]] = {
    **dict.fromkeys(_MEMBER_NAMES, _TEXT),
    "task_id": frozenset({str}),
    "dependencies": frozenset({tuple, CombinedIds, type(None)}),
    "dependency_records": frozenset({tuple, CombinedRecords, type(None)}),
    "attempt": _WHOLE,
    "duration_seconds": frozenset({int, float, type(None)}),
    "state": frozenset({str}),
    "body_bytes": frozenset({int}),
    "body_sha256": frozenset({str}),
    "error": frozenset({ErrorText, type(None)}),
}


@dataclass(frozen=True, slots=True)
class AttemptFacts:
    """What is known about the attempt that gave an outcome; `dependency_records` in the order of the desc's deps."""

    run_id: str | None = None
    attempt: int | None = None
    started: str | None = None
    finished: str | None = None
    duration_seconds: float | None = None
    host: str | None = None
    python: str | None = None
    dependency_records: tuple[DependencyRecord, ...] | None = None


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag whose seal was verified."""

    header: FlagHeader
    body: bytes


def record_of(header: FlagHeader) -> DependencyRecord:
    """Return how the flags of dependants name the outcome with this header."""
    return DependencyRecord(header.run_id, header.attempt, header.body_sha256)


def lineage_of_header(header: FlagHeader) -> bytes | None:
    """Return the lineage digest of the results that an outcome was computed from, None if it is not known."""
    return lineage_of(header.dependency_records)


def encode_flag(header: FlagHeader, body: bytes, keyring: Keyring) -> bytes:
    """Return the flag of an outcome; length and digest of the body are filled in, the first key signs.

    Raise ValueError if the header is larger than 1 MiB.
    """
    line = _header_line(sealed_header(header, body))
    signature = "-" if keyring.is_empty else keyring.sign(line)[1].hex()
    return b"".join((_MAGIC, b"%d %s\n" % (FORMAT, signature.encode("ascii")), line, b"\n", body))


def sealed_header(header: FlagHeader, body: bytes) -> FlagHeader:
    """Return the header with length and digest of its body."""
    return replace(header, body_bytes=len(body), body_sha256=hashlib.sha256(body).hexdigest())


def _header_line(header: FlagHeader) -> bytes:
    text = json.dumps(_members(header), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    open_line = text.encode("ascii")[:-1]
    digest = hashlib.sha256(open_line).hexdigest().encode("ascii")
    line = open_line + _CHECK_NAME + digest + b'"}'
    if len(line) > LONGEST_HEADER_BYTES:
        raise ValueError(f"The header of task {shown(header.task_id)!r} has {len(line)} bytes, above 1 MiB.")
    return line


def _members(header: FlagHeader) -> dict[str, Any]:
    members = {name: getattr(header, name) for name in _MEMBER_NAMES}
    if isinstance(header.dependencies, CombinedIds):
        members["dependencies"] = asdict(header.dependencies)
    records = header.dependency_records
    if isinstance(records, CombinedRecords):
        members["dependency_records"] = asdict(records)
    elif records is not None:
        members["dependency_records"] = [asdict(record) for record in records]
    if header.error is not None:
        members["error"] = asdict(header.error)
    return members


def holds_header(data: bytes) -> bool:
    """Tell whether the beginning of a flag reaches to the end of its header, or cannot be a flag at all."""
    first = data.find(b"\n", 0, LONGEST_FIRST_LINE_BYTES)
    if first < 0:
        return len(data) >= LONGEST_FIRST_LINE_BYTES
    return data.find(b"\n", first + 1) >= 0 or len(data) > first + LONGEST_HEADER_BYTES


def decode_head(data: bytes, keyring: Keyring) -> tuple[FlagHeader, int]:
    """Return the header and the offset of the body, from a flag or from its beginning. Raise BadSeal."""
    signature, start = _first_line(data)
    end = data.find(b"\n", start, start + LONGEST_HEADER_BYTES + 1)
    if end < 0:
        raise BadSeal("it is torn inside its header")
    line = data[start:end]
    _check_signature(line, signature, keyring)
    _check_line(line)
    return _parsed_header(line), end + 1


def decode_flag(data: bytes, task_id: str, keyring: Keyring) -> Flag:
    """Return the flag of the task with that id. Raise BadSeal with the reason if it is not one to believe."""
    header, offset = decode_head(data, keyring)
    check_place(header, offset, task_id, len(data))
    body = data[offset:]
    if hashlib.sha256(body).hexdigest() != header.body_sha256:
        raise BadSeal("its body has another SHA-256 than its header says")
    return Flag(header, body)


def check_place(header: FlagHeader, offset: int, task_id: str, total_bytes: int | None) -> None:
    """Raise BadSeal if a header is that of another task, or its flag shorter or longer than it says."""
    if header.task_id != task_id:
        raise BadSeal(f"it is the record of another task, {shown(header.task_id)!r}")
    if total_bytes is not None and total_bytes != offset + header.body_bytes:
        raise BadSeal(f"it has {total_bytes} bytes where its header says {offset + header.body_bytes}")


def _first_line(data: bytes) -> tuple[bytes, int]:
    if not data:
        raise BadSeal("it is empty")
    end = data.find(b"\n", 0, LONGEST_FIRST_LINE_BYTES)
    match = _FIRST_LINE.fullmatch(data, 0, end) if end >= 0 else None
    if match is None:
        raise BadSeal("it is torn" if _MAGIC.startswith(data[: len(_MAGIC)]) else "it is not a flag")
    if int(match[1]) != FORMAT:
        raise ForeignRecord(f"it has format {int(match[1])}; this version of overnight reads format {FORMAT}")
    return match[2], end + 1


def _check_signature(line: bytes, signature: bytes, keyring: Keyring) -> None:
    if keyring.is_empty:
        return
    if signature == b"-":
        raise BadSeal("it is not signed, and a secret key is set")
    if not keyring.verify(line, None, bytes.fromhex(signature.decode("ascii"))):
        raise BadSeal("it is not signed by a known key")


def _check_line(line: bytes) -> None:
    open_line, check = line[:-_CHECK_LENGTH], line[-_CHECK_LENGTH:]
    digest = hashlib.sha256(open_line).hexdigest().encode("ascii")
    if check != _CHECK_NAME + digest + b'"}':
        raise BadSeal("its header is damaged")


def _parsed_header(line: bytes) -> FlagHeader:
    try:
        members = _DECODER.decode(line[:-_CHECK_LENGTH].decode("ascii") + "}")
        members["dependencies"] = _dependencies(members["dependencies"])
        members["dependency_records"] = _dependency_records(members["dependency_records"])
        if members["error"] is not None:
            members["error"] = ErrorText(**members["error"])
        values = _values_of(members)
        header = FlagHeader(*values)
        fits = len(members) == len(values) and _types_fit(tuple(map(type, values))) and _values_fit(header)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        fits = False
    if not fits:
        raise BadSeal("its header is not one that this version of overnight knows")
    return header


def _dependencies(value: list[Any] | dict[str, Any] | None) -> Dependencies | None:
    if value is None:
        return None
    return CombinedIds(**value) if isinstance(value, dict) else tuple(value)


def _dependency_records(value: list[Any] | dict[str, Any] | None) -> DependencyRecords | None:
    if value is None:
        return None
    return CombinedRecords(**value) if isinstance(value, dict) else tuple([DependencyRecord(**item) for item in value])


@lru_cache(maxsize=256)
def _types_fit(types: tuple[type, ...]) -> bool:
    """Tell whether each fact is of its declared type: a header may be forged where no key is set."""
    return all(kind in _TYPES[name] for name, kind in zip(_MEMBER_NAMES, types, strict=True))


def _values_fit(header: FlagHeader) -> bool:
    return (
        header.state in STATES
        and header.body_bytes >= 0
        and _is_sha256(header.body_sha256)
        and (header.error is None or _error_fits(header.error))
        and (not header.dependencies or _dependencies_fit(header.dependencies))
        and (not header.dependency_records or _records_fit(header.dependency_records))
    )


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _error_fits(error: ErrorText) -> bool:
    return all(isinstance(text, str) for text in (error.type_name, error.message, error.traceback))


def _dependencies_fit(value: Dependencies) -> bool:
    if isinstance(value, CombinedIds):
        return isinstance(value.count, int) and _is_sha256(value.sha256)
    return set(map(type, value)) == {str}


def _records_fit(value: DependencyRecords) -> bool:
    if isinstance(value, CombinedRecords):
        known = value.lineage is None or _is_sha256(value.lineage)
        return isinstance(value.count, int) and _is_sha256(value.sha256) and known
    return all(_record_fits(record) for record in value)


def _record_fits(record: DependencyRecord) -> bool:
    known = record.sha256 is None or _is_sha256(record.sha256)
    return known and type(record.run_id) in _TEXT and type(record.attempt) in _WHOLE
