"""The header of a flag: the facts of one recorded outcome, and their line of JSON (BEHAVIOUR C11, C14).

A header that is read may be forged where no key is set, so each member is checked for its type and value. Headers are
read by the hundred thousand: the types of all members are judged together, and a header is a tuple, which costs a
fifth of a frozen dataclass.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

from overnight.error_text import ErrorText
from overnight.errors import BadSeal
from overnight.lineage import (
    CombinedIds,
    CombinedRecords,
    Dependencies,
    DependencyRecord,
    DependencyRecords,
    lineage_of,
)

DONE = "done"
FAILED = "failed"
UNSTORED = "unstored"
STATES = frozenset({DONE, FAILED, UNSTORED})

_SHA256 = re.compile(r"[0-9a-f]{64}")
_DECODER = json.JSONDecoder()
_ENCODER = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False)
_TEXT: frozenset[type] = frozenset({str, type(None)})
_WHOLE: frozenset[type] = frozenset({int, type(None)})


class FlagHeader(NamedTuple):
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


_values_of = itemgetter(*FlagHeader._fields)
_TYPES: dict[str, frozenset[type]] = {
    **dict.fromkeys(FlagHeader._fields, _TEXT),
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


def record_of(header: FlagHeader) -> DependencyRecord:
    """Return how the flags of dependants name the outcome with this header."""
    return DependencyRecord(header.run_id, header.attempt, header.body_sha256)


def lineage_of_header(header: FlagHeader) -> bytes | None:
    """Return the lineage digest of the results that an outcome was computed from, None if it is not known."""
    return lineage_of(header.dependency_records)


def header_text(header: FlagHeader) -> str:
    """Return a header as one line of ASCII JSON."""
    members = header._asdict()
    if isinstance(header.dependencies, CombinedIds):
        members["dependencies"] = asdict(header.dependencies)
    records = header.dependency_records
    if isinstance(records, CombinedRecords):
        members["dependency_records"] = asdict(records)
    elif records is not None:
        members["dependency_records"] = [record._asdict() for record in records]
    if header.error is not None:
        members["error"] = asdict(header.error)
    return _ENCODER.encode(members)


def parsed_header(line: bytes) -> FlagHeader:
    """Return the header that a line of JSON holds. Raise BadSeal if it is not one, whatever it is."""
    try:
        text = line.decode("ascii")
        members, end = _DECODER.raw_decode(text)
        dependencies, records = members["dependencies"], members["dependency_records"]
        if dependencies is not None:
            members["dependencies"] = () if dependencies == [] else _dependencies(dependencies)
        if records is not None:
            members["dependency_records"] = () if records == [] else _dependency_records(records)
        if members["error"] is not None:
            members["error"] = ErrorText(**members["error"])
        header = FlagHeader._make(_values_of(members))
        complete = end == len(text) and len(members) == len(header)
        fits = complete and _types_fit(tuple(map(type, header))) and _values_fit(header)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        fits = False
    if not fits:
        raise BadSeal("its header is not one that this version of overnight knows")
    return header


def _dependencies(value: list[Any] | dict[str, Any]) -> Dependencies:
    return CombinedIds(**value) if isinstance(value, dict) else tuple(value)


def _dependency_records(value: list[Any] | dict[str, Any]) -> DependencyRecords:
    return CombinedRecords(**value) if isinstance(value, dict) else tuple([DependencyRecord(**item) for item in value])


@lru_cache(maxsize=256)
def _types_fit(types: tuple[type, ...]) -> bool:
    return all(kind in _TYPES[name] for name, kind in zip(FlagHeader._fields, types, strict=True))


def _values_fit(header: FlagHeader) -> bool:
    return (
        header.state in STATES
        and header.body_bytes >= 0
        and _SHA256.fullmatch(header.body_sha256) is not None
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
